"""The constructors of G16-EfficientNet: `EfficientNetB0G16()` to `EfficientNetB5G16()`.

EfficientNet V1 with group convolutions of 16 channels a group in place of depthwise ones,
expansion 4 in place of 6, and proxy-normalised activations over layer norm in place of batch
norm. Their arguments: see `effnetv2_tf.models.constructors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf.models import families
from effnetv2_tf.models.constructors import construct, documented
from effnetv2_tf.models.specs import Normalization, Padding


@documented
def EfficientNetB0G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b0-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B0: 5.9M parameters, 224 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B0_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetB1G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b1-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B1: 8.4M parameters, 240 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B1_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetB2G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b2-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B2: 9.5M parameters, 260 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B2_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetB3G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b3-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B3: 12.6M parameters, 300 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B3_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetB4G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b4-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B4: 19.4M parameters, 380 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B4_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


@documented
def EfficientNetB5G16(
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    normalization: Normalization | None = None,
    proxy_normalization: bool | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    synchronized_batch_norm: bool = False,
    padding: Padding | None = None,
    include_preprocessing: bool = True,
    name: str = "efficientnet-b5-g16",
    input_tensor: Any = None,
) -> keras.Model:
    """G16-EfficientNet-B5: 28.8M parameters, 456 px.

    Masters et al., arXiv 2106.03640.

    Arguments: see `effnetv2_tf.models.constructors`.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return construct(
        families.EFFICIENTNET_B5_G16,
        weights,
        include_top=include_top,
        classes=classes,
        input_shape=input_shape,
        pooling=pooling,
        classifier_activation=classifier_activation,
        classifier_initializer=classifier_initializer,
        dropout_rate=dropout_rate,
        drop_path_rate=drop_path_rate,
        normalization=normalization,
        proxy_normalization=proxy_normalization,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        synchronized_batch_norm=synchronized_batch_norm,
        padding=padding,
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )
