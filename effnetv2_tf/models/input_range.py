"""The model class: a functional Keras model that notices images in the wrong range.

It also starts faster in a plain `fit`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.garbage import collection_paused
from effnetv2_tf.models.layers import InputNormalization

_WARNING = (
    "The images seem to {problem}, but this model expects pixels in [0, 255] and normalises them "
    "itself. {remedy}, or build the model with include_preprocessing=False and normalise them "
    "yourself."
)
_NO_NUMBERS = (
    "The first batch of images is NaN throughout. If it is of ProgressiveLearning.fit_dataset(), "
    "which only counts steps: give `fit` the callback, too, callbacks=[progressive]."
)
_LARGEST_NORMALIZED = 10.0  # that images normalised by any usual statistics come to


def images_of(batch: Any, model: keras.Model) -> Any:
    """What a model takes of a batch as its images, or of a batch's types.

    In a dictionary what is named as the model's input, else the first tensor.
    """
    features = batch[0] if isinstance(batch, tuple) and batch else batch
    if isinstance(features, Mapping):
        names = (str(x.name).partition(":")[0] for x in getattr(model, "inputs", None) or ())
        found = next((name for name in names if name in features), None)
        if found is not None:
            return features[found]
    return tf.nest.flatten(batch)[0]


@keras_compat.register_serializable("effnetv2_tf")
class EfficientNet(keras.Model):  # type: ignore[misc]
    """A functional Keras model with two additions.

    `fit` creates the optimizer's variables before it traces the training step (with Keras 3):
    Keras creates them in the trace, and TensorFlow then traces all of it a second time.

    The model warns once of images in [0, 1] or with negative values. Only values at hand are
    looked at (arrays, eager tensors, and the first batch of a `tf.data.Dataset`), so
    neither the graph nor its speed changes; a model within another one sees none.
    """

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        x = self._watched(x, for_training=True)
        if self._is_alone():  # else the strategy places the variables
            with collection_paused():
                self._build_optimizer()
        return super().fit(x, *args, **kwargs)

    @tf.autograph.experimental.do_not_convert  # as Keras's own, which it would call
    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        with collection_paused():  # while the step is traced
            return super().train_step(*args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().evaluate(self._watched(x), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().predict(self._watched(x), *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_input_range(x)
        return super().train_on_batch(x, *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_input_range(x)
        return super().test_on_batch(x, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        self.check_input_range(x)
        return super().predict_on_batch(x)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and tf.executing_eagerly():
            self.check_input_range(args[0])
        return super().__call__(*args, **kwargs)

    def _is_alone(self) -> bool:
        alone = self.distribute_strategy is tf.distribute.get_strategy()
        return alone and not tf.distribute.has_strategy()

    def _watched(self, x: Any, for_training: bool = False) -> Any:
        """The same data, looked at: at once, or a dataset when its first batch is drawn."""
        # A strategy's data may be read where Python's functions are not.
        if isinstance(x, tf.data.Dataset) and self._is_alone():
            return self.watch_first_batch(x, for_training)
        self.check_input_range(x)
        return x

    def _build_optimizer(self) -> None:
        """Creates the optimizer's variables, if none are there."""
        optimizer = getattr(self, "optimizer", None)  # Keras 3 has none before `compile`
        if not getattr(optimizer, "built", True):
            keras_compat.build_optimizer(optimizer, self.trainable_variables)

    def check_input_range(self, images: Any) -> None:
        """Warns, once for a model, if `images` do not lie in [0, 255] and the model expects it."""
        if not self._checks_range():
            return
        if isinstance(images, np.ndarray):
            sample = images[:64]
        elif isinstance(images, tf.Tensor) and hasattr(images, "numpy"):
            sample = images[:64].numpy()
        else:
            return
        if not np.issubdtype(sample.dtype, np.floating) or sample.size == 0:
            return
        largest = float(sample.max())
        least = float(sample.min())
        if (largest == 0 and least == 0) or np.isnan(largest):  # says nothing
            return
        self._range_checked = True
        # Bicubic resizing gives pixels below 0, too.
        if least < 0 and largest < _LARGEST_NORMALIZED:
            problem = f"be normalised already (values from {least:.3g} to {largest:.3g})"
            remedy = "Leave the normalisation out"
        elif least >= 0 and largest <= 1:
            problem = f"lie in [0, 1] (largest value {largest:.3g})"
            remedy = "Multiply them by 255"
        else:
            return
        warnings.warn(_WARNING.format(problem=problem, remedy=remedy), UserWarning, stacklevel=3)

    def _expects_pixels(self) -> bool:
        # What layers before it take, which a constructor's `input_tensor` brings, is not known.
        return any(isinstance(layer, InputNormalization) for layer in self.layers[1:2])

    def _checks_range(self) -> bool:
        """Whether images out of range are still to be warned of."""
        return not getattr(self, "_range_checked", False) and self._expects_pixels()

    def watch_first_batch(
        self, dataset: tf.data.Dataset, for_training: bool = False
    ) -> tf.data.Dataset:
        """The same dataset, whose first batch passes through `check_input_range`.

        Before a training it is also refused if it is NaN throughout, which would be the weights'
        end.
        """
        if not for_training and not self._checks_range():
            return dataset
        spec = images_of(dataset.element_spec, self)
        if not getattr(spec, "dtype", tf.uint8).is_floating:
            return dataset

        def check(images: Any) -> np.bool_:
            if images.size and np.isnan(images).all():
                raise ValueError(_NO_NUMBERS)
            self.check_input_range(images)
            return np.bool_(True)

        @tf.autograph.experimental.do_not_convert
        def watch(index: tf.Tensor, element: Any) -> Any:
            images = images_of(element, self)
            done = tf.cond(
                index == 0,
                lambda: tf.numpy_function(check, [images], tf.bool, stateful=True),
                lambda: tf.constant(True),
            )
            with tf.control_dependencies([done]):
                return tf.nest.map_structure(tf.identity, element)

        return dataset.enumerate().map(watch)
