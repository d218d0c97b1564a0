"""A saved model loads in a fresh process, whichever way a user would type it."""

import subprocess
import sys

import numpy as np
import pytest

from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import NetworkSpec, StageSpec

WAYS = {
    "ours": "import effnetv2_tf; model = effnetv2_tf.load_model(path)",
    "keras first": "import keras; import effnetv2_tf; model = keras.models.load_model(path)",
    "a name used": (
        "from effnetv2_tf import build_network; import keras; model = keras.models.load_model(path)"
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    stages = (StageSpec("mbconv", 3, 1, 2, 8, 1, 0.25),)
    model = build_network(NetworkSpec("tiny", stages, stem_filters=8, head_filters=16), classes=3)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path, float(np.asarray(model(np.full((1, 16, 16, 3), 100.0, "f")))[0, 0])


@pytest.mark.parametrize("way", WAYS)
def test_a_fresh_process_loads_it(saved, way):
    path, expected = saved
    program = (
        f"path = {str(path)!r}; {WAYS[way]}; import numpy as np; "
        "print(float(np.asarray(model(np.full((1, 16, 16, 3), 100.0, 'f')))[0, 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == pytest.approx(expected, rel=1e-5)
