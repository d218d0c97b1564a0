"""Which devices are chosen, what is refused and how it is said; TPUs by stand-ins."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from effnetv2_tf.errors import TrainingFailure, UsageError
from effnetv2_tf.training import distribution
from effnetv2_tf.training.distributed_cluster import Cluster, read_cluster
from effnetv2_tf.training.distributed_data import distribute
from effnetv2_tf.training.distributed_workers import FollowerCheckpoints, Workers
from effnetv2_tf.training.distribution import (
    adapt_to_devices,
    check_batch_sizes,
    choose_strategy,
    steps_per_execution,
)
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.schedule import StageSchedule


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def _tf_config(index=0, job="worker", **jobs):
    jobs = jobs or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


def test_auto_without_gpus_is_the_cpu():
    strategy, reason = choose_strategy()
    assert strategy is tf.distribute.get_strategy()
    assert reason == "Training on the CPU: no GPU was found."


def test_auto_with_two_gpus_is_mirrored(monkeypatch):
    """And the devices are the GPUs; without any here, the strategy is a stand-in."""
    gpus = [SimpleNamespace(name=f"/device:GPU:{i}") for i in (0, 1)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: gpus)
    made = {}

    def mirrored(devices, cross_device_ops):
        made.update(devices=devices, operations=cross_device_ops)
        return SimpleNamespace(num_replicas_in_sync=len(devices))

    monkeypatch.setattr(tf.distribute, "MirroredStrategy", mirrored)
    _, reason = choose_strategy()
    assert made == {"devices": ["GPU:0", "GPU:1"], "operations": None}
    assert reason == "Training on 2 mirrored replicas: GPU:0, GPU:1 (all GPUs)."


def test_one_named_device():
    strategy, reason = choose_strategy("one_device", devices=["cpu:0"])
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert reason == "Training on CPU:0 (--devices)."


def test_mirrored_without_gpus_says_so():
    strategy, reason = choose_strategy("mirrored")
    assert strategy.num_replicas_in_sync == 1
    assert reason == "Training on 1 mirrored replica: CPU:0 (no GPU was found)."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "mirored"}, r"--strategy: expected one of auto, .*, received 'mirored'"),
        ({"kind": "mirrored", "tpu": "x"}, "--tpu chooses the strategy itself; leave"),
        ({"tpu": "x", "devices": ["GPU:0"]}, "--tpu takes all devices.*leave --devices out"),
        (
            {"kind": "multi_worker", "devices": ["GPU:0"]},
            "--strategy=multi_worker takes all devices",
        ),
        ({"kind": "multi_worker"}, "needs the environment variable TF_CONFIG, received none; e.g."),
        ({"kind": "one_device", "devices": ["CPU:0", "GPU:0"]}, "expected a single one with"),
        ({"devices": ["GPU:7"]}, "--devices: expected some of .*CPU:0.*, received GPU:7"),
    ],
)
def test_wrong_use(arguments, message):
    with pytest.raises(UsageError, match=message):
        choose_strategy(**arguments)


def test_virtual_cpus_too_late():
    tf.config.list_logical_devices()  # TensorFlow is up
    with pytest.raises(UsageError, match=r"--devices: .* choose them before any computation"):
        choose_strategy("mirrored", devices=["CPU:0", "CPU:1"])


def test_workers_are_not_left_to_train_on_their_own(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", _tf_config())
    with pytest.raises(UsageError, match=r"names 2 workers.*--strategy=auto.*=multi_worker"):
        choose_strategy()


def test_batch_sizes_must_be_shared_out_evenly():
    strategy = SimpleNamespace(num_replicas_in_sync=8)
    check_batch_sizes(strategy, {"training.batch_size": [64, 8]})
    message = r"data.eval_batch_size: .* multiple of 8, .* received 100; try 96 or 104"
    with pytest.raises(UsageError, match=message):
        check_batch_sizes(strategy, {"training.batch_size": [64], "data.eval_batch_size": [100]})
    with pytest.raises(UsageError, match=r"received 6; try 8$"):
        check_batch_sizes(strategy, {"training.batch_size": [6]})


# The cluster of TF_CONFIG.


def test_no_cluster():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": " "}) is None
    assert read_cluster({"TF_CONFIG": "{}"}) is None


def test_a_cluster_of_workers():
    cluster = read_cluster({"TF_CONFIG": _tf_config(1)})
    assert cluster == Cluster(("a:1", "b:2"), 1)
    assert cluster.size == 2


def test_the_chief_comes_first():
    jobs = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    assert read_cluster({"TF_CONFIG": _tf_config(0, "chief", **jobs)}).index == 0
    cluster = read_cluster({"TF_CONFIG": _tf_config(1, "worker", **jobs)})
    assert cluster == Cluster(("a:1", "b:2", "c:3"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"TF_CONFIG: expected JSON, received '\{'"),
        ("[1]", 'expected an object with "cluster" and "task"'),
        (_tf_config(ps=["a:1"], worker=["b:1"]), "received 'ps'"),
        (_tf_config(worker="a:1"), "expected a list of \"host:port\" for 'worker'"),
        (_tf_config(2), r"\(worker 0 to 1\), received worker 2"),
        (_tf_config(0, "chief"), "received chief 0"),
        (_tf_config(worker=[]), 'at least one "host:port"'),
        (_tf_config(chief=["a:1", "b:1"]), 'at most one address for "chief"'),
    ],
)
def test_a_wrong_cluster(text, message):
    with pytest.raises(UsageError, match=message):
        read_cluster({"TF_CONFIG": text})


# What workers say of each other.


def _two_workers(index=0):
    workers = Workers(tf.distribute.get_strategy())
    workers.count, workers.index, workers.addresses = 2, index, ("a:1", "b:2")
    return workers


def test_a_single_process_agrees_with_itself():
    workers = Workers(tf.distribute.get_strategy())
    assert (workers.count, workers.index, workers.is_chief) == (1, 0, True)
    assert workers.gather(7) == [7]
    assert workers.any(True) is True
    assert workers.any(False) is False
    workers.wait()
    workers.check_same_step(3, "checkpoints")


def test_a_lost_worker_is_named():
    message = "Collective ops is aborted: target /job:worker/replica:0/task:1 reset"
    error = tf.errors.UnavailableError(None, None, message)
    assert _two_workers().describe_loss(error).startswith("worker 1 (b:2) stopped or cannot be")
    assert _two_workers(1).describe_loss(error).startswith("another worker stopped")


def test_other_errors_are_not_taken_for_lost_workers():
    error = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [1] vs. [2]")
    assert _two_workers().describe_loss(error) is None
    lost = tf.errors.UnavailableError(None, None, "gone")
    assert Workers(tf.distribute.get_strategy()).describe_loss(lost) is None


def test_different_checkpoints_are_refused(monkeypatch):
    workers = _two_workers()
    monkeypatch.setattr(workers, "gather", lambda value: [value, 0])
    with pytest.raises(TrainingFailure, match="worker 0 at step 8, worker 1 at step 0; --model_d"):
        workers.check_same_step(8, "run/checkpoints")


def test_followers_write_nothing(tmp_path):
    folder = FollowerCheckpoints(tmp_path / "checkpoints")
    assert folder.save({}, {"step": 3}).name == "step-0000000003.npz"
    assert folder.save_best({}, {"step": 3}).name == "best.npz"
    assert list(tmp_path.iterdir()) == []


# TPUs, of which there are none here.


class _Tpu:
    """Stands in for TensorFlow's TPU calls and notes them."""

    def __init__(self, monkeypatch, fails=None):
        self.calls = []
        self.fails = fails or {}
        resolver = SimpleNamespace(TPUClusterResolver=self._call("resolve", "the resolver"))
        monkeypatch.setattr(tf.distribute, "cluster_resolver", resolver)
        monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", self._call("connect"))
        initialize = self._call("initialize")
        monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", initialize)
        monkeypatch.setattr(tf.distribute, "TPUStrategy", self._strategy)

    def _call(self, name, result=None):
        def call(*arguments, **options):
            self.calls.append((name, *arguments, *options.values()))
            if name in self.fails:
                raise self.fails[name]
            return result

        return call

    def _strategy(self, resolver):
        self.calls.append(("strategy", resolver))
        return SimpleNamespace(num_replicas_in_sync=8)


