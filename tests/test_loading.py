"""A saved model loads in a fresh process, whichever way a user would type it."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import effnetv2_tf
from effnetv2_tf import RMSProp, WarmUpDecay
from effnetv2_tf.keras_compat import variable_path
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import NetworkSpec, StageSpec

WAYS = {
    "ours": "import effnetv2_tf; model = effnetv2_tf.load_model(path)",
    "keras first": "import keras; import effnetv2_tf; model = keras.models.load_model(path)",
    "a name used": (
        "from effnetv2_tf import build_network; import keras; model = keras.models.load_model(path)"
    ),
}


STAGES = (StageSpec("fused", 3, 1, 2, 8, 1), StageSpec("mbconv", 3, 1, 2, 8, 2, 0.25))
SPEC = NetworkSpec("tiny", STAGES, stem_filters=8, head_filters=16)


def _printed_by(program):
    """What a fresh process that runs it prints."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = build_network(SPEC, classes=3)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path, float(np.asarray(model(np.full((1, 16, 16, 3), 100.0, "f")))[0, 0])


@pytest.fixture(scope="module", params=["keras", "h5"])
def compiled(request, tmp_path_factory):
    """A compiled model with this package's optimizer and schedule."""
    model = build_network(SPEC, classes=3)
    rate = WarmUpDecay(0.1, "cosine", [(10, 5, 256)])
    model.compile(RMSProp(rate, momentum=0.8, l2=0.5), "sparse_categorical_crossentropy")
    model.fit(np.full((4, 16, 16, 3), 100.0), np.zeros(4), verbose=0)
    path = tmp_path_factory.mktemp("compiled") / f"model.{request.param}"
    model.save(path)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_fresh_process_loads_the_optimizer(compiled, way):
    program = (
        f"path = {str(compiled)!r}; {WAYS[way]}; o = model.optimizer; "
        "print(type(o).__module__, o.momentum, o.l2, int(o.iterations))"
    )
    assert _printed_by(program).split() == ["effnetv2_tf.training.optimizers", "0.8", "0.5", "1"]


def test_a_loaded_model_has_the_names_of_the_built_one(saved):
    path, _ = saved
    model = effnetv2_tf.load_model(path)
    built = build_network(SPEC, classes=3)
    names = [variable_path(weight) for weight in built.weights]
    assert [variable_path(weight) for weight in model.weights] == names
    assert len(set(names)) == len(names)


def test_a_network_within_a_sequential_model_loads_from_h5(tmp_path):
    network = build_network(SPEC, include_top=False, pooling="avg")
    model = keras.Sequential([keras.Input((16, 16, 3)), network, keras.layers.Dense(2)])
    images = np.full((1, 16, 16, 3), 100.0, "f")
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, rtol=1e-5)


def test_tensorflows_own_saved_model(tmp_path):
    """Keras 2 traces training, too: what only training reads must be reachable."""
    model = build_network(SPEC, classes=3)
    images = tf.fill((1, 16, 16, 3), 100.0)
    tf.saved_model.save(model, str(tmp_path / "model"))
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    (outputs,) = serve(images).values()
    np.testing.assert_allclose(outputs, model(images), rtol=1e-5)
    assert len(model.weights) == len(build_network(SPEC, classes=3).get_weights())


@pytest.mark.parametrize("way", WAYS)
def test_a_fresh_process_loads_it(saved, way):
    path, expected = saved
    program = (
        f"path = {str(path)!r}; {WAYS[way]}; import numpy as np; "
        "print(float(np.asarray(model(np.full((1, 16, 16, 3), 100.0, 'f')))[0, 0]))"
    )
    assert float(_printed_by(program)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Dropout"])
def test_names_that_keras_has_stay_keras_own(name):
    assert name not in keras.saving.get_custom_objects()
