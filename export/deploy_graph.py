"""The deploy graph: a network in the form that is exported.

float32, weights as constants, batch norms folded into the convolutions before them (in
float64), the statistics of proxy-normalised activations as constants too, 1x1 convolutions
as convolutions, dropout and stochastic depth gone. Every exporter starts from it; no training
model is ever handed to a converter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.folding import NotFoldable, convolutions, fold, layers_in_order
from effnetv2_tf.export.graph_steps import KerasNetwork, Normalization, Step, activate
from effnetv2_tf.models.layers import InputNormalization
from effnetv2_tf.models.outputs import last_step, output_activation

INPUT_NAME = "image"
PROBABILITIES = "probabilities"
_GIVE_PROBABILITIES = ("softmax", "sigmoid")
_FEATURES = "features"
_POOLING = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
_NORMALIZING = (InputNormalization, keras.layers.Normalization, keras.layers.Rescaling)


@dataclass(frozen=True)
class DeployGraph:
    """Images to the outputs of a network, in plain TensorFlow operations.

    Attributes:
      name: of the network.
      channels: of the images.
      image_shape: (height, width) in pixels, None for a side that may vary.
      normalization: from pixels in [0, 255] to what `steps` take; None if the network takes
        images as they are.
      steps: from normalised images on.
      activation: after the last step, `"linear"` for none.
      output_activation: of the outputs, also where it lies within `steps`.
      output_name: `"probabilities"`, `"logits"`, `"features"`, or `"outputs"` of a foreign
        model without known activation.
      classes: length of an output vector; None for feature maps.
      note: why batch norms were not folded; None if they were.
      inner_normalization: the names of layers that normalise pixels within `steps`.
    """

    name: str
    channels: int
    image_shape: tuple[int | None, int | None]
    normalization: Normalization | None
    steps: tuple[Step, ...]
    activation: str
    output_activation: str
    output_name: str
    classes: int | None
    note: str | None = None
    inner_normalization: tuple[str, ...] = ()

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Images (batch, height, width, channels) to the outputs of the Keras model."""
        return activate(self.logits(images), self.activation)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """The outputs before the last activation (after it, for a foreign model)."""
        x = tf.cast(images, tf.float32)
        if self.normalization is not None:
            x = self.normalization(images)
        for step in self.steps:
            x = step(x)
        return x

    @property
    def is_classifier(self) -> bool:
        """Whether outputs are one probability for each class."""
        return self.output_name == PROBABILITIES and self.classes is not None

    @property
    def has_classes(self) -> bool:
        """Whether outputs are one number for each class, of which the largest counts."""
        return self.classes is not None and self.output_name != _FEATURES

    @property
    def has_decisions(self) -> bool:
        """Whether each output is a decision of its own: several labels, or yes or no."""
        return self.has_classes and (self.output_activation == "sigmoid" or self.classes == 1)

    @property
    def has_own_values(self) -> bool:
        """Whether outputs may be values in their own right, as a regression's, not scores."""
        return self.has_classes and self.output_name != PROBABILITIES

    @property
    def normalizes(self) -> bool | None:
        """Whether the network normalises pixels itself; None where that is not known.

        An operation, a Lambda layer or the code of a model that is not folded may do it.
        """
        if self.normalization is not None or self.inner_normalization:
            return True
        return None if self.note else False

    @property
    def notes(self) -> list[str]:
        """What whoever uses the network should know."""
        notes = [self.note] if self.note else []
        if not self.normalizes:
            unknown = "" if self.normalizes is False else " (an operation or code may do it)"
            notes.append(
                f"the network has no layer that normalises pixels{unknown}: whatever it is fed, "
                "also by the signature for encoded images and on web pages, is pixels in [0, 255]"
            )
        return notes

    def check_normalization_is_apart(self) -> None:
        """Raises a UsageError if the network's normalisation cannot be left out, or is not known.

        It may also be an operation or a Lambda layer of a network that is not this package's.
        """
        if self.note:
            where = f"layer {self.inner_normalization[0]!r}" if self.inner_normalization else ""
            raise UsageError(
                "--nopreprocessing: expected a network whose normalisation can be left out, in "
                f"{self.name!r} it is {where or 'not known'} ({self.note})"
            )

    def without_normalization(self) -> DeployGraph:
        """The same for images that are normalised already.

        Raises:
          UsageError: see `check_normalization_is_apart`.
        """
        self.check_normalization_is_apart()
        return self.body()

    def body(self) -> DeployGraph:
        """What follows `normalization`."""
        return replace(self, normalization=None)

    def convolution_count(self) -> int:
        """Number of convolutions; an exported file has one operation for each."""
        return sum(1 for _ in convolutions(self.steps))

    def function(
        self,
        input_dtype: tf.DType = tf.float32,
        batch_size: int | None = None,
        image_size: int | None = None,
    ) -> Any:
        """A traceable function for converters.

        Args:
          input_dtype: float32 or uint8.
          batch_size: None for any.
          image_size: side in pixels; None for what the network allows.

        Returns:
          A `tf.function` from one tensor named `image` to `{output_name: tensor}`.
        """
        sides = self.image_shape if image_size is None else (image_size, image_size)
        shape = (batch_size, *sides, self.channels)
        signature = [tf.TensorSpec(shape, input_dtype, name=INPUT_NAME)]

        def infer(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {self.output_name: self(image)}

        # Steps have no data-dependent branches: without autograph tracing is much faster.
        return tf.function(infer, input_signature=signature, autograph=False)


def build_deploy_graph(model: keras.Model) -> DeployGraph:
    """Rebuilds a Keras model for inference, with the weights that it has now.

    A network of this package is folded. Any other model is taken as it is, its variables
    frozen; `note` then says why.

    Raises:
      UsageError: if the model does not take one batch of images, or cannot be made float32.
    """
    channels, image_shape = input_of(model)
    classes = _classes_of(model)
    _check_batch(model)
    try:
        steps, activation = fold(layers_in_order(model))
        last_activation = activation
        note = None
    except NotFoldable as reason:
        steps, activation = [KerasNetwork(float32_copy(model))], "linear"
        last_activation = output_activation(model) or "linear"
        note = f"batch norms not folded: {reason}"
    normalization = None
    if steps and isinstance(steps[0], Normalization):
        normalization = steps.pop(0)
    return DeployGraph(
        name=model.name,
        channels=channels,
        image_shape=image_shape,
        normalization=normalization,
        steps=tuple(steps),
        activation=activation,
        output_activation=last_activation,
        output_name=_output_name(model, last_activation, note is None),
        classes=classes,
        note=note,
        inner_normalization=() if note is None else _normalizing_layers(model),
    )


def _normalizing_layers(model: keras.Model) -> tuple[str, ...]:
    layers = keras_compat.flatten_layers(model)
    return tuple(layer.name for layer in layers if isinstance(layer, _NORMALIZING))


def float32_copy(model: keras.Model) -> keras.Model:
    """The same network and weights, computing in float32; `model` itself if it does already.

    Raises:
      UsageError: if a mixed-precision model cannot be rebuilt from its configuration.
    """
    layers = keras_compat.flatten_layers(model)  # a loaded model's inner ones keep their precision
    if all(_compute_dtype(layer) == "float32" for layer in layers):
        return model
    try:
        copy = model.__class__.from_config(_in_float32(model.get_config()))
        copy.set_weights([np.asarray(weight, np.float32) for weight in model.get_weights()])
        for layer in keras_compat.flatten_layers(copy):
            if hasattr(layer, "finalize_state"):  # an adapted layer computes with what this derives
                layer.finalize_state()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"model {model.name!r}: computes in mixed precision and cannot be rebuilt in "
            f"float32 from its configuration ({error}); build it in float32 and copy the weights"
        ) from error
    return copy


