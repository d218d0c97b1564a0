"""The constructors of EfficientNet-Lite: `EfficientNetLite0()` to `EfficientNetLite4()`.

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
def EfficientNetLite0(
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
    name: str = "efficientnet-lite0",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-Lite0: 4.7M parameters, 224 px.

    EfficientNet V1 for mobile chips: no squeeze-excite, ReLU6.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_LITE0,
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
def EfficientNetLite1(
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
    name: str = "efficientnet-lite1",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-Lite1: 5.5M parameters, 240 px.

    EfficientNet V1 for mobile chips: no squeeze-excite, ReLU6.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_LITE1,
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
def EfficientNetLite2(
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
    name: str = "efficientnet-lite2",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-Lite2: 6.2M parameters, 260 px.

    EfficientNet V1 for mobile chips: no squeeze-excite, ReLU6.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_LITE2,
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
def EfficientNetLite3(
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
    name: str = "efficientnet-lite3",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-Lite3: 8.3M parameters, 280 px.

    EfficientNet V1 for mobile chips: no squeeze-excite, ReLU6.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_LITE3,
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
def EfficientNetLite4(
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
    name: str = "efficientnet-lite4",
    input_tensor: Any = None,
) -> keras.Model:
    """EfficientNet-Lite4: 13.1M parameters, 300 px.

    EfficientNet V1 for mobile chips: no squeeze-excite, ReLU6.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_LITE4,
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
