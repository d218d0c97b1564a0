"""From a spec to a Keras model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from effnetv2_tf.errors import is_whole
from effnetv2_tf.garbage import collection_paused
from effnetv2_tf.models import scaling
from effnetv2_tf.models.inputs import ANY_IN_COLOUR, images_for, model_between, shape_of
from effnetv2_tf.models.layers import (
    Dropout,
    FusedMBConv,
    InputNormalization,
    MBConv,
    PointwiseConv2D,
)
from effnetv2_tf.models.layers.initializers import conv_initializer, dense_initializer
from effnetv2_tf.models.layers.norms import NormFactory
from effnetv2_tf.models.layers.padding import symmetric_padding
from effnetv2_tf.models.specs import NetworkSpec

POOLINGS = (None, "avg", "max")


@collection_paused()
def build_network(
    spec: NetworkSpec,
    *,
    include_top: bool = True,
    classes: int = 1000,
    input_shape: Sequence[int | None] | None = (None, None, 3),
    pooling: str | None = None,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = None,
    dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    include_preprocessing: bool = True,
    synchronized_batch_norm: bool = False,
    name: str | None = None,
    input_tensor: Any = None,
) -> keras.Model:
    """Builds a network with freshly initialised weights.

    Args:
      spec: what to build, see `specs`.
      include_top: whether pooling, dropout and the classifier follow the last convolution.
      classes: of the classifier.
      input_shape: (height, width, channels); None for a side that may vary, also with the
        classifier.
      pooling: without the top: None for the feature map, `"avg"` or `"max"` for a vector.
      classifier_activation: `"softmax"`, `"sigmoid"`, None for logits, ...
      classifier_initializer: of the classifier's kernel; None for the reference's, uniform in
        +-1 / sqrt(classes). With few classes `"zeros"` starts much better.
      dropout_rate: before the classifier; None for the spec's.
      drop_path_rate: of the last block, falling linearly to 0 at the first; None for the
        spec's.
      include_preprocessing: whether the model normalises pixels in [0, 255] itself.
        Otherwise it expects them normalised by the spec's `preprocessing`.
      synchronized_batch_norm: whether replicas of a distribution strategy share batch
        statistics.
      name: of the model; None for the spec's.
      input_tensor: symbolic images, of keras.Input or of layers that come before the network;
        None for an input of its own.

    Returns:
      A Keras model from (batch, height, width, channels) to (batch, classes); without the
      top to (batch, height / 32, width / 32, filters) or (batch, filters). Under
      any precision these are float32, but for the feature map.

    Raises:
      ValueError: for an argument that cannot be, naming it.
    """
    shape = check_arguments(include_top, classes, input_shape, pooling, input_tensor)
    dropout_rate = spec.dropout_rate if dropout_rate is None else dropout_rate
    drop_path_rate = spec.drop_path_rate if drop_path_rate is None else drop_path_rate
    check_rates(dropout_rate, drop_path_rate)
    norms = _norms(spec, synchronized_batch_norm)

    x = images = images_for(shape, input_tensor)
    if include_preprocessing:
        preprocessing = spec.preprocessing.for_channels(shape[-1])
        x = InputNormalization(preprocessing.mean, preprocessing.std, name="normalization")(x)
    x = _stem(spec, norms, x)  # (b, h / 2, w / 2, stem)
    x = _blocks(spec, drop_path_rate, synchronized_batch_norm, x)  # (b, h / 32, w / 32, last)
    x = _head(spec, norms, x)  # (b, h / 32, w / 32, head)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # (b, head)
        x = Dropout(dropout_rate, name="dropout")(x)
        x = keras.layers.Dense(
            int(classes),
            activation=classifier_activation,
            kernel_initializer=classifier_initializer or dense_initializer(),
            dtype="float32",
            name="classifier",
        )(x)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(dtype="float32", name="pool")(x)
    return model_between(images, x, name or spec.name)


def _stem(spec: NetworkSpec, norms: NormFactory, x: Any) -> Any:
    pad = symmetric_padding(3, spec.stem_stride, spec.padding, None, "stem_pad")
    if pad is not None:
        x = pad(x)
    x = keras.layers.Conv2D(
        scaling.scaled_stem_filters(spec),
        3,
        strides=spec.stem_stride,
        padding="same" if pad is None else "valid",
        use_bias=False,
        kernel_initializer=conv_initializer(),
        name="stem",
    )(x)
    return norms("stem_norm", spec.activation)(x)


def _blocks(spec: NetworkSpec, drop_path_rate: float, synchronized: bool, x: Any) -> Any:
    rates = iter(scaling.drop_path_rates(drop_path_rate, scaling.block_count(spec)))
    input_filters = scaling.scaled_stem_filters(spec)
    for stage_number, stage in enumerate(spec.stages, start=1):
        filters, repeats = scaling.scaled_stage(spec, stage)
        block_class = FusedMBConv if stage.block == "fused" else MBConv
        for repeat in range(repeats):
            x = block_class(
                input_filters,
                filters,
                kernel_size=stage.kernel_size,
                stride=stage.stride if repeat == 0 else 1,
                expansion=stage.expansion,
                se_ratio=stage.se_ratio,
                drop_path_rate=next(rates),
                activation=spec.activation,
                group_size=spec.group_size,
                normalization=spec.normalization,
                normalization_groups=spec.normalization_groups,
                proxy_normalization=spec.proxy_normalization,
                batch_norm_momentum=spec.batch_norm_momentum,
                batch_norm_epsilon=spec.batch_norm_epsilon,
                padding=spec.padding,
                synchronized=synchronized,
                name=f"stage{stage_number}_block{repeat + 1}",
            )(x)
            input_filters = filters
    return x


def _head(spec: NetworkSpec, norms: NormFactory, x: Any) -> Any:
    x = PointwiseConv2D(scaling.scaled_head_filters(spec), name="head")(x)
    return norms("head_norm", spec.activation)(x)


def _norms(spec: NetworkSpec, synchronized: bool) -> NormFactory:
    return NormFactory(
        normalization=spec.normalization,
        groups=spec.normalization_groups,
        proxy=spec.proxy_normalization,
        momentum=spec.batch_norm_momentum,
        epsilon=spec.batch_norm_epsilon,
        synchronized=synchronized,
    )


def check_arguments(
    include_top: bool,
    classes: int,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    input_tensor: Any = None,
) -> tuple[int | None, int | None, int]:
    """Raises a ValueError for what cannot be; returns the shape of the images."""
    if keras.backend.image_data_format() != "channels_last":
        raise ValueError(
            "The networks are built for images (height, width, channels): Keras's "
            "image_data_format must be 'channels_last'. Received: "
            f"{keras.backend.image_data_format()!r}. Call "
            "keras.backend.set_image_data_format('channels_last')."
        )
    if include_top and (not is_whole(classes) or classes < 1):
        raise ValueError(f"`classes` must be a positive integer. Received: classes={classes!r}.")
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}.")
    if input_tensor is not None:
        input_shape = shape_of(input_tensor, input_shape)
    if input_shape is None:  # keras.applications' word for images of any size
        return ANY_IN_COLOUR
    sides = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    is_shape = len(sides) == 3 and all(side is None or is_whole(side) for side in sides)
    if not is_shape or sides[-1] is None or sides[-1] < 1:
        raise ValueError(
            "`input_shape` must be (height, width, channels), where height and width may be "
            f"None. Received: input_shape={sides or input_shape}."
        )
    height, width = (None if side is None else int(side) for side in sides[:2])
    channels = int(sides[-1])
    if any(side is not None and side < 1 for side in (height, width)):
        raise ValueError(
            f"`input_shape` must have positive sides. Received: input_shape={tuple(input_shape)}."
        )
    if height in (1, 3) and channels > 4:
        raise ValueError(
            f"`input_shape` must be (height, width, channels). Received: input_shape="
            f"{tuple(input_shape)}, an image {height} pixels high with {channels} channels. Did "
            f"you mean {(width, channels, height)}?"
        )
    return height, width, channels


def check_rates(dropout_rate: float, drop_path_rate: float) -> None:
    """Raises a ValueError for a rate that drops everything, or less than nothing."""
    for name, rate in {"dropout_rate": dropout_rate, "drop_path_rate": drop_path_rate}.items():
        if not 0 <= rate < 1:
            raise ValueError(f"`{name}` must lie in [0, 1). Received: {name}={rate}.")
