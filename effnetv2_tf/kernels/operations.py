"""The operations of the compiled library, if there is one.

They give the numbers of TensorFlow's operations but for rounding, in fewer passes over memory.
Where there is no library, or no use for one, layers take TensorFlow's.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels.compiler import SWITCH, library_path

_ACTIVATIONS = {None: "", "silu": "_silu", "swish": "_silu"}


@functools.cache
def _library() -> Any:
    """The operations, with their gradients; None without a library that loads."""
    path = library_path()
    if not path.is_file():
        return None
    try:
        library = tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        warnings.warn(
            f"{path} does not load, TensorFlow's own operations are used: {error}. Remove it and "
            "run `python -m effnetv2_tf.kernels`.",
            stacklevel=2,
        )
        return None
    for suffix, name in {"": "", "_silu": "Silu"}.items():
        gradient = getattr(library, f"effnetv2_batch_norm{suffix}_grad")
        tf.RegisterGradient(f"Effnetv2BatchNorm{name}")(functools.partial(_gradient, gradient))
    return library


def _are_wanted() -> bool:
    """Whether they are of use to this process, which has no accelerator, and not switched off.

    SavedModels must load without this package, hence none may hold a training step with them.
    """
    of_use = not (keras_compat.has_accelerator() or keras_compat.SAVES_TRAINING_STEPS)
    return of_use and os.environ.get(SWITCH) != "0"


def in_use() -> bool:
    """Whether this process computes with the compiled operations where it can."""
    return _are_wanted() and _library() is not None


def advice() -> str | None:
    """What to tell whoever trains here without them and could have them."""
    if in_use() or not _are_wanted():
        return None
    return (
        "Note: training on CPUs is faster with operations of this package's own; "
        "`python -m effnetv2_tf.kernels` compiles them once."
    )


def batch_norm_for(activation: str | None, dtype: tf.DType) -> Any:
    """The operation of a batch norm in training with its activation, or None if there is none.

    Args:
      activation: name of a Keras activation, or None.
      dtype: of the images.

    Returns:
      A function of `x` (batch, height, width, channels), `gamma`, `beta`, `moving_mean`,
      `moving_variance`, `epsilon` and `share`, all by name. It returns `y` and `statistics`, whose
      first two of four rows are the moving ones with `share` of the batch's in them.
    """
    if activation not in _ACTIVATIONS or dtype != tf.float32 or not in_use():
        return None
    if keras_compat.is_traced_for_xla():  # which does not know them
        return None
    return getattr(_library(), f"effnetv2_batch_norm{_ACTIVATIONS[activation]}")


def _gradient(gradient: Any, operation: Any, dy: tf.Tensor, *_: Any) -> tuple:
    x, gamma, beta = operation.inputs[:3]
    back = gradient(dy=dy, x=x, gamma=gamma, beta=beta, statistics=operation.outputs[1])
    return back.dx, back.dgamma, back.dbeta, None, None
