"""From a genotype to a Keras model, and the constructors `NASNetMobile()`, `NASNetLarge()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from effnetv2_tf.models.constructors import load_and_warn
from effnetv2_tf.models.genotypes import Cell
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.inputs import images_for, model_between
from effnetv2_tf.models.layers import (
    BatchNorm,
    Dropout,
    InputNormalization,
    NASNetCell,
    PointwiseConv2D,
)
from effnetv2_tf.models.layers.initializers import conv_initializer, dense_initializer
from effnetv2_tf.models.layers.nasnet_cell import PreviousSize
from effnetv2_tf.models.nasnet_specs import NASNET_LARGE, NASNET_MOBILE, STACKS, NASNetSpec
from effnetv2_tf.models.network import check_arguments, check_rates

_AUXILIARY_FILTERS = (128, 768)


def build_nasnet(
    spec: NASNetSpec,
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
    """Builds a network of NASNet's cells with freshly initialised weights.

    Args: as `network.build_network`'s, but for
      drop_path_rate: of the operations in the last cell, growing linearly from the first on;
        None for the spec's. The paper lets it grow over training too: see
        `training.drop_path_ramp.DropPathRamp`.

    Returns:
      A Keras model from (batch, height, width, channels) to (batch, classes); without the
      top to (batch, height / 32, width / 32, penultimate filters) or (batch, penultimate
      filters). With the spec's `auxiliary_head` it has a second output of (batch, classes),
      named `auxiliary_classifier`: train both, with `nasnet_specs.AUXILIARY_LOSS_WEIGHT`, and take
      `without_auxiliary_head` for the rest.

    Raises:
      ValueError: for an argument that cannot be, naming it.
    """
    shape = check_arguments(include_top, classes, input_shape, pooling, input_tensor)
    if spec.auxiliary_head and not include_top:
        raise ValueError(
            "`include_top` must be True for a spec with `auxiliary_head`, which is a "
            "classifier. Received: include_top=False. Pass "
            "dataclasses.replace(spec, auxiliary_head=False)."
        )
    x = images = images_for(shape, input_tensor)
    if include_preprocessing:
        preprocessing = spec.preprocessing.for_channels(shape[-1])
        x = InputNormalization(preprocessing.mean, preprocessing.std, name="normalization")(x)
    x = _stem(spec, synchronized_batch_norm, x)  # (b, h / 2, w / 2, stem)
    rate = spec.drop_path_rate if drop_path_rate is None else drop_path_rate
    check_rates(spec.dropout_rate if dropout_rate is None else dropout_rate, rate)
    cells = _Cells(spec, rate, synchronized_batch_norm, x)
    for k in range(spec.stem_reductions):
        width = spec.filters // spec.filter_multiplier ** (spec.stem_reductions - k)
        cells.add(f"stem_cell{k + 1}", spec.genotype.reduction, width, 2)
    auxiliary = None
    for stack in range(STACKS):
        filters = spec.filters * spec.filter_multiplier**stack
        if stack:
            skips = spec.skip_reduction
            cells.add(f"reduction{stack}", spec.genotype.reduction, filters, 2, skips)
        for repeat in range(spec.cells_per_stack):
            cells.add(f"stack{stack + 1}_cell{repeat + 1}", spec.genotype.normal, filters, 1)
        if stack == STACKS - 2 and spec.auxiliary_head:
            auxiliary = cells.current
    x = keras.layers.Activation("relu", name="relu")(cells.current)  # (b, h / 32, w / 32, last)
    if not include_top:
        return model_between(images, _pooled(x, pooling), name or spec.name)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # (b, last)
    x = Dropout(spec.dropout_rate if dropout_rate is None else dropout_rate, name="dropout")(x)
    top = (classes, classifier_activation, classifier_initializer)
    outputs = _classifier("classifier", *top)(x)
    if auxiliary is not None:
        features = _auxiliary_features(spec, synchronized_batch_norm, auxiliary)
        outputs = [outputs, _classifier("auxiliary_classifier", *top)(features)]
    return model_between(images, outputs, name or spec.name)


def without_auxiliary_head(model: keras.Model) -> keras.Model:
    """The network that is evaluated, saved and exported; its layers are shared with `model`.

    Raises:
      ValueError: if `model` has no output `classifier`.
    """
    if "classifier" not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"`model` must be a network of build_nasnet with its top. Received: model "
            f"{model.name!r}, which has no layer 'classifier'."
        )
    return EfficientNet(model.input, model.get_layer("classifier").output, name=model.name)


class _Cells:
    """Adds cells to a graph: which two states the next one takes, and at which sizes."""

    def __init__(self, spec: NASNetSpec, drop_path_rate: float, synchronized: bool, x: Any) -> None:
        self._spec = spec
        self._rates = iter(spec.drop_path_rates(drop_path_rate))
        self._synchronized = synchronized
        self.current = self._previous = x
        self._previous_size: PreviousSize = "unaligned"

    def add(
        self, name: str, cell: Cell, filters: int, stride: int, keeps_previous: bool = False
    ) -> None:
        """Appends a cell; `current` is its output then.

        `keeps_previous`: the cell after it takes the same second input, not its first.
        """
        output = NASNetCell(
            cell,
            filters,
            stride,
            input_filters=self.current.shape[-1],
            previous_filters=self._previous.shape[-1],
            previous_size=self._previous_size,
            drop_path_rate=next(self._rates),
            batch_norm_momentum=self._spec.batch_norm_momentum,
            batch_norm_epsilon=self._spec.batch_norm_epsilon,
            synchronized=self._synchronized,
            name=name,
        )([self.current, self._previous])
        if not keeps_previous:
            self._previous = self.current
        self.current = output
        self._previous_size = "double" if stride == 2 else "same"


def _stem(spec: NASNetSpec, synchronized: bool, x: Any) -> Any:
    x = keras.layers.Conv2D(
        spec.stem_filters,
        3,
        strides=spec.stem_stride,
        padding="valid" if spec.stem_stride == 2 else "same",
        use_bias=False,
        kernel_initializer=conv_initializer(),
        name="stem",
    )(x)
    return _norm(spec, synchronized, "stem_norm")(x)


def _auxiliary_features(spec: NASNetSpec, synchronized: bool, x: Any) -> Any:
    """The paper's auxiliary head, but that it averages over space, so that any size will do.

    There a convolution as large as the feature map stands in place of the second 1x1 one.
    """
    x = keras.layers.Activation("relu", name="auxiliary_relu")(x)
    x = keras.layers.AveragePooling2D(5, 3, padding="same", name="auxiliary_pool")(x)
    for number, filters in enumerate(_AUXILIARY_FILTERS, start=1):
        x = PointwiseConv2D(filters, name=f"auxiliary_conv{number}")(x)
        x = _norm(spec, synchronized, f"auxiliary_norm{number}", "relu")(x)
    return keras.layers.GlobalAveragePooling2D(name="auxiliary_average")(x)  # (b, 768)


def _norm(
    spec: NASNetSpec, synchronized: bool, name: str, activation: str | None = None
) -> BatchNorm:
    return BatchNorm(
        spec.batch_norm_momentum,
        spec.batch_norm_epsilon,
        activation=activation,
        synchronized=synchronized,
        name=name,
    )


def _classifier(name: str, classes: int, activation: Any, initializer: Any) -> keras.layers.Dense:
    return keras.layers.Dense(
        int(classes),
        activation=activation,
        kernel_initializer=initializer or dense_initializer(),
        dtype="float32",
        name=name,
    )


def _pooled(x: Any, pooling: str | None) -> Any:
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(dtype="float32", name="pool")(x)
    return x


def _construct(
    spec: NASNetSpec,
    weights: str | Path | None,
    *,
    batch_norm_momentum: float | None,
    batch_norm_epsilon: float | None,
    input_tensor: Any,
    **arguments: Any,
) -> keras.Model:
    replacements: dict[str, Any] = {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_norm_epsilon": batch_norm_epsilon,
    }
    spec = replace(spec, **{k: v for k, v in replacements.items() if v is not None})
    model = build_nasnet(spec, input_tensor=input_tensor, **arguments)
    load_and_warn(model, weights, input_tensor=input_tensor)
    return model


def NASNetMobile(
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
    include_preprocessing: bool = True,
    name: str = "nasnet-mobile",
    input_tensor: Any = None,
) -> keras.Model:
    """NASNet-A (4 @ 1056): 5.3M parameters, 224 px.

    Zoph et al., arXiv 1707.07012.
    Arguments: see `effnetv2_tf.models.constructors`; but `drop_path_rate` is of the cells'
    operations, 0 by default, `dropout_rate` 0.5 and `batch_norm_momentum` 0.9997, which a
    short training should lower. Weights: of keras.applications' NASNetMobile or this package.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return _construct(
        NASNET_MOBILE,
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
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )


def NASNetLarge(
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
    include_preprocessing: bool = True,
    name: str = "nasnet-large",
    input_tensor: Any = None,
) -> keras.Model:
    """NASNet-A (6 @ 4032): 88.9M parameters, 331 px.

    Zoph et al., arXiv 1707.07012.
    Arguments: see `effnetv2_tf.models.constructors`; but `drop_path_rate` is of the cells'
    operations, 0.3 by default, `dropout_rate` 0.5 and `batch_norm_momentum` 0.9997, which a
    short training should lower. Weights: of keras.applications' NASNetLarge or this package.

    Returns:
      A Keras model, images (batch, height, width, channels) to (batch, classes).
    """
    return _construct(
        NASNET_LARGE,
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
        include_preprocessing=include_preprocessing,
        name=name,
        input_tensor=input_tensor,
    )
