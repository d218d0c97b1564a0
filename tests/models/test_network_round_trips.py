"""Saved here, loaded in a fresh process: the same outputs."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import RMSProp, build_network
from effnetv2_tf.keras_compat import KERAS_3, optimizer_variables, variable_path
from effnetv2_tf.models import families

PROGRAM = """
import sys
import numpy as np
import keras
import tensorflow as tf
from effnetv2_tf import RMSProp, build_network  # registers the classes with Keras
from effnetv2_tf.models.specs import NetworkSpec, Preprocessing, StageSpec

folder, spec = sys.argv[1:]
images = tf.constant(np.load(folder + "/images.npy"))
saved_model = tf.saved_model.load(folder + "/saved")
weights = build_network(eval(spec), classes=4)
weights.load_weights(folder + "/a.weights.h5")
outputs = {
    "keras": keras.models.load_model(folder + "/model.keras")(images),
    "weights": weights(images),
    "saved_model": saved_model.serve(images),
}
np.savez(folder + "/outputs.npz", **{name: value.numpy() for name, value in outputs.items()})
"""


def _outputs_of_a_fresh_process(folder, model, spec, images):
    model.save(folder / "model.keras")
    model.save_weights(folder / "a.weights.h5")
    model.export(folder / "saved")
    np.save(folder / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), repr(spec)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(folder / "outputs.npz"))


def _images(count=3):
    shape = (count, 17, 23, 3)
    return np.random.default_rng(1).uniform(0, 255, shape).astype("float32")


def _trained(spec):
    """A network whose every variable has left its initial value."""
    model = build_network(spec, classes=4)
    model.compile(RMSProp(0.001), "categorical_crossentropy", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    before = model.get_weights()
    model.train_on_batch(_images(8), np.eye(4)[np.arange(8) % 4])
    for old, new in zip(before, model.get_weights(), strict=True):
        assert not np.array_equal(old, new)
    return model


def test_every_form_in_a_fresh_process(tiny_spec, tmp_path):
    model = _trained(tiny_spec)
    outputs = _outputs_of_a_fresh_process(tmp_path, model, tiny_spec, _images())
    assert outputs.keys() == {"keras", "weights", "saved_model"}
    for form, found in outputs.items():
        np.testing.assert_allclose(found, model(_images()), rtol=1e-5, atol=1e-7, err_msg=form)
    variables = tf.saved_model.load(str(tmp_path / "saved")).variables
    assert len(variables) == len(model.weights)  # no drop rate, no random stream


def _assert_same_names(ours, theirs):
    if KERAS_3:  # Keras 2 names the variables of a network made from its config otherwise
        names = [[variable_path(w) for w in model.weights] for model in (ours, theirs)]
        assert names[0] == names[1]


def test_a_loaded_model_is_ours_with_its_optimizer(tiny_spec, tmp_path):
    model = _trained(tiny_spec)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert type(loaded.optimizer) is RMSProp
    for ours, theirs in zip(
        optimizer_variables(loaded.optimizer), optimizer_variables(model.optimizer), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    _assert_same_names(loaded, model)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_kerass_older_format(tiny_network, tmp_path):
    model = tiny_network()
    model.save(str(tmp_path / "model.h5"))
    loaded = keras.models.load_model(str(tmp_path / "model.h5"))
    np.testing.assert_array_equal(loaded(_images()), model(_images()))


def test_from_config_is_the_same_network(tiny_network):
    model = tiny_network()
    images = tf.constant(_images())
    for again in (type(model).from_config(model.get_config()), keras.models.clone_model(model)):
        _assert_same_names(again, model)
        again.set_weights(model.get_weights())
        np.testing.assert_array_equal(again(images), model(images))


def test_variables_have_names_of_their_own(tiny_network):
    """Checkpoints are keyed by them."""
    from effnetv2_tf.training.state import weights_by_name

    model = tiny_network()
    names = weights_by_name(model)
    assert len(names) == len(model.weights)
    assert "model/stage2_block1/fused/kernel" in names


@pytest.mark.slow
def test_b0_in_a_fresh_process(tmp_path):
    model = build_network(families.EFFICIENTNETV2_B0, classes=4)
    outputs = _outputs_of_a_fresh_process(tmp_path, model, families.EFFICIENTNETV2_B0, _images())
    for form, found in outputs.items():
        np.testing.assert_allclose(found, model(_images()), rtol=1e-4, atol=1e-6, err_msg=form)