def test_a_tpu_by_name_is_resolved_connected_and_initialised(monkeypatch):
    tpu = _Tpu(monkeypatch)
    strategy, reason = choose_strategy(tpu="my-tpu")
    assert tpu.calls == [
        ("resolve", "my-tpu"),
        ("connect", "the resolver"),
        ("initialize", "the resolver"),
        ("strategy", "the resolver"),
    ]
    assert strategy.num_replicas_in_sync == 8
    assert reason.startswith("Training on TPU my-tpu (--tpu): 8 cores")


def test_a_local_tpu_needs_no_connection(monkeypatch):
    tpu = _Tpu(monkeypatch)
    choose_strategy(tpu="local")
    assert [call[0] for call in tpu.calls] == ["resolve", "initialize", "strategy"]


@pytest.mark.parametrize("stage", ["resolve", "connect", "initialize"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such TPU"),
        RuntimeError("not healthy"),
        OSError("no route to host"),
        ImportError("googleapiclient is missing"),
        tf.errors.UnavailableError(None, None, "failed to connect"),
        tf.errors.NotFoundError(None, None, "'TPU' was not found"),
    ],
)
def test_a_tpu_that_cannot_be_used(monkeypatch, stage, error):
    _Tpu(monkeypatch, fails={stage: error})
    with pytest.raises(UsageError, match="--tpu: cannot use TPU 'grpc://10.0.0.2:8470': .*local"):
        choose_strategy(tpu="grpc://10.0.0.2:8470")


