"""A layer's drop rate that can change between steps without a new trace."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat


class ScheduledRate(keras_compat.Trackable):  # type: ignore[misc]
    """A drop rate in [0, 1) held in a variable that is no weight of the model."""

    def __init__(self, rate: float, owner: str) -> None:
        self._owner = owner
        self._check(rate)
        self._rate = float(rate)
        with tf.init_scope():
            self.variable = tf.Variable(
                rate,
                dtype=tf.float32,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="rate",
            )

    @property
    def value(self) -> float:
        """The rate in force."""
        return self._rate

    def set(self, rate: float) -> None:
        """Changes the rate, for the next step on."""
        self._check(rate)
        self._rate = float(rate)
        self.variable.assign(rate)

    def _check(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"{self._owner}: `rate` must lie in [0, 1). Received: rate={rate}.")


class RandomDrop(keras_compat.Layer):
    """What dropout and stochastic depth share: a scheduled rate, seeds, a scaled mask.

    Args:
      rate: share of units (or samples) set to zero in training; the others are scaled by
        1 / (1 - rate), so that the mean stays. At inference the layer is the identity.
      seed: of the random stream; None draws one from Python's generator, which
        `keras.utils.set_random_seed` seeds.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scheduled_rate = ScheduledRate(rate, type(self).__name__)
        self.seed = seed
        self.random_seeds = keras_compat.RandomSeeds(keras_compat.draw_seed(seed))

    def build(self, input_shape: Any) -> None:
        self.built = True  # also where only the layer around it is built

    @property
    def rate(self) -> float:
        """The rate in force; assign to change it for the next step on."""
        return self.scheduled_rate.value

    @rate.setter
    def rate(self, rate: float) -> None:
        self.scheduled_rate.set(rate)

    def noise_shape(self, inputs: tf.Tensor) -> Any:
        """Shape of the mask, to be broadcast against the inputs."""
        raise NotImplementedError

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return inputs * self.factors(inputs) if training else inputs

    def factors(self, inputs: tf.Tensor) -> tf.Tensor:
        """The next mask for these inputs, in their type: 0, or 1 / (1 - rate)."""
        rate = tf.convert_to_tensor(self.scheduled_rate.variable)
        uniform = _uniform(self.noise_shape(inputs), self.random_seeds.next())
        mask = tf.cast(uniform >= rate, tf.float32) / (1.0 - rate)
        return tf.cast(mask, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _uniform(shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """`tf.random.stateless_uniform`, without its five operations for limits that are 0 and 1."""
    drawn = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=shape, key=drawn.key, counter=drawn.counter, alg=tf.random.Algorithm.AUTO_SELECT.value
    )
