"""Two workers on this machine: the records each reads, a kill in stage 2, the same results."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.training.checkpoints import CheckpointFolder, read_checkpoint

pytestmark = pytest.mark.slow

IMAGES, BATCH, EPOCHS, SECOND_STAGE = 96, 32, 4, 6
STEPS = EPOCHS * IMAGES // BATCH
TEST_IMAGES = 21  # 11 and 10 for the two workers, in batches of 8

RECIPE = f"""
name: two workers
seed: 5
model:
  name: efficientnetv2-b0
  stem_filters: 8
  stem_stride: 1
  head_filters: 16
  dropout_rate: 0.0
  drop_path_rate: 0.0
  synchronized_batch_norm: true
  stages:
    - {{block: fused, stride: 2, expansion: 1, filters: 8, repeats: 1}}
    - {{block: mbconv, stride: 2, expansion: 2, filters: 8, repeats: 1, se_ratio: 0.25}}
data:
  source: image_folder
  options: {{directory: DATA, channels: 1}}
  augmentation: {{crop: none, flip: true, policy: none}}
  eval_crop: none
  eval_batch_size: 16
training: {{epochs: {EPOCHS}, batch_size: {BATCH}, ema_decay: 0.9}}
progressive: {{stages: 2, image_size: [8, 12]}}
learning_rate: {{per_256: 0.1, decay: cosine, warmup_epochs: 1}}
checkpoints: {{every_steps: 2, keep_last: 3}}
"""

# The training program, but for a note of every record that goes through a training step, and
# for a signal that the worker sends itself.
PROGRAM = """
import json, os, sys
from effnetv2_tf import programs, train

programs.prepare_environment()
notes, act_at, signal_number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
del sys.argv[1:4]

import keras
import numpy as np
import tensorflow as tf
from effnetv2_tf import keras_compat
from effnetv2_tf.training import trainer


class Act(keras.callbacks.Callback):
    def __init__(self, progressive):
        super().__init__()
        self.progressive = progressive

    def on_train_batch_end(self, batch, logs=None):
        if self.progressive.next_step == act_at:
            os.kill(os.getpid(), signal_number)


class Watched(trainer.Trainer):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.callbacks.insert(1, Act(self.progressive))
        original = self.model.train_step
        step = keras_compat.tf_variable(self.model.optimizer.iterations)

        def note(number, values):
            with open(notes, "a") as file:
                file.write(json.dumps([int(number), [int(v) for v in values]]) + "\\n")
            return np.bool_(True)

        @tf.autograph.experimental.do_not_convert
        def train_step(data):
            values = tf.reduce_max(data[0], [1, 2, 3])
            noted = tf.numpy_function(note, [tf.identity(step), values], tf.bool, stateful=True)
            with tf.control_dependencies([noted]):
                return original(data)

        self.model.train_step = train_step


