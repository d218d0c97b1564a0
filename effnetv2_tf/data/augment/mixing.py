"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) on a batch, one of them or both.

Every image is mixed with its predecessor in the batch (the first with the last), by a share
lambda of its own, drawn from Beta(alpha, alpha); `mixup_then_cutmix` does both, each with
another partner. Images are float [B, H, W, C], labels one-hot
or multi-hot float [B, K]; all sizes may be unknown until run time. The functions are pure in
`seed`, an int32 or int64 tensor of shape (2,).
"""

from __future__ import annotations

import math

import tensorflow as tf

from effnetv2_tf.data.augment._common import require_number, salted_seed, uniform

_MIXUP_SALT = 0x4E6B17
_CUTMIX_SALT = 0x71C20D
_CENTER_SALT = 0x15D3B9
_CHOICE_SALT = 0x5A0E63
_BETA_UNIFORM_SALT = 0x33F8D1
_NO_BOX_SALT = 0x2C94E7
_BOX_SALT = 0x68B50F

# Of Graphcore's distribution of CutMix's shares, see `_exponential_shares`.
_NO_BOX_SLOPE, _NO_BOX_OFFSET, _BOX_RATE = 1.55, 0.96, 4.0

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
    shares = _beta([tf.shape(images)[0]], alpha, salted_seed(seed, _CUTMIX_SALT))
    return _paste_boxes(images, labels, shares, seed)


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
    other; when both are 0, the batch is returned as it is. google/automl mixes one half of
    every batch in either way.

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


def mixup_then_cutmix(
    images: tf.Tensor,
    labels: tf.Tensor,
    mixup_alpha: float,
    cutmix_alpha: float,
    seed: tf.Tensor,
    cutmix_lambda: float | None = None,
) -> Batch:
    """Applies mixup and then CutMix to every batch, as Graphcore's EfficientNet recipe.

    Masters et al., arXiv 2106.03640, train with both; how, their released code shows
    (graphcore/examples, applications/tensorflow/cnns/training/Datasets/augmentations.py):
    mixup blends each image with its predecessor; then a box of the already blended image two
    places before is pasted, so that base and box hold four images. Labels follow: with mixup's
    shares m and CutMix's share c, image i has c m_i of label i, c (1 - m_i) of label i - 1,
    (1 - c) m_(i-2) of label i - 2 and the rest of label i - 3. In batches of two the box comes
    from the predecessor.

    `cutmix_lambda` takes that code's distribution of c ("version 1", for the paper's results;
    the value there is 0.85), with boxes wholly inside the image, in place of
    Beta(cutmix_alpha, cutmix_alpha). It draws one c for each micro-batch of 3 images; here
    every image has its own.

    Args:
      images: Float [B, H, W, C].
      labels: Float [B, K].
      mixup_alpha: Python number >= 0; 0 for no mixup.
      cutmix_alpha: Python number >= 0; 0 for no CutMix, unless `cutmix_lambda` is given.
      seed: Tensor of shape (2,).
      cutmix_lambda: From 0 to 1, or None.

    Returns:
      Mixed (images, labels), shapes and dtypes as given.

    Raises:
      ValueError: An argument is invalid; the message names it.
    """
    owner = "mixup_then_cutmix"
    require_number(owner, "mixup_alpha", mixup_alpha)
    require_number(owner, "cutmix_alpha", cutmix_alpha)
    images, labels = mixup(images, labels, mixup_alpha, seed)
    batch = tf.shape(images)[0]
    if cutmix_lambda is not None:
        require_number(owner, "cutmix_lambda", cutmix_lambda, high=1.0)
        shares = _exponential_shares(batch, cutmix_lambda, seed)
    elif cutmix_alpha == 0:
        return images, labels
    else:
        shares = _beta([batch], cutmix_alpha, salted_seed(seed, _CUTMIX_SALT))
    distance = tf.where(batch > 2, 2, 1)
    return _paste_boxes(images, labels, shares, seed, distance, cutmix_lambda is not None)


def _exponential_shares(batch: tf.Tensor, cutmix_lambda: float, seed: tf.Tensor) -> tf.Tensor:
    """CutMix's shares of Graphcore's code, float32 [B], of mean about `cutmix_lambda`.

    1 (no box) with probability 1.55 lambda - 0.96, otherwise 1 - x / 4 with x exponentially
    distributed and cut off at 4; lambda 0.85 gives a mean of 0.851.
    """
    no_box = uniform([batch], seed, _NO_BOX_SALT) < cutmix_lambda * _NO_BOX_SLOPE - _NO_BOX_OFFSET
    smallest = math.exp(-_BOX_RATE)
    uniforms = smallest + (1.0 - smallest) * uniform([batch], seed, _BOX_SALT)
    return tf.where(no_box, 1.0, 1.0 + tf.math.log(uniforms) / _BOX_RATE)


def _paste_boxes(
    images: tf.Tensor,
    labels: tf.Tensor,
    shares: tf.Tensor,
    seed: tf.Tensor,
    distance: int | tf.Tensor = 1,
    inside: bool = False,
) -> Batch:
    """Pastes boxes of 1 - `shares` [B] of the area from the images `distance` places before.

    Boxes that reach over the border are clipped or, if `inside`, moved.
    """
    shape = tf.shape(images)
    batch, height, width, channels = tf.unstack(shape)
    centers = uniform([2, batch], seed, _CENTER_SALT)
    box_sides = tf.sqrt(1.0 - shares)
    top, bottom = _interval(height, box_sides, centers[0], inside)  # [B], [B]
    left, right = _interval(width, box_sides, centers[1], inside)
    y, x = tf.range(height), tf.range(width * channels) // channels
    in_rows = (y >= top[:, tf.newaxis]) & (y < bottom[:, tf.newaxis])  # [B, H]
    in_columns = (x >= left[:, tf.newaxis]) & (x < right[:, tf.newaxis])  # [B, W C]
    in_box = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis, :]  # [B, H, W C]
    mixed = tf.where(tf.reshape(in_box, shape), _predecessors(images, distance), images)
    mixed.set_shape(images.shape)
    box_pixels = tf.cast((bottom - top) * (right - left), tf.float32)
    own = 1.0 - box_pixels / tf.cast(height * width, tf.float32)
    return mixed, _mix_labels(labels, own, distance)


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


def _interval(
    size: tf.Tensor, shares: tf.Tensor, centers: tf.Tensor, inside: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns first and end pixel, int32 [B], of intervals that cover `shares` of `size`."""
    size_float = tf.cast(size, tf.float32)
    length = tf.cast(tf.round(shares * size_float), tf.int32)
    start = tf.cast(centers * size_float, tf.int32) - length // 2
    if inside:
        start = tf.clip_by_value(start, 0, size - length)
        return start, start + length
    return tf.maximum(start, 0), tf.minimum(start + length, size)


def _predecessors(values: tf.Tensor, distance: int | tf.Tensor = 1) -> tf.Tensor:
    return tf.roll(values, distance, axis=0)


def _mix_labels(labels: tf.Tensor, shares: tf.Tensor, distance: int | tf.Tensor = 1) -> tf.Tensor:
    own = tf.cast(shares, labels.dtype)[:, tf.newaxis]
    return own * labels + (1.0 - own) * _predecessors(labels, distance)


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
