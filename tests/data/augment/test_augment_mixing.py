"""Mixup and CutMix: pixel-exact results, label shares, statistics of lambda."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_tf.data.augment import cutmix, mixup, mixup_and_cutmix, mixup_then_cutmix
from effnetv2_tf.data.augment.mixing import _beta, _exponential_shares

SEED = tf.constant([5, 6])


def constant_images(batch: int, height: int = 6, width: int = 8) -> tf.Tensor:
    """Image i has the value i everywhere, so that every pixel tells its origin."""
    values = tf.range(batch, dtype=tf.float32)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.tile(values, [1, height, width, 3])


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_beta_statistics(alpha: float) -> None:
    """Mean 1 / 2, variance 1 / (4 (2 alpha + 1)), fourth moment about the mean by formula."""
    shares = _beta([40_000], alpha, SEED).numpy().astype(float)
    assert np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert ((shares - 0.5) ** 4).mean() == pytest.approx(fourth, rel=0.05)


@pytest.mark.parametrize("alpha", [1e-4, 0.003, 0.05])
def test_tiny_alpha_gives_no_nan(alpha: float) -> None:
    assert np.isfinite(_beta([100_000], alpha, SEED).numpy()).all()
    labels = tf.eye(64)
    for mix in (mixup, cutmix):
        images, mixed_labels = mix(constant_images(64), labels, alpha, SEED)
        assert np.isfinite(images.numpy()).all() and np.isfinite(mixed_labels.numpy()).all()


def test_mixup_blends_images_and_labels_by_the_same_share() -> None:
    images = tf.random.stateless_uniform([7, 4, 5, 3], SEED) * 255
    labels = tf.eye(7)
    mixed, mixed_labels = mixup(images, labels, 1.0, SEED)
    own = tf.linalg.diag_part(mixed_labels).numpy()
    assert len(np.unique(own)) == 7
    for i in range(7):
        share = own[i].astype(np.float64)
        expected = share * images[i].numpy() + (1 - share) * images[i - 1].numpy()
        np.testing.assert_allclose(mixed[i], expected, atol=1e-4)
        assert mixed_labels[i, i - 1].numpy() == pytest.approx(1 - share, abs=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(mixed_labels, axis=1), 1.0, atol=1e-6)


def test_mixup_keeps_every_image_the_larger_part_of_its_mixture() -> None:
    _, labels = mixup(constant_images(512), tf.eye(512), 0.1, SEED)
    own = tf.linalg.diag_part(labels).numpy()
    assert own.min() >= 0.5, "an image has become its predecessor"
    assert own.max() > 0.99 and own.min() < 0.75, "the shares do not vary"


def test_cutmix_pastes_one_box_and_its_label_share_is_exact() -> None:
    batch, height, width = 64, 13, 17
    labels = tf.eye(batch)
    mixed, mixed_labels = cutmix(constant_images(batch, height, width), labels, 1.0, SEED)
    box_shares = []
    for i, image in enumerate(mixed.numpy()):
        assert (image == image[..., :1]).all()  # all channels from the same image
        in_box = image[..., 0] == (i - 1) % batch
        assert (in_box | (image[..., 0] == i)).all()
        expected = in_box.any(axis=1)[:, None] & in_box.any(axis=0)[None]
        np.testing.assert_array_equal(in_box, expected)  # a rectangle
        for edges in (in_box.any(axis=1), in_box.any(axis=0)):
            assert np.count_nonzero(np.diff(edges.astype(int))) <= 2  # without gaps
        assert mixed_labels[i, i].numpy() == pytest.approx(1 - in_box.mean(), abs=1e-6)
        assert mixed_labels[i, i - 1].numpy() == pytest.approx(in_box.mean(), abs=1e-6)
        box_shares.append(in_box.mean())
    assert len(set(box_shares)) > 30


def test_cutmix_box_statistics() -> None:
    """Without clipping the box covers 1 - lambda; its uniform centre is clipped at borders.

    A side of share s centred uniformly keeps s - s^2 / 4 of an axis on average. With
    1 - lambda = s^2 uniform, the mean area is the integral of (s - s^2 / 4)^2 over s^2:
    1/2 - 1/5 + 1/48.
    """
    images = tf.zeros([4000, 40, 40, 1])
    labels = tf.tile(tf.constant([[1.0, 0.0], [0.0, 1.0]]), [2000, 1])
    _, mixed_labels = cutmix(images, labels, 1.0, SEED)
    own = tf.reduce_sum(mixed_labels * labels, axis=1).numpy()
    assert 1 - own.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.015)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_alpha_zero_returns_the_very_tensors(mix) -> None:
    images, labels = constant_images(3), tf.eye(3)
    with tf.Graph().as_default() as graph:
        images = tf.zeros([3, 4, 4, 3])
        labels = tf.zeros([3, 2])
        count = len(graph.get_operations())
        mixed, mixed_labels = mix(images, labels, 0, [1, 2])
        assert mixed is images and mixed_labels is labels
        assert len(graph.get_operations()) == count


def kind_of(images: tf.Tensor) -> str:
    """CutMix keeps whole values, mixup of different images does not."""
    values = images.numpy()
    return "cutmix" if (values == np.round(values)).all() else "mixup"


def test_each_batch_takes_one_of_the_two() -> None:
    images, labels = constant_images(4), tf.eye(4)
    dataset = tf.data.Dataset.range(400)

    def count_cutmix(**arguments: float) -> int:
        mixed = dataset.map(
            lambda n: mixup_and_cutmix(images, labels, seed=tf.stack([n, 3]), **arguments)[0]
        )
        return sum(kind_of(batch) == "cutmix" for batch in mixed)

    assert 160 < count_cutmix(mixup_alpha=1.0, cutmix_alpha=1.0) < 240
    assert 50 < count_cutmix(mixup_alpha=1.0, cutmix_alpha=1.0, cutmix_probability=0.2) < 110
    assert count_cutmix(mixup_alpha=1.0, cutmix_alpha=0) == 0
    assert count_cutmix(mixup_alpha=0, cutmix_alpha=1.0) == 400


def test_the_combination_equals_its_parts() -> None:
    images, labels = constant_images(5), tf.eye(5)
    for number in range(6):
        seed = tf.constant([number, 1])
        mixed, mixed_labels = mixup_and_cutmix(images, labels, 0.4, 1.0, seed)
        part = cutmix(images, labels, 1.0, seed)
        if kind_of(mixed) == "mixup":
            part = mixup(images, labels, 0.4, seed)
        np.testing.assert_array_equal(mixed, part[0])
        np.testing.assert_array_equal(mixed_labels, part[1])


def test_both_after_one_another_mix_four_images_and_labels() -> None:
    """Each pixel is the blend that mixup made of its place; labels are its shares of pixels."""
    batch = 16
    images = tf.random.stateless_uniform([batch, 12, 12, 3], SEED) * 255
    labels = tf.eye(batch)
    blended, blended_labels = mixup(images, labels, 1.0, SEED)
    mixed, mixed_labels = mixup_then_cutmix(images, labels, 1.0, 1.0, SEED)
    shares = []
    for i in range(batch):
        from_box = (mixed[i].numpy() == blended[i - 2].numpy()).all(axis=-1)
        from_base = (mixed[i].numpy() == blended[i].numpy()).all(axis=-1)
        assert (from_box ^ from_base).all(), "a pixel of neither blend, or of both"
        box = from_box.any(axis=1)[:, None] & from_box.any(axis=0)[None]
        np.testing.assert_array_equal(from_box, box)
        own = from_base.mean()
        expected = own * blended_labels[i].numpy() + (1 - own) * blended_labels[i - 2].numpy()
        np.testing.assert_allclose(mixed_labels[i], expected, atol=1e-6)
        assert np.flatnonzero(expected > 0).size <= 4
        shares.append(own)
    assert len(set(shares)) > 8
    assert (np.count_nonzero(mixed_labels.numpy() > 1e-3, axis=1) == 4).sum() > 6


def test_both_with_an_alpha_of_0_is_the_other_alone() -> None:
    images, labels = constant_images(5), tf.eye(5)
    only_mixup = mixup_then_cutmix(images, labels, 0.4, 0, SEED)
    for ours, theirs in zip(only_mixup, mixup(images, labels, 0.4, SEED), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pasted, _ = mixup_then_cutmix(images, labels, 0, 1.0, SEED)
    for i, image in enumerate(pasted.numpy()):
        assert set(np.unique(image)) <= {i, (i - 2) % 5}


@pytest.mark.parametrize("batch", [1, 2])
def test_both_in_the_smallest_batches(batch: int) -> None:
    labels = tf.eye(batch)
    mixed, mixed_labels = mixup_then_cutmix(constant_images(batch), labels, 0, 1.0, SEED)
    for i, image in enumerate(mixed.numpy()):
        assert set(np.unique(image)) <= {i, (i - 1) % batch}
        other = (image == (i - 1) % batch).mean() if batch > 1 else 0.0
        assert mixed_labels[i, i].numpy() == pytest.approx(1 - other, abs=1e-6)


def test_graphcores_shares() -> None:
    """P(no box) = 1.55 lambda - 0.96; else the mean is 1 - (1 - 4 e^-4 / (1 - e^-4)) / 4."""
    shares = _exponential_shares(tf.constant(40_000), 0.85, SEED).numpy()
    assert shares.min() >= 0 and shares.max() <= 1
    assert (shares == 1).mean() == pytest.approx(1.55 * 0.85 - 0.96, abs=0.01)
    boxes = shares[shares < 1]
    assert boxes.mean() == pytest.approx(1 - (1 - 4 / (np.exp(4) - 1)) / 4, abs=0.005)
    assert (boxes < 0.5).mean() == pytest.approx(
        (np.exp(-2) - np.exp(-4)) / (1 - np.exp(-4)), abs=0.01
    )
    assert shares.mean() == pytest.approx(0.851, abs=0.005)


def test_graphcores_boxes_lie_wholly_inside() -> None:
    """A clipped box would cover less than its share."""
    images, labels = constant_images(256, 40, 40), tf.eye(256)
    shares = _exponential_shares(tf.constant(256), 0.85, SEED).numpy()
    _, mixed_labels = mixup_then_cutmix(images, labels, 0, 0, SEED, cutmix_lambda=0.85)
    side = np.round(np.sqrt(1 - shares) * 40)
    own = tf.linalg.diag_part(mixed_labels).numpy()
    np.testing.assert_allclose(own, 1 - side**2 / 40**2, atol=1e-6)


@settings(max_examples=15)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    alpha=st.floats(0.01, 5.0),
    seed=st.integers(0, 2**31 - 1),
    dtype=st.sampled_from([tf.float32, tf.float16, tf.bfloat16]),
)
def test_invariants(batch, height, width, channels, alpha, seed, dtype) -> None:
    images = tf.cast(tf.fill([batch, height, width, channels], 3.0), dtype)
    labels = tf.one_hot(tf.range(batch) % 3, 3)
    for mix in (mixup, cutmix):
        mixed, mixed_labels = mix(images, labels, alpha, tf.constant([seed, 0]))
        assert mixed.dtype == dtype and mixed.shape == images.shape
        np.testing.assert_array_equal(tf.cast(mixed, tf.float32), 3.0)  # equal images stay
        np.testing.assert_allclose(tf.reduce_sum(mixed_labels, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_unknown_sizes_equal_eager(mix) -> None:
    images = tf.random.stateless_uniform([6, 5, 7, 3], SEED)
    labels = tf.eye(6)
    signature = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 6])]
    in_graph = tf.function(lambda x, y: mix(x, y, 0.7, SEED), input_signature=signature)
    for first, second in zip(in_graph(images, labels), mix(images, labels, 0.7, SEED), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
    combined = tf.function(
        lambda x, y: mixup_and_cutmix(x, y, 0.7, 0.7, SEED), input_signature=signature
    )
    assert combined(images, labels)[0].shape == (6, 5, 7, 3)
    assert combined.get_concrete_function().outputs[0].shape.as_list() == [None, None, None, 3]


@pytest.mark.parametrize("options", [{}, {"cutmix_lambda": 0.85}], ids=["beta", "graphcore"])
def test_both_with_unknown_sizes_equal_eager(options) -> None:
    images, labels = tf.random.stateless_uniform([6, 5, 7, 3], SEED), tf.eye(6)
    signature = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None, 6])]

    def mix(x, y):
        return mixup_then_cutmix(x, y, 0.7, 0.7, SEED, **options)

    in_graph = tf.function(mix, input_signature=signature)
    for first, second in zip(in_graph(images, labels), mix(images, labels), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: mixup(x, y, -0.1, SEED), "mixup: alpha must be a finite number >= 0.0"),
        (lambda x, y: cutmix(x, y, None, SEED), "cutmix: alpha must be .* received None"),
        (
            lambda x, y: mixup_and_cutmix(x, y, 0.1, 0.1, SEED, cutmix_probability=1.5),
            "cutmix_probability must be a finite number between 0.0 and 1.0, received 1.5",
        ),
        (
            lambda x, y: mixup_then_cutmix(x, y, 0.1, 0.1, SEED, cutmix_lambda=1.5),
            "mixup_then_cutmix: cutmix_lambda must be .* received 1.5",
        ),
        (lambda x, y: mixup_then_cutmix(x, y, -1, 0.1, SEED), "mixup_then_cutmix: mixup_alpha"),
        (lambda x, y: mixup(x[0], y, 0.1, SEED), r"images must be a float .* \(6, 8, 3\)"),
        (lambda x, y: mixup(tf.cast(x, tf.uint8), y, 0.1, SEED), "received dtype uint8"),
        (lambda x, y: cutmix(x, tf.argmax(y, 1), 0.1, SEED), "labels must be a float tensor"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(constant_images(2), tf.eye(2))