trainer.Trainer = Watched
programs.run(train.main)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe and its data: image i is of the colour i, whatever its size."""
    folder = tmp_path_factory.mktemp("data")
    for split, numbers in (("train", range(IMAGES)), ("test", range(100, 100 + TEST_IMAGES))):
        for number in numbers:
            image = np.full((8, 8, 1), number, np.uint8)
            path = folder / split / ["even", "odd"][number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("DATA", str(folder)))
    return path


class Run:
    """What came of the processes that trained in a folder."""

    def __init__(self, recipe, folder):
        self.recipe = recipe
        self.folder = folder
        self.codes, self.outputs, self.errors = [], [], []

    def start(self, workers, act_at=-1, signal_number=signal.SIGKILL, acting=1):
        """Runs the training command on all workers to its end."""
        ports = [_free_port() for _ in range(workers)]
        processes = [
            self._start_worker(i, ports, act_at if i == acting else -1, signal_number)
            for i in range(workers)
        ]
        try:
            ended = [process.communicate(timeout=400) for process in processes]
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        self.codes = [process.returncode for process in processes]
        self.outputs, self.errors = zip(*ended, strict=True)
        return self

    def _start_worker(self, index, ports, act_at, signal_number):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        strategy = "auto"
        if len(ports) > 1:
            strategy = "multi_worker"
            addresses = [f"localhost:{port}" for port in ports]
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        return subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, str(self._notes(index))),
                *(str(act_at), str(int(signal_number)), f"--config={self.recipe}"),
                *(f"--model_dir={self.folder}", f"--strategy={strategy}", "--progress=none"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def _notes(self, index):
        return self.folder.with_name(f"{self.folder.name}.records.{index}")

    def records(self, index):
        """The records of each step on a worker; of a step made twice those of the last time."""
        lines = self._notes(index).read_text().splitlines()
        return dict(map(tuple, map(json.loads, lines)))

    def succeeded(self):
        assert set(self.codes) == {0}, "\n".join(error[-2000:] for error in self.errors)
        return self

    def last_arrays(self):
        checkpoint = CheckpointFolder(self.folder / "checkpoints").latest()
        assert checkpoint.step == STEPS
        return checkpoint.arrays


def _free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _accuracy(output):
    return re.search(r"Held-out top-1 accuracy: (\S+) on \d+ images", output)[1]


def _assert_same_weights(run, reference):
    ours, theirs = run.last_arrays(), reference.last_arrays()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        if not name.startswith("random/"):
            np.testing.assert_allclose(ours[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def on_one_device(recipe, tmp_path_factory):
    return Run(recipe, tmp_path_factory.mktemp("one") / "run").start(workers=1).succeeded()


@pytest.fixture(scope="module")
def killed_and_resumed(recipe, tmp_path_factory):
    """Worker 1 killed in the middle of stage 2; then the same command on both workers."""
    killed = Run(recipe, tmp_path_factory.mktemp("two") / "run")
    killed.start(workers=2, act_at=SECOND_STAGE + 3, signal_number=signal.SIGKILL)
    resumed = Run(recipe, killed.folder).start(workers=2).succeeded()
    return killed, resumed


def test_a_killed_worker_ends_the_other_with_a_clear_error(killed_and_resumed):
    killed, _ = killed_and_resumed
    assert killed.codes == [1, -signal.SIGKILL], killed.errors[0][-2000:]
    last_line = killed.errors[0].strip().splitlines()[-1]
    assert last_line.startswith("error: worker 1 (localhost:") or "another worker" in last_line
    assert "start the same command on all workers again" in last_line


def test_the_resumed_run_reports_the_same_on_both_workers(killed_and_resumed):
    _, resumed = killed_and_resumed
    for output in resumed.outputs:
        step = int(re.search(r"Going on at step (\d+): epoch 3, stage 2 \(12 px\)", output)[1])
        assert SECOND_STAGE < step <= SECOND_STAGE + 3
    assert _accuracy(resumed.outputs[0]) == _accuracy(resumed.outputs[1])
    summary = json.loads((resumed.folder / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert f"{summary['accuracy']:.2%}" == _accuracy(resumed.outputs[0])
    assert (resumed.folder / "model.keras").stat().st_size > 0


def test_every_record_once_an_epoch(killed_and_resumed):
    _, resumed = killed_and_resumed
    per_worker = [resumed.records(index) for index in (0, 1)]
    assert [sorted(steps) for steps in per_worker] == [list(range(STEPS))] * 2
    steps_per_epoch = STEPS // EPOCHS
    for epoch in range(EPOCHS):
        steps = range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)
        seen = [number for worker in per_worker for step in steps for number in worker[step]]
        assert sorted(seen) == list(range(IMAGES)), f"epoch {epoch}"


def test_a_step_has_the_same_records_as_on_one_device(killed_and_resumed, on_one_device):
    _, resumed = killed_and_resumed
    expected = on_one_device.records(0)
    for step in range(STEPS):
        union = resumed.records(0)[step] + resumed.records(1)[step]
        assert sorted(union) == sorted(expected[step]), f"step {step}"


def test_two_workers_train_as_one_device(killed_and_resumed, on_one_device):
    """Also the metrics: 21 test images in batches of 8 are 11 and 10 for the workers."""
    _, resumed = killed_and_resumed
    _assert_same_weights(resumed, on_one_device)
    ours, theirs = (
        read_checkpoint(CheckpointFolder(run.folder / "checkpoints").by_step()[-1]).metadata["rows"]
        for run in (resumed, on_one_device)
    )
    for row, expected in zip(ours, theirs, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "stage"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3), (row["epoch"], name)


def test_a_killed_chief_ends_the_other_worker(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run").start(workers=2, act_at=2, acting=0)
    assert run.codes == [-signal.SIGKILL, 1], run.errors[1][-2000:]
    assert "start the same command on all workers again" in run.errors[1]


def test_sigterm_at_one_worker_stops_all_with_a_checkpoint(recipe, tmp_path, on_one_device):
    run = Run(recipe, tmp_path / "run")
    run.start(workers=2, act_at=SECOND_STAGE + 1, signal_number=signal.SIGTERM)
    assert run.codes == [143, 143], run.errors
    for output in run.outputs:
        assert f"after step {SECOND_STAGE + 1}; a checkpoint is saved" in output
    checkpoint = CheckpointFolder(run.folder / "checkpoints").latest()
    assert checkpoint.step == SECOND_STAGE + 1
    one_device = Run(recipe, run.folder).start(workers=1).succeeded()  # another strategy goes on
    assert f"Going on at step {SECOND_STAGE + 1}:" in one_device.outputs[0]
    _assert_same_weights(one_device, on_one_device)


def test_workers_that_do_not_share_the_folder_are_refused(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run").start(workers=2, act_at=1, signal_number=signal.SIGTERM)
    apart = Run(recipe, tmp_path / "run")
    original = apart._start_worker

    def start_worker(index, *arguments):
        apart.folder = run.folder if index == 0 else tmp_path / "elsewhere"
        return original(index, *arguments)

    apart._start_worker = start_worker
    apart.start(workers=2)
    assert apart.codes == [1, 1]
    for error in apart.errors:
        assert "the workers see different checkpoints: worker 0 at step 1, worker 1 at" in error
        assert "--model_dir must be a folder that all workers share" in error


def test_bad_records_of_all_workers_are_reported(tmp_path):
    """Each worker evaluates every second record, in every epoch the same ones."""
    bad = [3, 10, 17, 24]
    for split in ("train", "test"):
        with tf.io.TFRecordWriter(str(tmp_path / f"{split}-0")) as writer:
            for number in range(BATCH):
                image = tf.io.encode_png(np.full((8, 8, 1), number, np.uint8)).numpy()
                example = tf.train.Example()
                feature = example.features.feature
                feature["image/class/label"].int64_list.value.append(1 + number % 2)
                feature["image/encoded"].bytes_list.value.append(
                    b"" if split == "test" and number in bad else image
                )
                writer.write(example.SerializeToString())
    text = RECIPE.replace("image_folder", "tfrecord").replace(f"epochs: {EPOCHS}", "epochs: 2")
    text = text.replace("{directory: DATA,", f"{{files: {tmp_path}, num_classes: 2,")
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("data:\n", "data:\n  max_bad_share: 0.2\n"))
    run = Run(path, tmp_path / "run").start(workers=2).succeeded()
    reported = json.loads((run.folder / "summary.json").read_text())["bad_records"]["evaluation"]
    assert reported["count"] == len(bad)
    numbers = [int(re.search(r"#(\d+) ", name)[1]) for name in reported["names"]]
    assert sorted(numbers) == bad
