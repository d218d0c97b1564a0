"""The constructors of EfficientNetV2: `EfficientNetV2B0()` to `EfficientNetV2XL()`.

Their arguments: see `effnetv2_tf.models.constructors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf.models import families
from effnetv2_tf.models.constructors import construct, documented
from effnetv2_tf.models.specs import Padding


@documented
def EfficientNetV2B0(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b0",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-B0: 7.2M parameters, trained at up to 192 px, evaluated at 224 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_B0,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2B1(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b1",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-B1: 8.2M parameters, trained at up to 192 px, evaluated at 240 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_B1,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2B2(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b2",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-B2: 10.2M parameters, trained at up to 208 px, evaluated at 260 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_B2,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2B3(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-b3",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-B3: 14.5M parameters, trained at up to 240 px, evaluated at 300 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_B3,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2S(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-s",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-S: 21.6M parameters, trained at up to 300 px, evaluated at 384 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_S,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2M(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-m",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-M: 54.4M parameters, trained at up to 384 px, evaluated at 480 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_M,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2L(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-l",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-L: 119.0M parameters, trained at up to 384 px, evaluated at 480 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_L,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetV2XL(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnetv2-xl",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNetV2-XL: 208.9M parameters, trained at up to 384 px, evaluated at 512 px.

    Tan & Le, arXiv 2104.00298.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNETV2_XL,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )
