"""What the command-line programs share: environment, flags, exit codes."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from effnetv2_tf.errors import RunStopped, TrainingFailure, UsageError, operation_fault
from effnetv2_tf.garbage import collection_paused

_MOST_NAMED = 10  # names in a message
STOPPED = 128 + signal.SIGTERM  # the exit code, as shells have it
# Of the flag --checkpoint, wherever a run is opened; see `training.runs.find_checkpoint`.
CHECKPOINT_HELP = "Of the run: last, best, the name of a file in its checkpoints folder, or a path."
# Of the flag --images, wherever a run is evaluated; see `training.runs.open_run`.
IMAGES_HELP = (
    "Evaluate on these: a folder with one of images for each class, or a CSV file of path,label; "
    "the run's own evaluation split by default."
)


def prepare_environment() -> None:
    """Settings that TensorFlow reads when it is imported; what the user set stays.

    oneDNN is switched on (TensorFlow leaves it off on CPUs without AVX512-VNNI, where it
    measured faster too), and TensorFlow's start-up notes are switched off.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@collection_paused()
def import_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, without the notes that both print.

    They go to the standard error stream from C++ code before any log level holds. If
    something fails, they are printed after all. What was imported is left out of all later
    searches for garbage.
    """
    _import_quietly()
    gc.freeze()


def _import_quietly() -> None:
    if absl_logging.get_verbosity() >= absl_logging.DEBUG:
        import tensorflow as tf

        tf.config.list_physical_devices()
        return
    with _quiet_standard_error():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel(logging.ERROR)


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    """Keeps what is written to file descriptor 2 back; shows it if an exception comes up."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            notes.seek(0)
            shutil.copyfileobj(notes, sys.stderr.buffer)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def show(text: str) -> None:
    """Prints a line now; if nobody reads on, as in `... | head`, this and all others go nowhere."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def run(main: Callable[[], None]) -> None:
    """Parses flags and runs `main`: exit code 0, 2 for wrong use, 1 for failed work.

    After SIGTERM, with a checkpoint saved, it is 143, after Ctrl-C 130: the work is not done.

    Errors are one line; `--verbosity=1` (absl's flag) adds the traceback.
    """

    def without_arguments(arguments: list[str]) -> None:
        if arguments:
            raise UsageError(f"unexpected argument {arguments[0]!r}; see --help")
        main()

    run_with_arguments(without_arguments)


def run_with_arguments(main: Callable[[list[str]], None]) -> None:
    """As `run`, for a program that takes arguments besides its flags, such as file names."""
    prepare_environment()

    def guarded(arguments: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            absl_logging.set_verbosity(absl_logging.WARNING)  # TensorFlow notes its every write
        for stream in (sys.stdout, sys.stderr):  # names of files may be anything
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            main(arguments[1:])
        except RunStopped as stopped:
            print(stopped)
            sys.exit(STOPPED)
        except UsageError as error:
            _fail(error, 2)
        except (TrainingFailure, OSError) as error:
            _fail(error, 1)
        except _errors_of_operations() as error:
            reason = operation_fault(error.message)
            _fail(error, 1, f"TensorFlow: {reason}; --verbosity=1 shows the whole error")
        except KeyboardInterrupt as error:
            _fail(error, 130)

    app.run(guarded, flags_parser=_parse_flags)


def parse_sizes(flag: str, texts: list[str] | None) -> list[int]:
    """The image sizes in a flag's list, in pixels; empty without the flag.

    Raises:
      UsageError: if one is no whole number from 8 up.
    """
    for text in texts or []:
        if not text.strip().isdecimal() or int(text) < 8:
            raise UsageError(f"--{flag}: expected whole numbers from 8 up, received {text!r}")
    return [int(text) for text in texts or []]


def check_output_file(flag: Any) -> None:
    """Checks the name in a flag (an absl flag holder) of a file to write, before the work is done.

    Raises:
      UsageError: if the name is empty, or no file of that name can be written.
    """
    if flag.value is None:
        return
    check_not_empty(flag, "the name of a file to write")
    path = Path(flag.value)
    if path.is_dir():
        raise UsageError(
            f"--{flag.name}: expected the name of a file to write, received the folder {path}"
        )
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"--{flag.name}: expected a file in a folder, {above} is none")


def check_output_folder(flag: Any) -> None:
    """Checks the folder in a flag (an absl flag holder) for results, before the work is done.

    Raises:
      UsageError: if the name is empty, or is no folder, or one that cannot be written to or made.
    """
    if flag.value is None:
        return
    check_not_empty(flag, "a folder for the results")
    path = Path(flag.value).absolute()
    above = next(place for place in (path, *path.parents) if place.exists())
    if not above.is_dir():
        raise UsageError(f"--{flag.name}: expected a folder for the results, {above} is a file")
    if not os.access(above, os.W_OK):
        raise UsageError(f"--{flag.name}: expected a folder for the results, {above} is read-only")


def check_not_empty(flag: Any, expected: str) -> None:
    """Raises a UsageError if a flag (an absl flag holder) is given an empty text."""
    if flag.value is not None and not flag.value.strip():
        raise UsageError(f"--{flag.name}: expected {expected}, received an empty name")


def _parse_flags(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except SystemExit:  # absl's, with 1, after --help
        sys.exit(0)
    except flags.Error as error:
        message = " ".join(str(error).split())
        print(f"error: {message}; see --help", file=sys.stderr)
        sys.exit(2)


def _errors_of_operations() -> tuple[Any, ...]:
    """TensorFlow's errors; none while it is not imported, for then it cannot have raised one."""
    tensorflow = sys.modules.get("tensorflow")
    return () if tensorflow is None else (tensorflow.errors.OpError,)


def _fail(error: BaseException, code: int, message: str | None = None) -> None:
    """Ends the program with one line: `message`, by default the error's own."""
    if absl_logging.get_verbosity() >= absl_logging.DEBUG:
        traceback.print_exc()
    message = " ".join((message or str(error)).split()) or "interrupted"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
