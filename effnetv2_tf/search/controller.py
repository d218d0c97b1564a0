"""The LSTM that proposes choices one after the other, and its training by PPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from effnetv2_tf.search.decisions import Decision


@dataclass(frozen=True)
class ControllerSettings:
    """Of the controller and its training.

    Attributes:
      units: of the LSTM.
      embedding: numbers that stand for a choice at the LSTM's input.
      learning_rate: of Adam.
      batch_size: finished networks between two updates.
      epochs: gradient steps of an update.
      clip: PPO's bound on how far an update moves the probability of a choice, as a share.
      entropy: weight of the entropy bonus beside advantages of unit spread.
      baseline_decay: of the rewards' exponential moving average (NASNet's 0.95).
    """

    units: int = 64
    embedding: int = 16
    learning_rate: float = 0.02
    batch_size: int = 10
    epochs: int = 5
    clip: float = 0.2
    entropy: float = 0.2
    baseline_decay: float = 0.95


class _DecisionLogits(keras.layers.Layer):  # type: ignore[misc]
    """An own classifier for every decision: [batch, decisions, units] to [..., most choices].

    Places beyond a decision's number of choices get -1e9.
    """

    def __init__(self, counts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._counts = tuple(counts)

    def build(self, input_shape: Any) -> None:
        most = max(self._counts)
        shape = (len(self._counts), int(input_shape[-1]), most)
        # At zero every choice is as likely as another.
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=shape[::2], initializer="zeros")
        valid = np.arange(most)[None] < np.array(self._counts)[:, None]
        self._mask = tf.constant(np.where(valid, 0.0, -1e9), tf.float32)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return tf.einsum("bdu,duc->bdc", inputs, self.kernel) + self.bias + self._mask


class Controller:
    """Proposes points of a space and learns from their rewards.

    An LSTM reads the choices made so far and gives the probabilities of the next decision's
    (NASNet, arXiv 1707.07012, appendix A.1). It is trained by PPO (arXiv 1707.06347): the
    advantage of a point is its reward over an exponential moving average of rewards, in units
    of their spread, so that rewards of any scale do; an entropy bonus keeps it trying.

    With the same seed, and the same points in the same order, it is the same controller.

    Args:
      decisions: of the space.
      settings: see `ControllerSettings`.
      seed: of the initial weights.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        settings: ControllerSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings = settings or ControllerSettings()
        self._counts = np.array([len(decision.choices) for decision in decisions])
        # A token of its own for every choice of every decision; 0 stands before the first.
        self._offsets = 1 + np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._model = self._build(seed)
        self._optimizer = keras.optimizers.Adam(settings.learning_rate)
        self._optimizer.build(self._model.trainable_variables)
        self._baseline: float | None = None
        self._variance = 0.0
        self._logits = tf.function(self._model, reduce_retracing=True)
        self._step = tf.function(self._train_step, reduce_retracing=True)

    def _build(self, seed: int) -> keras.Model:
        settings = self.settings

        def initializer(number: int) -> Any:
            return keras.initializers.RandomUniform(-0.1, 0.1, seed=seed * 3 + number)

        tokens = keras.Input((len(self._counts),), dtype="int32")
        x = keras.layers.Embedding(
            int(self._counts.sum()) + 1, settings.embedding, embeddings_initializer=initializer(0)
        )(tokens)
        x = keras.layers.LSTM(
            settings.units,
            return_sequences=True,
            kernel_initializer=initializer(1),
            recurrent_initializer=initializer(2),
        )(x)
        return keras.Model(tokens, _DecisionLogits(self._counts.tolist())(x))

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """The indices of a choice for every decision, drawn from the present policy."""
        indices = np.zeros(len(self._counts), np.int64)
        for place, count in enumerate(self._counts):
            logits = self._logits(self._tokens(indices[None])).numpy()[0, place, :count]
            probabilities = np.exp(logits.astype(np.float64) - logits.max())
            indices[place] = rng.choice(count, p=probabilities / probabilities.sum())
        return tuple(int(index) for index in indices)

    def log_probabilities(self, points: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities of points, [batch].

        Args:
          points: [batch, decisions], indices of choices.
        """
        chosen, _ = self._policy(self._tokens(points), tf.constant(points, tf.int32))
        return tf.reduce_sum(chosen, axis=1).numpy()

    def learn(self, points: np.ndarray, rewards: np.ndarray) -> None:
        """One update of PPO.

        Args:
          points: [batch, decisions], indices of choices.
          rewards: [batch].
        """
        points, rewards = np.asarray(points), np.asarray(rewards, np.float64)
        advantages = tf.constant(self._advantages(rewards), tf.float32)
        tokens, chosen = self._tokens(points), tf.constant(points, tf.int32)
        before = self._policy(tokens, chosen)[0]
        for _ in range(self.settings.epochs):
            self._step(tokens, chosen, before, advantages)

    def _advantages(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards over the baseline in units of their spread; moves both on."""
        decay = self.settings.baseline_decay
        if self._baseline is None:
            self._baseline, self._variance = float(rewards.mean()), float(rewards.var())
        advantages = rewards - self._baseline
        for reward in rewards:
            off = reward - self._baseline
            self._variance = decay * self._variance + (1 - decay) * off**2
            self._baseline += (1 - decay) * off
        return advantages / (self._variance**0.5 + 1e-8)

    def _tokens(self, points: np.ndarray) -> tf.Tensor:
        """What the LSTM reads: the choice before each decision."""
        tokens = np.zeros_like(points)
        tokens[:, 1:] = (points + self._offsets)[:, :-1]
        return tf.constant(tokens, tf.int32)

    def _policy(self, tokens: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-probabilities of the chosen, and the entropies; both [batch, decisions]."""
        all_choices = tf.nn.log_softmax(self._logits(tokens))  # [batch, decisions, choices]
        entropy = -tf.reduce_sum(tf.exp(all_choices) * all_choices, axis=-1)
        return tf.gather(all_choices, chosen, axis=2, batch_dims=2), entropy

    def _train_step(
        self, tokens: tf.Tensor, chosen: tf.Tensor, before: tf.Tensor, advantages: tf.Tensor
    ) -> None:
        clip = self.settings.clip
        with tf.GradientTape() as tape:
            now, entropy = self._policy(tokens, chosen)
            ratio = tf.exp(now - before)
            gain = tf.minimum(
                ratio * advantages[:, None],
                tf.clip_by_value(ratio, 1 - clip, 1 + clip) * advantages[:, None],
            )
            loss = -tf.reduce_mean(gain) - self.settings.entropy * tf.reduce_mean(entropy)
        variables = self._model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
