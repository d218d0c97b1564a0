"""The operations of the compiled library, if there is one.

They give the numbers of TensorFlow's operations but for rounding, in fewer passes over memory, or
fewer operations. Where there is no library, or no use for one, layers and optimizers take
TensorFlow's.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.kernels.compiler import SWITCH, library_path

_ACTIVATIONS = {None: "", "silu": "_silu", "swish": "_silu"}


def load() -> Any:
    """The operations of the library, among them those for inference.

    Those for inference keep a kernel as their products take it: kernels are constants, or variables
    that are assigned to, and no arrays that change where they lie.

    Raises:
      UsageError: if there is no library, or it is to be left alone.
    """
    if os.environ.get(SWITCH) == "0":
        raise UsageError(f"{SWITCH}: expected anything but 0 where they are needed, received 0")
    library = _library()
    if library is None:
        _library.cache_clear()  # it may be made before it is asked for again
        path = library_path()
        raise UsageError(
            f"compiled operations: expected {path}, "
            f"which {'does not load' if path.exists() else 'is not there'}; "
            "`python -m effnetv2_tf.kernels` makes it"
        )
    return library


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
        gradient = functools.partial(_batch_norm_gradient, gradient)
        tf.RegisterGradient(f"Effnetv2BatchNorm{name}")(gradient)
    for name, gradient_of, gradient in (
        ("SqueezeExcite", _excite_gradient, library.effnetv2_squeeze_excite_grad),
        ("Conv3x3", _convolution_gradient, library.effnetv2_conv3x3_grad),
        ("DepthwiseConv", _convolution_gradient, library.effnetv2_depthwise_conv_grad),
        ("PointwiseConv", _pointwise_gradient, library.effnetv2_pointwise_conv_grad),
        ("Residual", _residual_gradient, library.effnetv2_residual_grad),
    ):
        tf.RegisterGradient(f"Effnetv2{name}")(functools.partial(gradient_of, gradient))
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
      A function of `x` (batch, height, width, channels), `gamma`, `beta`, `moving`, `epsilon` and
      `share`, all by name. `moving` lists the handles of the moving mean and variance, which take
      over `share` of the batch's, or nothing. It returns `y` and `statistics`, in two rows the
      mean and the biased variance of the batch.
    """
    if activation not in _ACTIVATIONS or not _can_take(dtype):
        return None
    return getattr(_library(), f"effnetv2_batch_norm{_ACTIVATIONS[activation]}")


def squeeze_excite_for(activation: str | None, dtype: tf.DType) -> Any:
    """The operation of squeeze-and-excitation, or None if there is none.

    Args:
      activation: name of a Keras activation, between the two layers.
      dtype: of the images.

    Returns:
      A function of `x` (batch, height, width, channels), `reduce_kernel` (1, 1, channels,
      squeezed), `reduce_bias`, `expand_kernel` (1, 1, squeezed, channels) and `expand_bias`, all by
      name. It returns `y`, shaped as `x`, and what is kept for the gradient.
    """
    if _ACTIVATIONS.get(activation) != "_silu" or not _can_take(dtype):
        return None
    return _library().effnetv2_squeeze_excite


def conv3x3_for(dtype: tf.DType) -> Any:
    """The operation of a 3x3 convolution with "same" padding, or None if there is none.

    By Winograd's algorithm, whose results are rounded up to twice as much as TensorFlow's.

    Args:
      dtype: of the images.

    Returns:
      A function of `x` (batch, height, width, channels), `kernel` (3, 3, channels, filters) and
      `stride`, 1 or 2, all by name.
    """
    return _library().effnetv2_conv3x3 if _can_take(dtype) else None


def depthwise_conv_for(dtype: tf.DType) -> Any:
    """The operation of a depthwise convolution with "same" padding, or None if there is none.

    Args:
      dtype: of the images.

    Returns:
      A function of `x` (batch, height, width, channels), `kernel` (side, side, channels, 1) with a
      side of 3 or 5, and `stride`, 1 or 2, all by name.
    """
    return _library().effnetv2_depthwise_conv if _can_take(dtype) else None


def pointwise_conv_for(dtype: tf.DType) -> Any:
    """The operation of a 1x1 convolution, or None if there is none.

    Args:
      dtype: of the images.

    Returns:
      A function of `x` (..., channels) and `kernel` (1, 1, channels, filters), both by name.
    """
    return _library().effnetv2_pointwise_conv if _can_take(dtype) else None


def residual_for(dtype: tf.DType) -> Any:
    """The operation of a residual sum with stochastic depth, or None if there is none.

    Args:
      dtype: of the images.

    Returns:
      A function of `branch` and `skip`, (batch, ...), and `factors`, with one element for each
      image, all by name: `factors * branch + skip`. The factors have no gradient.
    """
    return _library().effnetv2_residual if _can_take(dtype) else None


def rms_prop_for(dtype: tf.DType) -> Any:
    """The operation of RMSProp's update of many variables, or None if there is none.

    Args:
      dtype: of the variables.

    Returns:
      A function of lists of handles, `variables`, `mean_squares` and `momenta`, of a list of
      `gradients`, of `rate`, and of the numbers `rho`, `momentum` and `epsilon`, all by name.
    """
    return _library().effnetv2_rms_prop if _can_take(dtype) else None


def _can_take(dtype: tf.DType) -> bool:
    """Whether there are operations for what is being traced; XLA does not know them."""
    return dtype == tf.float32 and in_use() and not keras_compat.is_traced_for_xla()


def _batch_norm_gradient(gradient: Any, operation: Any, dy: tf.Tensor, *_: Any) -> tuple:
    x, gamma, beta, *moving = operation.inputs
    back = gradient(
        dy=dy,
        x=x,
        gamma=gamma,
        beta=beta,
        statistics=operation.outputs[1],
        epsilon=operation.get_attr("epsilon"),
    )
    return *back, *[None for _ in moving]


def _excite_gradient(gradient: Any, operation: Any, dy: tf.Tensor, *_: Any) -> tuple:
    x, reduce_kernel, _, expand_kernel, _ = operation.inputs
    return gradient(
        dy=dy,
        x=x,
        reduce_kernel=reduce_kernel,
        expand_kernel=expand_kernel,
        kept=operation.outputs[1],
    )


def _convolution_gradient(gradient: Any, operation: Any, dy: tf.Tensor) -> tuple:
    x, kernel = operation.inputs
    return gradient(dy=dy, x=x, kernel=kernel, stride=operation.get_attr("stride"))


def _pointwise_gradient(gradient: Any, operation: Any, dy: tf.Tensor) -> tuple:
    x, kernel = operation.inputs
    return gradient(dy=dy, x=x, kernel=kernel)


def _residual_gradient(gradient: Any, operation: Any, dy: tf.Tensor) -> tuple:
    return gradient(dy=dy, factors=operation.inputs[1]), None, dy
