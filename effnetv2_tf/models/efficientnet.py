"""The constructors: `EfficientNetV2S()` and its family, in the convention of Keras.

All of them take the arguments of `build_network` and `weights`:

  weights: None for random initialisation, or the path of a weights file saved by a network
    of the same spec (`.weights.h5`, `.keras`).
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
  include_preprocessing: whether the model normalises pixels in [0, 255] itself.
  name: of the model.

Other widths, depths or stages: `build_network(dataclasses.replace(spec, ...))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf.models import specs
from effnetv2_tf.models.network import build_network


def load_weights(model: keras.Model, weights: str | Path | None) -> keras.Model:
    """Loads a weights file into a freshly built model; None leaves it as it is.

    Raises:
      ValueError: if there is no such file, or it does not fit the model.
    """
    if weights is None:
        return model
    if not Path(weights).is_file():
        raise ValueError(
            "`weights` must be None or the path of a weights file (.weights.h5 or .keras). "
            f"Received: weights={str(weights)!r}, which is no file."
        )
    model.load_weights(str(weights))
    return model


def EfficientNetV2B0(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b0",
) -> keras.Model:
    """EfficientNetV2-B0: 7.2M parameters, trained at up to 192 px, evaluated at 224 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_B0,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2B1(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b1",
) -> keras.Model:
    """EfficientNetV2-B1: 8.2M parameters, trained at up to 192 px, evaluated at 240 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_B1,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2B2(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b2",
) -> keras.Model:
    """EfficientNetV2-B2: 10.2M parameters, trained at up to 208 px, evaluated at 260 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_B2,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2B3(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b3",
) -> keras.Model:
    """EfficientNetV2-B3: 14.5M parameters, trained at up to 240 px, evaluated at 300 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_B3,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2S(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-s",
) -> keras.Model:
    """EfficientNetV2-S: 21.6M parameters, trained at up to 300 px, evaluated at 384 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_S,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2M(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-m",
) -> keras.Model:
    """EfficientNetV2-M: 54.4M parameters, trained at up to 384 px, evaluated at 480 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_M,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2L(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-l",
) -> keras.Model:
    """EfficientNetV2-L: 119.0M parameters, trained at up to 384 px, evaluated at 480 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_L,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)


def EfficientNetV2XL(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-xl",
) -> keras.Model:
    """EfficientNetV2-XL: 208.9M parameters, trained at up to 384 px, evaluated at 512 px.

    Tan & Le, arXiv 2104.00298. Arguments: see this module's docstring.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    model = build_network(
        specs.EFFICIENTNETV2_XL,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        include_preprocessing=include_preprocessing,
        name=name,
    )
    return load_weights(model, weights)
