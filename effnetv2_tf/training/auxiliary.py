"""Training with NASNet's auxiliary head, a second classifier that inference does not have.

Zoph et al., arXiv 1707.07012, appendix A.7.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.nasnet import without_auxiliary_head


class AuxiliaryNetwork(EfficientNet):
    """A network of two outputs, classifier and auxiliary classifier, to be trained as one.

    In training it gives (batch, 2, classes), the classifier's scores and the auxiliary
    one's, which `with_auxiliary_loss` takes apart; otherwise the classifier's (batch,
    classes) alone. Metrics see the classifier's. It is made for `fit`: save and export
    `main_network` of it.
    """

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of the classifier, as evaluation has it."""
        return tuple(self.outputs[0].shape)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        main, auxiliary = super().call(inputs, training=training, mask=mask)
        return tf.stack([main, auxiliary], axis=1) if training else main

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, _main_scores(y_pred), sample_weight)


def to_be_trained_as_one(model: keras.Model) -> AuxiliaryNetwork:
    """An `AuxiliaryNetwork` of the layers of a two-output network of `build_nasnet`."""
    network = AuxiliaryNetwork(model.input, model.outputs, name=model.name)
    network.output_names = network.output_names[:1]  # by which Keras tells losses and metrics
    return network


class _LossOfBoth(keras.losses.Loss):  # type: ignore[misc]
    """The classifier's loss, and in training so much of the auxiliary one's."""

    def __init__(self, loss: Any, weight: float) -> None:
        super().__init__(name=loss.name)
        self._loss = loss
        self._weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        main = self._loss.call(y_true, _main_scores(y_pred))
        if y_pred.shape.rank == 2:
            return main
        return main + self._weight * self._loss.call(y_true, y_pred[:, 1])


def with_auxiliary_loss(model: keras.Model, loss: Any, weight: float) -> Any:
    """What to compile a model with.

    Args:
      model: any; one without an auxiliary head gets `loss` itself.
      loss: a Keras loss, of the classifier and of the auxiliary one.
      weight: of the auxiliary loss, beside 1.
    """
    return _LossOfBoth(loss, weight) if isinstance(model, AuxiliaryNetwork) else loss


def main_network(model: keras.Model) -> keras.Model:
    """What is evaluated, saved and exported: the model, without its auxiliary head if any."""
    return without_auxiliary_head(model) if isinstance(model, AuxiliaryNetwork) else model


def _main_scores(scores: Any) -> Any:
    return scores if scores.shape.rank == 2 else scores[:, 0]
