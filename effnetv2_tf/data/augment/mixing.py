"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) on a batch.

Every image is mixed with its predecessor in the batch (the first with the last), by a share
lambda of its own, drawn from Beta(alpha, alpha). Images are float [B, H, W, C], labels one-hot
or multi-hot float [B, K]; all sizes may be unknown until run time. The functions are pure in
`seed`, an int32 or int64 tensor of shape (2,).
"""

from __future__ import annotations

import tensorflow as tf

from effnetv2_tf.data.augment._common import require_number, salted_seed, uniform

_MIXUP_SALT = 0x4E6B17
_CUTMIX_SALT = 0x71C20D
_CENTER_SALT = 0x15D3B9
_CHOICE_SALT = 0x5A0E63
_BETA_UNIFORM_SALT = 0x33F8D1

Batch = tuple[tf.Tensor, tf.Tensor]


def mixup(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor) -> Batch:
    """Blends each image and label with those of its predecessor.

    images = lambda * images + (1 - lambda) * predecessors, and the same for labels, with
    lambda ~ Beta(alpha, alpha) per image (equation 1 of the paper), folded to the larger of
    lambda and 1 - lambda. A pair mixed by either is the same in distribution, but with small
    alpha half of the unfolded shares lie near 0: those images would be lost for the batch and
    their predecessors seen twice.

    Args:
      images: Float [B, H, W, C].
      labels: Float [B, K].
      alpha: Python number >= 0; 0 returns both as they are.
      seed: Tensor of shape (2,).

    Returns:
      Mixed (images, labels), shapes and dtypes as given.

    Raises:
      ValueError: An argument is invalid; the message names it.
    """
    images, labels = _require_batch(images, labels)
    require_number("mixup", "alpha", alpha)
    if alpha == 0:
        return images, labels
    shares = _beta([tf.shape(images)[0]], alpha, salted_seed(seed, _MIXUP_SALT))  # [B]
    shares = tf.maximum(shares, 1.0 - shares)
    image_shares = tf.cast(shares, images.dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    partners = _predecessors(images)
    mixed = partners + image_shares * (images - partners)
    return mixed, _mix_labels(labels, shares)


def cutmix(images: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor) -> Batch:
    """Pastes a box of its predecessor into each image and mixes labels by the share of pixels.

    The box has sqrt(1 - lambda) of the image's height and width, lambda ~ Beta(alpha, alpha)
    per image, and a uniform centre; it is clipped at the borders. Labels are mixed with the
    share of pixels that really come from each image (equation 1 and section 3.1 of the paper).

    Arguments, result and errors as for `mixup`.
    """
    images, labels = _require_batch(images, labels)
    require_number("cutmix", "alpha", alpha)
    if alpha == 0:
        return images, labels
    shape = tf.shape(images)
    batch, height, width, channels = tf.unstack(shape)
    shares = _beta([batch], alpha, salted_seed(seed, _CUTMIX_SALT))
    centers = uniform([2, batch], seed, _CENTER_SALT)
    box_sides = tf.sqrt(1.0 - shares)
    top, bottom = _clipped_interval(height, box_sides, centers[0])  # [B], [B]
    left, right = _clipped_interval(width, box_sides, centers[1])
    y, x = tf.range(height), tf.range(width * channels) // channels
    in_rows = (y >= top[:, tf.newaxis]) & (y < bottom[:, tf.newaxis])  # [B, H]
    in_columns = (x >= left[:, tf.newaxis]) & (x < right[:, tf.newaxis])  # [B, W C]
    in_box = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis, :]  # [B, H, W C]
    mixed = tf.where(tf.reshape(in_box, shape), _predecessors(images), images)
    mixed.set_shape(images.shape)
    box_pixels = tf.cast((bottom - top) * (right - left), tf.float32)
    return mixed, _mix_labels(labels, 1.0 - box_pixels / tf.cast(height * width, tf.float32))


def mixup_and_cutmix(
    images: tf.Tensor,
    labels: tf.Tensor,
    mixup_alpha: float,
    cutmix_alpha: float,
    seed: tf.Tensor,
    cutmix_probability: float = 0.5,
) -> Batch:
    """Applies mixup or CutMix to the whole batch.

    When both alphas are above 0, each batch takes CutMix with `cutmix_probability` and mixup
    otherwise; by default both are equally likely. When one alpha is 0, every batch takes the
    other; when both are 0, the batch is returned as it is.

    Args:
      images: Float [B, H, W, C].
      labels: Float [B, K].
      mixup_alpha: Python number >= 0.
      cutmix_alpha: Python number >= 0.
      seed: Tensor of shape (2,).
      cutmix_probability: From 0 to 1.

    Returns:
      Mixed (images, labels), shapes and dtypes as given.

    Raises:
      ValueError: An argument is invalid; the message names it.
    """
    images, labels = _require_batch(images, labels)
    require_number("mixup_and_cutmix", "mixup_alpha", mixup_alpha)
    require_number("mixup_and_cutmix", "cutmix_alpha", cutmix_alpha)
    require_number("mixup_and_cutmix", "cutmix_probability", cutmix_probability, high=1.0)
    if cutmix_alpha == 0:
        return mixup(images, labels, mixup_alpha, seed)
    if mixup_alpha == 0:
        return cutmix(images, labels, cutmix_alpha, seed)
    mixed, mixed_labels = tf.cond(
        uniform([], seed, _CHOICE_SALT) < cutmix_probability,
        lambda: cutmix(images, labels, cutmix_alpha, seed),
        lambda: mixup(images, labels, mixup_alpha, seed),
    )
    mixed.set_shape(images.shape)
    mixed_labels.set_shape(labels.shape)
    return mixed, mixed_labels


def _beta(shape: list[int | tf.Tensor], alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), float32.

    A Beta draw is g1 / (g1 + g2) with two Gamma(alpha) draws. For a small alpha both are often
    too small for a float, and 0 / 0 would follow. Their logarithms are safe:
    Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha) with uniform U (Marsaglia and Tsang 2000).
    """
    pair_shape = tf.stack([2, *shape])
    gammas = tf.random.stateless_gamma(pair_shape, seed, alpha + 1.0)
    uniforms = 1.0 - uniform(pair_shape, seed, _BETA_UNIFORM_SALT)  # (0, 1]
    logarithms = tf.math.log(gammas) + tf.math.log(uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def _clipped_interval(
    size: tf.Tensor, shares: tf.Tensor, centers: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns first and end pixel, int32 [B], of intervals that cover `shares` of `size`."""
    size_float = tf.cast(size, tf.float32)
    length = tf.cast(tf.round(shares * size_float), tf.int32)
    start = tf.cast(centers * size_float, tf.int32) - length // 2
    return tf.maximum(start, 0), tf.minimum(start + length, size)


def _predecessors(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([values[-1:], values[:-1]], axis=0)


def _mix_labels(labels: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    own = tf.cast(shares, labels.dtype)[:, tf.newaxis]
    return own * labels + (1.0 - own) * _predecessors(labels)


def _require_batch(images: tf.Tensor, labels: tf.Tensor) -> Batch:
    images = tf.convert_to_tensor(images, name="images")
    labels = tf.convert_to_tensor(labels, name="labels")
    if not images.dtype.is_floating or images.shape.rank != 4:
        raise ValueError(
            "images must be a float tensor of shape [batch, height, width, channels], "
            f"received dtype {images.dtype.name} and shape {images.shape}"
        )
    if not labels.dtype.is_floating or labels.shape.rank != 2:
        raise ValueError(
            "labels must be a float tensor of shape [batch, classes] (one-hot or multi-hot), "
            f"received dtype {labels.dtype.name} and shape {labels.shape}"
        )
    return images, labels
