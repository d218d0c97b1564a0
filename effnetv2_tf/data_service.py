"""Serves training batches: `python -m effnetv2_tf.data_service`, see `data.service` in recipes.

A service is one dispatcher and any number of workers, TensorFlow's own:

    python -m effnetv2_tf.data_service --port=5050                                  # machine A
    python -m effnetv2_tf.data_service --port=5051 --dispatcher=A:5050 --host=B     # machine B
    python -m effnetv2_tf.train ... --set data.service=grpc://A:5050                # accelerator

Workers read the data themselves, under the same paths as the training program. They serve until
they are stopped.
"""

from __future__ import annotations

import re
import socket
from typing import Any

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import UsageError

_PORT = flags.DEFINE_integer("port", 0, "Port to serve on; 0 for any free one.", 0, 65535)
_DISPATCHER = flags.DEFINE_string(
    "dispatcher", None, "host:port of the dispatcher to work for; none makes this the dispatcher."
)
_HOST = flags.DEFINE_string(
    "host", "localhost", "Name under which the training program reaches this worker."
)


def start(port: int = 0, dispatcher: str | None = None, host: str = "localhost") -> Any:
    """Starts a server in this process and returns it.

    Args:
      port: to serve on; 0 for any free one.
      dispatcher: `host:port` of the dispatcher to work for; None starts a dispatcher.
      host: under which a worker can be reached from the training program.

    Raises:
      UsageError: if the port is taken or the dispatcher is not there.
    """
    import tensorflow as tf

    _check_free(port)
    service = tf.data.experimental.service
    try:
        if dispatcher is None:
            return service.DispatchServer(service.DispatcherConfig(port=port))
        config = service.WorkerConfig(
            dispatcher_address=dispatcher.removeprefix("grpc://"),
            worker_address=f"{host}:%port%",
            port=port,
            dispatcher_timeout_ms=20_000,
        )
        return service.WorkerServer(config)
    except tf.errors.OpError as error:
        where = f"--port={port}" if dispatcher is None else f"--dispatcher={dispatcher}"
        first_line = (error.message or "cannot start").splitlines()[0]
        raise UsageError(f"{where}: {first_line}") from error


def _check_free(port: int) -> None:
    """Refuses a taken port, which TensorFlow would share with whoever has it."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed a moment ago
            probe.bind(("", port))
    except OSError as error:
        raise UsageError(
            f"--port={port}: expected a free port, received one that cannot be used ({error}); "
            "choose another, or 0 for any"
        ) from error


def _check_dispatcher(address: str) -> None:
    if not re.fullmatch(r"\S+:\d{1,5}", address):
        raise UsageError(f"--dispatcher: expected host:port, received {address!r}")


def main() -> None:
    if _DISPATCHER.value is not None:
        _check_dispatcher(_DISPATCHER.value)
    programs.import_tensorflow()
    server = start(_PORT.value, _DISPATCHER.value, _HOST.value)
    if _DISPATCHER.value is None:
        print(f"Dispatcher at {server.target}; waiting for workers", flush=True)
    else:
        print(f"Worker {_HOST.value} for the dispatcher {_DISPATCHER.value}", flush=True)
    server.join()


if __name__ == "__main__":
    programs.run(main)
