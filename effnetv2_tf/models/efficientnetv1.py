"""The constructors of EfficientNet V1: `EfficientNetB0()` to `EfficientNetL2()`.

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
def EfficientNetB0(
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
    name: str = "efficientnet-b0",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B0: 5.3M parameters, 224 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B0,
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
def EfficientNetB1(
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
    name: str = "efficientnet-b1",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B1: 7.9M parameters, 240 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B1,
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
def EfficientNetB2(
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
    name: str = "efficientnet-b2",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B2: 9.2M parameters, 260 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B2,
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
def EfficientNetB3(
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
    name: str = "efficientnet-b3",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B3: 12.3M parameters, 300 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B3,
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
def EfficientNetB4(
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
    name: str = "efficientnet-b4",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B4: 19.5M parameters, 380 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B4,
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
def EfficientNetB5(
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
    name: str = "efficientnet-b5",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B5: 30.6M parameters, 456 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B5,
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
def EfficientNetB6(
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
    name: str = "efficientnet-b6",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B6: 43.3M parameters, 528 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B6,
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
def EfficientNetB7(
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
    name: str = "efficientnet-b7",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B7: 66.7M parameters, 600 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B7,
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
def EfficientNetB8(
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
    name: str = "efficientnet-b8",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-B8: 87.8M parameters, 672 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B8,
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
def EfficientNetL2(
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
    name: str = "efficientnet-l2",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-L2: 481M parameters, 800 px.

    Tan & Le, arXiv 1905.11946.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_L2,
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
