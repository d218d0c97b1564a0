"""A tf.data service on this machine: the same batches as without it, each once."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import data_service
from effnetv2_tf.data import service
from effnetv2_tf.data.pipeline import Augmentation, TrainingPipeline, share_of
from effnetv2_tf.data.sources import ArraySource, DataError, open_image_folder
from effnetv2_tf.errors import UsageError
from effnetv2_tf.training.schedule import StageSchedule

COUNT, BATCH = 24, 4
PLAIN = Augmentation(crop="none", flip=False, policy="none")


@pytest.fixture(scope="module")
def dispatcher():
    return data_service.start()


@pytest.fixture(scope="module")
def one_worker(dispatcher):
    """The address of a service with one worker."""
    worker = data_service.start(dispatcher=dispatcher.target)
    yield dispatcher.target
    del worker


@pytest.fixture(scope="module")
def two_workers():
    server = data_service.start()
    workers = [data_service.start(dispatcher=server.target) for _ in range(2)]
    yield server.target
    del workers


def _source():
    """Image i is of the colour i."""
    images = np.broadcast_to(
        np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 8, 8, 1)
    )
    return ArraySource(images, np.arange(COUNT) % 3)


def _stages():
    schedule = StageSchedule.progressive(
        epochs=4, num_examples=COUNT, batch_size=BATCH, image_size=(8, 12), num_stages=2
    )
    return schedule.stages


def _batches(pipeline, stage, start_step):
    steps = stage.last_step - start_step
    return [[part.numpy() for part in batch] for batch in pipeline(stage, start_step).take(steps)]


def _colours(batch):
    return sorted(int(value) for value in batch[0].max(axis=(1, 2, 3)))


def _folder(tmp_path):
    """24 PNG files in two classes, one of which is cut short."""
    for number in range(COUNT):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((9, 9, 3), number, np.uint8)).numpy())
    return tmp_path


@pytest.mark.parametrize("augmentation", [PLAIN, Augmentation(crop="pad")])
@pytest.mark.parametrize("start_step", [12, 17])
def test_one_worker_changes_nothing(one_worker, augmentation, start_step):
    stage = _stages()[1]
    local = TrainingPipeline(_source(), augmentation, seed=2)
    remote = TrainingPipeline(_source(), augmentation, seed=2, service_address=one_worker)
    expected = _batches(local, stage, start_step)
    received = _batches(remote, stage, start_step)
    assert len(received) == len(expected) == stage.last_step - start_step
    for ours, theirs in zip(received, expected, strict=True):
        for part, wanted in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_two_workers_make_every_batch_once(two_workers):
    stage = _stages()[0]
    local = TrainingPipeline(_source(), PLAIN, seed=2)
    remote = TrainingPipeline(_source(), PLAIN, seed=2, service_address=two_workers)
    expected = sorted(_colours(batch) for batch in _batches(local, stage, 0))
    assert sorted(_colours(batch) for batch in _batches(remote, stage, 0)) == expected


def test_the_shapes_stay_static(one_worker):
    pipeline = TrainingPipeline(_source(), PLAIN, service_address=one_worker)
    images, labels = pipeline(_stages()[0], 0).element_spec
    assert images.shape == (BATCH, 8, 8, 1)
    assert labels.shape == (BATCH, 3)


@pytest.mark.parametrize("crop", ["pad", "random_resized"])
def test_bad_files_are_counted_on_this_side(one_worker, tmp_path, crop):
    folder = _folder(tmp_path)
    options = {"validation_share": 0, "max_bad_share": 0.5}
    remote_source = open_image_folder("train", folder, **options)
    local_source = open_image_folder("train", folder, **options)
    broken = folder / "a" / "4.png"  # after the listing, which would have left it out
    broken.write_bytes(broken.read_bytes()[:20])
    augmentation = Augmentation(crop=crop, policy="none")
    stage = _stages()[0]
    received = _batches(
        TrainingPipeline(remote_source, augmentation, service_address=one_worker), stage, 0
    )
    expected = _batches(TrainingPipeline(local_source, augmentation), stage, 0)
    for ours, theirs in zip(received, expected, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert remote_source.bad_records.names() == local_source.bad_records.names()
    assert remote_source.bad_records.names() == (str(broken),)


@pytest.mark.parametrize("remote", [False, True])
def test_the_shares_of_two_machines_are_the_batch_of_one(one_worker, remote):
    address = one_worker if remote else None
    stage = _stages()[1]
    pipeline = TrainingPipeline(_source(), PLAIN, seed=4, service_address=address)
    whole = _batches(TrainingPipeline(_source(), PLAIN, seed=4), stage, 14)
    shares = [
        list(pipeline(stage, 14, context).take(len(whole)).as_numpy_iterator())
        for context in _contexts(2, 2)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step][0] for share in shares]
        assert [len(part) for part in parts] == [BATCH // 2] * 2
        assert sorted(np.concatenate(parts).max(axis=(1, 2, 3))) == _colours(batch), step


def test_two_replicas_on_a_machine_take_two_batches_a_step():
    stage = _stages()[0]
    pipeline = TrainingPipeline(_source(), PLAIN, seed=4)
    whole = _batches(pipeline, stage, 0)
    shares = [
        list(pipeline(stage, 0, context).take(2 * len(whole)).as_numpy_iterator())
        for context in _contexts(2, 4)
    ]
    for step, batch in enumerate(whole):
        parts = [part for share in shares for part, _ in share[2 * step : 2 * step + 2]]
        assert [len(part) for part in parts] == [1] * 4
        assert sorted(np.concatenate(parts).max(axis=(1, 2, 3))) == _colours(batch), step


def test_a_share_of_a_share():
    shared = share_of(
        ArraySource(np.zeros((8, 2, 2), np.uint8), np.arange(8), shard=(1, 2)), _contexts(2, 2)[1]
    )
    labels = [int(x["label"]) for x in shared.epoch(0, seed=0, shuffle=False)]
    assert labels == [3, 7]


def _contexts(machines, replicas):
    return [tf.distribute.InputContext(machines, i, replicas) for i in range(machines)]


@pytest.mark.parametrize("address", ["host:5050", "grpc://host", "grpc://host:0", "grpc://a b:1"])
def test_a_wrong_address(address, make_recipe):
    with pytest.raises(UsageError, match=r"data.service: expected grpc://host:port, received"):
        make_recipe({"source": "digits", "service": address})


def test_an_address_where_nothing_listens(unused_port):
    with pytest.raises(DataError, match=r"cannot be reached.*python -m effnetv2_tf.data_service"):
        service.check_reachable(f"grpc://localhost:{unused_port}")


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_a_taken_port_is_wrong_use(dispatcher):
    port = int(dispatcher.target.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"--port={port}: "):
        data_service.start(port=port)


@pytest.mark.slow
def test_the_program_serves_a_dispatcher_and_a_worker(unused_port):
    """The documented commands, in processes of their own."""
    command = [sys.executable, "-m", "effnetv2_tf.data_service"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    processes = []
    try:
        for flags in (
            [f"--port={unused_port}"],
            [f"--dispatcher=localhost:{unused_port}", "--host=localhost"],
        ):
            process = subprocess.Popen(
                [*command, *flags], stdout=subprocess.PIPE, text=True, env=environment
            )
            processes.append(process)
            assert re.match("Dispatcher at grpc://|Worker localhost", process.stdout.readline())
        address = f"grpc://localhost:{unused_port}"
        stage = _stages()[0]
        local = TrainingPipeline(_source(), Augmentation(crop="pad"), seed=2)
        remote = TrainingPipeline(
            _source(), Augmentation(crop="pad"), seed=2, service_address=address
        )
        for ours, theirs in zip(_batches(remote, stage, 0), _batches(local, stage, 0), strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
    finally:
        for process in processes:
            process.kill()
            process.communicate()