def _recipe(**training):
    return Recipe.model_validate(
        {
            "name": "tpu",
            "model": {"name": "efficientnetv2-b0"},
            "data": {"source": "digits"},
            "training": {"epochs": 2, "batch_size": 8, **training},
            "progressive": {"stages": 2, "image_size": [8, 12]},
        }
    )


@pytest.fixture
def tpu_strategy(monkeypatch):
    monkeypatch.setattr(distribution, "is_tpu", lambda strategy: True)
    return SimpleNamespace(num_replicas_in_sync=8)


def test_precision_on_tpus(tpu_strategy):
    assert adapt_to_devices(_recipe(), tpu_strategy).training.precision == "mixed_bfloat16"
    chosen = _recipe(precision="float32")
    assert adapt_to_devices(chosen, tpu_strategy).training.precision == "float32"


def test_precision_elsewhere():
    recipe = _recipe()
    assert adapt_to_devices(recipe, tf.distribute.get_strategy()) is recipe


@pytest.mark.parametrize(
    ("num_examples", "batch_sizes", "expected"),
    [(8 * 60, 8, 60), (8 * 240, 8, 80), (8 * 7, 8, 7), (960, [8, 16], 60), (8 * 211, 8, 1)],
)
def test_steps_per_execution_on_tpus(tpu_strategy, num_examples, batch_sizes, expected):
    schedule = StageSchedule.progressive(
        epochs=2,
        num_examples=num_examples,
        batch_size=batch_sizes,
        image_size=(8, 12),
        num_stages=2,
    )
    assert steps_per_execution(_recipe(), schedule, tpu_strategy) == expected


def test_steps_per_execution_must_divide_the_epochs(tpu_strategy, make_schedule):
    schedule = make_schedule()  # three steps an epoch
    for strategy in (tpu_strategy, tf.distribute.get_strategy()):
        assert steps_per_execution(_recipe(steps_per_execution=3), schedule, strategy) == 3
        with pytest.raises(UsageError, match="training.steps_per_execution: .* of 3, received 2"):
            steps_per_execution(_recipe(steps_per_execution=2), schedule, strategy)


def test_steps_per_execution_elsewhere(make_schedule):
    assert steps_per_execution(_recipe(), make_schedule(), tf.distribute.get_strategy()) == 1


def test_the_programs_error_is_one_line(tmp_path):
    """`--strategy=multi_worker` alone: exit code 2, no traceback; what is odd is said before."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "effnetv2_tf.train", "--config=configs/quickstart.yaml"),
            *(f"--model_dir={tmp_path}", "--strategy=multi_worker"),
            "--set=learning_rate.warmup_epochs=50",
        ],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "TF_CONFIG"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "begins with random weights" in done.stdout
    assert "learning_rate.warmup_epochs (50) is not below training.epochs" in done.stdout
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: --strategy: multi_worker needs the environment variable")
    assert not any("Traceback" in line for line in lines)


def test_batches_that_machines_share_are_not_dealt_out_by_file():
    """Of files, TensorFlow would give each machine some: together they would skip more steps."""
    given = []

    class Strategy:
        num_replicas_in_sync = 2

        def experimental_distribute_dataset(self, dataset):
            given.append(dataset.options().experimental_distribute.auto_shard_policy)

    distribute(Strategy(), lambda context: tf.data.TextLineDataset(["a", "b"]).batch(2), False)
    assert given == [tf.data.experimental.AutoShardPolicy.DATA]