def _compute_dtype(layer: Any) -> str:
    return getattr(layer, "compute_dtype", None) or "float32"


def _in_float32(config: Any) -> Any:
    """A configuration with every mixed or half precision replaced."""
    if isinstance(config, dict):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(value) for value in config)
    if config in ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16"):
        return "float32"
    return config


def input_of(model: keras.Model) -> tuple[int, tuple[int | None, int | None]]:
    """Channels, and (height, width), of the images that a model takes; None for any.

    Raises:
      UsageError: if it does not take one batch of images.
    """
    inputs = getattr(model, "inputs", None) or []
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] is None:
        raise UsageError(
            f"model {model.name!r}: expected one input (batch, height, width, channels), "
            f"received {shapes or 'a model whose inputs Keras does not know'}"
            + ("" if shapes else "; keras.Model(image, model(image)) of a keras.Input makes one")
        )
    _, height, width, channels = shapes[0]
    return int(channels), (height, width)


def _check_batch(model: keras.Model) -> None:
    batch = model.inputs[0].shape[0]
    if batch is not None:
        raise UsageError(
            f"model {model.name!r}: expected an input for batches of any size, received one for "
            f"{batch} alone; build it with keras.Input(shape=...), without a batch size, and copy "
            "the weights (--fixed_batch_size makes one size of it)"
        )


def _classes_of(model: keras.Model) -> int | None:
    outputs = model.outputs
    if len(outputs) != 1:
        raise UsageError(f"model {model.name!r}: expected one output, received {len(outputs)}")
    shape = tuple(outputs[0].shape)
    return int(shape[-1]) if len(shape) == 2 and shape[-1] is not None else None


def _output_name(model: keras.Model, activation: str, folded: bool) -> str:
    last = last_step(model)
    is_dense = isinstance(last, keras.layers.Dense)
    if activation in _GIVE_PROBABILITIES:
        return PROBABILITIES
    if folded:
        return "logits" if is_dense else _FEATURES
    return _FEATURES if isinstance(last, _POOLING) else "outputs"
