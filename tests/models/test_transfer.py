"""Freezing, new heads and learning rates by depth."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.keras_compat import tf_variable, variable_path
from effnetv2_tf.models import transfer
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNetSpec
from effnetv2_tf.models.network import build_network


def _images(count=4, channels=3):
    return np.random.default_rng(2).uniform(0, 255, (count, 16, 16, channels)).astype("float32")


def _trainable(model):
    return {variable_path(weight) for weight in model.trainable_weights}


def _values(model):
    return {variable_path(w): tf_variable(w).numpy() for w in model.weights}


def _changed_by_a_step(model):
    """Paths of the weights that one step of training changes."""
    before = _values(model)
    model.compile(
        optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy", jit_compile=False
    )
    labels = np.eye(4, dtype="float32")
    model.fit(_images(), labels, verbose=0)
    after = _values(model)
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_frozen_layers_do_not_change(tiny_network):
    model = tiny_network(dropout_rate=0.0)
    names = transfer.freeze(model, until="stage3")
    assert names[-1] == "stage2_block2"
    changed = _changed_by_a_step(model)
    assert changed
    frozen = {path for path in changed if path.split("/")[0] in names}
    assert not frozen
    assert "stage3_block1/project/kernel" in changed
    assert "stage3_block1/project_norm/moving_mean" in changed


def test_frozen_layers_whose_norms_learn(tiny_network):
    model = tiny_network(dropout_rate=0.0)
    transfer.freeze(model, until="head", batch_norm="training")
    changed = _changed_by_a_step(model)
    assert "stage1_block1/fused_norm/moving_mean" in changed
    assert "stage3_block2/depthwise_norm/gamma" in changed
    frozen = [path for path in changed if path.endswith("kernel")]
    assert sorted(frozen) == ["classifier/kernel", "head/kernel"]


def test_a_frozen_norm_uses_its_moving_statistics_in_training(tiny_network):
    model = tiny_network(dropout_rate=0.0, drop_path_rate=0.0)
    images = tf.constant(_images())
    assert not np.allclose(model(images, training=True), model(images), atol=1e-6)
    transfer.freeze(model)
    np.testing.assert_allclose(model(images, training=True), model(images), atol=1e-6)


def test_the_border_moves_both_ways(tiny_network):
    model = tiny_network()
    everything = _trainable(model)
    transfer.freeze(model, until="classifier")
    assert _trainable(model) == {"classifier/kernel", "classifier/bias"}
    transfer.freeze(model, until="stage2_block2", batch_norm="training")
    transfer.freeze(model, until="stage2_block2")
    assert "stage2_block2/fused/kernel" in _trainable(model)
    assert "stage2_block1/fused/kernel" not in _trainable(model)
    transfer.unfreeze(model)
    assert _trainable(model) == everything


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": "stage9"}, "no layer 'stage9'; did you mean 'stage"),
        ({"until": "clasifier"}, "did you mean 'classifier'"),
        ({"batch_norm": "off"}, "`batch_norm` must be 'frozen' or 'training'"),
    ],
)
def test_what_cannot_be_frozen(tiny_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        transfer.freeze(tiny_network(), **arguments)


def test_norms_that_are_no_batch_norms_cannot_go_on_learning(tiny_spec):
    spec = dataclasses.replace(tiny_spec, normalization="layer")
    with pytest.raises(ValueError, match="has no batch norms: expected 'frozen', received 'train"):
        transfer.freeze(build_network(spec, classes=4), batch_norm="training")


def test_a_new_head_keeps_the_body(tiny_network):
    model = tiny_network()
    new = transfer.replace_head(model, classes=7)
    assert new.output_shape == (None, 7)
    np.testing.assert_allclose(new(_images()), np.full((4, 7), 1 / 7), rtol=1e-6)
    old, values = _values(model), _values(new)
    body = [path for path in values if not path.startswith("classifier")]
    assert len(body) == len(old) - 2
    for path in body:
        np.testing.assert_array_equal(values[path], old[path], err_msg=path)
    report = transfer.head_report(model, new)
    assert f"kept: {len(body)} variables, stem/kernel to head_norm/moving_variance" in report
    assert "new:  classifier/kernel (24, 7), was (24, 4)" in report


def test_a_new_heads_own_settings(tiny_network):
    new = transfer.replace_head(tiny_network(), 7, None, None, dropout_rate=0.5)
    kernel = tf_variable(new.get_layer("classifier").kernel).numpy()
    assert 0 < np.abs(kernel).max() <= 7**-0.5
    assert new.get_layer("dropout").rate == 0.5
    assert new(_images()).numpy().min() < 0  # logits


@pytest.mark.parametrize(
    "arguments",
    [{"classes": 5}, {"include_top": False}, {"include_top": False, "pooling": "avg"}],
    ids=["classifier", "feature map", "pooled"],
)
def test_a_new_head_for_a_nasnet(arguments):
    spec = NASNetSpec("tiny", 1, 96, stem_filters=8, auxiliary_head="classes" in arguments)
    model = build_nasnet(spec, **arguments)
    new = transfer.replace_head(model, classes=3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(new(images), np.full((2, 3), 1 / 3), rtol=1e-6)
    old, body = _values(model), _values(transfer.backbone(new))
    assert len(body) > 100
    for path, value in body.items():
        np.testing.assert_array_equal(value, old[path], err_msg=path)
    assert transfer.freeze(new)[-1] == "dropout"


def test_a_head_for_a_network_without_one(tiny_network):
    model = tiny_network(include_top=False)
    assert transfer.replace_head(model, classes=np.int64(3)).output_shape == (None, 3)


def test_a_backbone_gives_the_last_feature_map(tiny_network):
    model = tiny_network()
    features = transfer.backbone(model)(_images())
    assert features.shape == (4, 2, 2, 24)
    pooled = np.mean(features, axis=(1, 2))
    kernel, bias = (np.asarray(w) for w in model.get_layer("classifier").get_weights())
    logits = pooled @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(model(_images()), expected, rtol=1e-4, atol=1e-6)


def test_what_is_made_of_a_network_takes_its_images_without_a_word(tiny_network):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for model in (
            transfer.backbone(tiny_network()),
            transfer.replace_head(tiny_network(), classes=3),
        ):
            model(_images())  # `predict` does not ask
            model.predict(_images(), verbose=0)
    assert [str(w.message) for w in caught if "structure" in str(w.message)] == []


def test_impossible_heads(tiny_network):
    with pytest.raises(ValueError, match="`classes` must be a positive integer"):
        transfer.replace_head(tiny_network(), classes=0)
    image = keras.Input((8, 8, 3))
    foreign = keras.Model(image, keras.layers.Flatten()(image))
    with pytest.raises(ValueError, match="no layer 'head_norm'"):
        transfer.replace_head(foreign, classes=2)


def test_learning_rates_fall_towards_the_input(tiny_network):
    factors = transfer.learning_rates_by_depth(tiny_network(), 0.5)
    assert factors == {"stem": 0.0625, "stage1": 0.125, "stage2": 0.25, "stage3": 0.5}
    with pytest.raises(ValueError, match=r"`decay` must lie in \(0, 1\]. Received: decay=0"):
        transfer.learning_rates_by_depth(tiny_network(), 0)
    with pytest.raises(ValueError, match="must be an EfficientNet.*'plain', which has none"):
        transfer.learning_rates_by_depth(keras.Sequential([], name="plain"), 0.5)


def _copies(model, tmp_path):
    """The model after saving and loading, and after cloning."""
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)


@pytest.mark.parametrize("batch_norm", ["frozen", "training"])
def test_what_is_frozen_stays_so_in_copies(batch_norm, tiny_network, tmp_path):
    model = tiny_network()
    transfer.freeze(model, until="stage3", batch_norm=batch_norm)
    trainable = len(model.trainable_weights)
    assert 0 < trainable < len(model.weights)
    for copy in _copies(model, tmp_path):
        assert len(copy.trainable_weights) == trainable
        transfer.unfreeze(copy)
        assert len(copy.trainable_weights) == len(tiny_network().trainable_weights)


def test_what_is_trained_within_a_frozen_block_stays_so_in_copies(tiny_network, tmp_path):
    model = tiny_network()
    block = model.get_layer("stage3_block1")
    block.trainable = False
    block.squeeze_excite.trainable = True
    for copy in _copies(model, tmp_path):
        inner = copy.get_layer("stage3_block1")
        assert not inner.trainable
        assert not inner.project_norm.trainable
        assert inner.squeeze_excite.trainable
        assert inner.squeeze_excite.reduce.trainable
        assert len(copy.trainable_weights) == len(model.trainable_weights)


def test_a_frozen_backbone_within_a_model_stays_so_in_copies(tiny_network, tmp_path):
    body = tiny_network(include_top=False, pooling="avg")
    body.trainable = False
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.Dense(4)(body(image, training=False)))
    for copy in _copies(model, tmp_path):
        assert [tuple(w.shape) for w in copy.trainable_weights] == [
            (body.output_shape[-1], 4),
            (4,),
        ]


def test_freezing_again_reaches_what_lies_within(tiny_network):
    """Keras ignores a value that the layer around has already."""
    model = tiny_network()
    transfer.freeze(model, until="head")
    trainable = len(model.trainable_weights)
    block = model.get_layer("stage2_block1")
    block.project.trainable = True
    transfer.freeze(model, until="head")
    assert len(model.trainable_weights) == trainable
