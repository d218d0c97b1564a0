"""What all constructors share: `EfficientNetV2S()` and its family, in the convention of Keras.

All of them take:

  weights: None for random initialisation; `"imagenet"` for published weights where there are
    some (Keras fetches and caches its own, the Lite0 weights come with the extra `[lite0]`);
    or the path of a weights file: saved by a network of the same spec (`.weights.h5`,
    `.keras`), or of another implementation, see `effnetv2_tf.weights`.
  include_top: whether pooling, dropout and the classifier follow the last convolution.
  classes: of the classifier.
  input_shape: (height, width, channels); None for a side that may vary, also with the
    classifier; 1 or 3 channels.
  pooling: without the top: None for the feature map, `"avg"` or `"max"` for a vector.
  classifier_activation: `"softmax"`, `"sigmoid"`, None for logits.
  classifier_initializer: of the classifier's kernel; None for the reference's, uniform in
    +-1 / sqrt(classes). With few classes `"zeros"` starts much better.
  dropout_rate: before the classifier; None for the paper's.
  drop_path_rate: of the last block, falling linearly to 0 at the first; None for 0.2.
  batch_norm_momentum: share of the old moving statistics kept at each step; None for the
    reference's. Lower it for a short fine-tuning.
  batch_norm_epsilon: added to the variance; None for 1e-3. Some published weights want 1e-5.
  synchronized_batch_norm: whether replicas of a distribution strategy share batch statistics.
  normalization: of the G16 networks: `"layer"` (None too), `"group"` (four groups) or
    `"batch"`.
  proxy_normalization: of the G16 networks: whether activations are proxy-normalised; None for
    True, but for batch norm, which goes without.
  padding: of strided convolutions: `"same"` as TensorFlow (None too), `"symmetric"` for
    weights of PyTorch's networks.
  include_preprocessing: whether the model normalises pixels in [0, 255] itself.
  name: of the model.
  input_tensor: symbolic images that the network starts from, e.g. `keras.Input(...)` or the
    output of layers called on it, which the model then holds too; `input_shape` is theirs. None
    for an input of its own.

Other widths, depths or stages: `build_network(dataclasses.replace(spec, ...))`. Group
convolutions in other networks: `build_network(scaling.with_group_size(spec))`.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import keras

from effnetv2_tf.models.inputs import network_within
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.specs import NetworkSpec, Normalization, Padding

_Constructor = TypeVar("_Constructor", bound=Callable[..., keras.Model])
_REFERENCE = "Arguments: see `effnetv2_tf.models.constructors`."
# The entries above, by argument; none under python -OO, which leaves docstrings out.
_ENTRIES = {
    entry[1]: entry[0].replace("\n", "\n    ")
    for entry in re.finditer(r"^  (\w+): (?:.|\n(?!  \w|\n))*", __doc__ or "", re.MULTILINE)
}


def documented(constructor: _Constructor) -> _Constructor:
    """Puts the descriptions above of its arguments into a constructor's docstring, for `help`."""
    taken = inspect.signature(constructor).parameters
    lines = [text for name, text in _ENTRIES.items() if name in taken]
    if constructor.__doc__:
        arguments = "\n    ".join(["Args:", *lines])
        constructor.__doc__ = constructor.__doc__.replace(_REFERENCE, arguments)
    return constructor


def construct(
    spec: NetworkSpec,
    weights: str | Path | None,
    *,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    padding: Padding | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    input_tensor: Any = None,
    **arguments: Any,
) -> keras.Model:
    """Builds a row of the families' tables and loads `weights`; arguments as above.

    Raises:
      ValueError: for an argument that cannot be, or weights that do not fit the network.
    """
    if normalization == "batch" and proxy_normalization is None:
        proxy_normalization = False
    replacements: dict[str, Any] = {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_norm_epsilon": batch_norm_epsilon,
        "padding": padding,
        "normalization": normalization,
        "proxy_normalization": proxy_normalization,
    }
    spec = replace(spec, **{k: v for k, v in replacements.items() if v is not None})
    model = build_network(spec, input_tensor=input_tensor, **arguments)
    load_and_warn(model, weights, spec, input_tensor=input_tensor)
    return model


def load_and_warn(
    model: keras.Model,
    weights: str | Path | None,
    spec: NetworkSpec | None = None,
    *,
    input_tensor: Any = None,
) -> None:
    """Loads a constructor's `weights`; warns of what that set or what must be known to use it."""
    if weights is None:
        return
    # The weights room knows the models; they know it only here, when it is asked for.
    from effnetv2_tf.weights import load_weights

    report = load_weights(network_within(model, input_tensor), weights, spec=spec)
    for note in report.notes if report else ():
        warnings.warn(note, UserWarning, stacklevel=4)  # where the constructor was called
