"""Which GPU a worker's trials see."""

import pytest

from effnetv2_tf.search.workers import gpu_environment


@pytest.mark.parametrize(
    ("worker", "workers", "gpus", "visible", "expected"),
    [
        (0, 2, 0, None, {}),
        (1, 2, 2, None, {"CUDA_VISIBLE_DEVICES": "1"}),
        (1, 2, 4, None, {"CUDA_VISIBLE_DEVICES": "1"}),
        (1, 2, 2, "5, 7", {"CUDA_VISIBLE_DEVICES": "7"}),
        (2, 3, 2, None, {"CUDA_VISIBLE_DEVICES": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
    ],
)
def test_each_worker_has_a_gpu_or_a_share_of_one(worker, workers, gpus, visible, expected):
    assert gpu_environment(worker, workers, gpus, visible) == expected
