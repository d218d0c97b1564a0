"""Workers of a search as processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from effnetv2_tf import programs
from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError
from effnetv2_tf.search.config import SearchJob
from effnetv2_tf.training.isolated_run import end_with_parent


def work_in_processes(job: SearchJob, count: int) -> None:
    """Runs workers side by side; if asked to stop, passes it on and waits for them.

    Raises:
      TrainingFailure: if all of them failed.
      RunStopped: if asked to stop (SIGTERM).
    """
    # Not above: the fresh processes, which import this module, set TensorFlow up first.
    from effnetv2_tf.training.interruptions import on_sigterm

    context = multiprocessing.get_context("spawn")
    # Not daemons, which may have no processes of their own; they end with this one all the same.
    processes = [context.Process(target=_work, args=(job, i, count)) for i in range(count)]
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        for process in processes:
            if process.pid is not None:
                process.terminate()

    with on_sigterm(stop):
        try:
            for process in processes:
                if not stopped:
                    process.start()
            if stopped:  # perhaps while the last one was being started
                stop()
            _join(processes)
        except KeyboardInterrupt:
            stop()
            _join(processes)
            raise
    if stopped:
        raise RunStopped("Stopped; run the same command again to go on")
    codes = [process.exitcode for process in processes]
    if any(codes):
        print(f"Workers ended with exit codes {codes}; the same command goes on", flush=True)
        if all(codes):
            raise TrainingFailure(f"all workers failed, with exit codes {codes}")


def _join(processes: list[Any]) -> None:
    for process in processes:
        if process.pid is not None:
            process.join()


def gpu_environment(worker: int, workers: int, gpus: int, visible: str | None) -> dict[str, str]:
    """What gives a worker's trials one GPU of their own, or a share of one if there are fewer.

    Args:
      worker: its number, from 0.
      workers: how many there are.
      gpus: that TensorFlow sees.
      visible: CUDA_VISIBLE_DEVICES as it is set, or None.

    Returns:
      Environment variables for its trials' processes; none without GPUs.
    """
    if not gpus:
        return {}
    names = visible.split(",") if visible else [str(i) for i in range(gpus)]
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if workers > gpus else {}
    return {"CUDA_VISIBLE_DEVICES": names[worker % gpus].strip(), **shared}


def _work(job: SearchJob, worker: int, workers: int) -> None:
    """What a worker's process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    programs.import_tensorflow()
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ.update(gpu_environment(worker, workers, gpus, visible))
    tf.config.set_visible_devices([], "GPU")
    from effnetv2_tf.search.session import Session

    try:
        Session(job).work()
    except RunStopped as stopped:
        print(f"Worker {os.getpid()}: {stopped}", flush=True)
    except (UsageError, TrainingFailure) as error:
        print(f"Worker {os.getpid()}: error: {error}", flush=True)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
