"""Batch normalisation as one operation each way, with an optional activation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_tf import keras_compat
from effnetv2_tf.kernels import operations
from effnetv2_tf.models.layers.activations import get_activation, silu, silu_gradient

# TensorFlow makes one operation of a convolution, its norm at inference and these, for which it
# then has no kernel on CPUs.
_WITHOUT_KERNEL = ("mish", "tanh")


@keras_compat.register_serializable("effnetv2_tf")
class BatchNorm(keras_compat.Layer):
    """Batch normalisation of images, over all axes but the last, then an activation.

    The outputs and gradients are those of `keras.layers.BatchNormalization`, computed by
    TensorFlow's fused operation (float32 statistics under any precision) where Keras 3 spells
    out a dozen, or in training by the compiled one of `kernels`, activation included. As in
    Keras, a layer with `trainable=False` normalises with its moving statistics. The moving
    variance averages the unbiased batch variance, as the EfficientNet reference and Keras 2;
    Keras 3 averages the biased one.

    Args:
      momentum: share of the old moving statistics kept at each step.
      epsilon: added to the variance.
      activation: name of a Keras activation applied to the result; None for none.
      synchronized: whether replicas of a distribution strategy normalise with the
        statistics of the global batch rather than their own share of it.

    With the attribute `recompute` set, see `models.recompute`, the normalised image is not kept
    for the gradient. With `keeps_statistics` unset a step in training leaves the moving
    statistics as they are.

    Input and output: (batch, height, width, channels).
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        activation: str | None = None,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(
                f"BatchNorm: `momentum` must lie in [0, 1]. Received: momentum={momentum}."
            )
        if not epsilon > 0:
            raise ValueError(f"BatchNorm: `epsilon` must be positive. Received: {epsilon}.")
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.activation = activation
        self._activate = get_activation(activation)
        self.synchronized = synchronized
        self.recompute = False
        self.keeps_statistics = True

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 4:
            raise ValueError(
                f"BatchNorm {self.name!r}: expected images (batch, height, width, channels). "
                f"Received: inputs of shape {tuple(input_shape)}."
            )
        if self.compute_dtype == "float64":
            raise ValueError(
                f"BatchNorm {self.name!r}: expected float32, or a half precision, for which there "
                "is a fused operation. Received: dtype float64."
            )
        shape = (input_shape[-1],)
        self.gamma = self.add_float32_weight("gamma", shape=shape, initializer="ones")
        self.beta = self.add_float32_weight("beta", shape=shape, initializer="zeros")
        self.moving_mean = self.add_statistic("moving_mean", shape=shape, initializer="zeros")
        self.moving_variance = self.add_statistic(
            "moving_variance", shape=shape, initializer="ones"
        )
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            outputs = self._normalize_with_moving_statistics(inputs)
        elif self.synchronized and _is_one_of_several_replicas():
            outputs = self._normalize_with_global_batch(inputs)
        elif compiled := operations.batch_norm_for(self.activation, inputs.dtype):
            return self._normalize_and_activate(inputs, compiled)
        elif self.recompute and self._activate is silu:
            return self._normalize_and_recompute(inputs)
        else:
            outputs = self._normalize_with_batch(inputs)
        return self._activate(outputs)

    def _normalize_with_moving_statistics(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.activation in _WITHOUT_KERNEL:
            mean, variance = map(tf.convert_to_tensor, (self.moving_mean, self.moving_variance))
            return self._normalize(inputs, mean, variance)
        return self._fused(inputs, False, **self._tensors()).y

    def _fused(self, inputs: tf.Tensor, is_training: bool, **arguments: Any) -> Any:
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs, epsilon=self.epsilon, is_training=is_training, **arguments
        )

    def _fused_with_batch(self, inputs: tf.Tensor, **arguments: Any) -> Any:
        """`_fused` in training, for a gradient that is TensorFlow's own."""
        if inputs.dtype != tf.float32 or keras_compat.has_accelerator():
            return self._fused(inputs, True, **arguments)
        # The same kernel on CPUs. To the gradient of the third version TensorFlow hands zeros for
        # each output but the first, which were a twelfth of the operations of a training step.
        return tf.raw_ops.FusedBatchNorm(
            x=inputs, epsilon=self.epsilon, is_training=True, **arguments
        )

    def _tensors(self) -> dict[str, tf.Tensor]:
        """The weights as arguments of `_fused`."""
        return {
            "scale": tf.convert_to_tensor(self.gamma),
            "offset": tf.convert_to_tensor(self.beta),
            "mean": tf.convert_to_tensor(self.moving_mean),
            "variance": tf.convert_to_tensor(self.moving_variance),
        }

    def _normalize_with_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        result = self._fused_with_batch(
            inputs, exponential_avg_factor=1.0 - self.momentum, **self._tensors()
        )
        self._keep_statistics(inputs, result.batch_mean, result.batch_variance)
        return result.y

    def _normalize_and_activate(self, inputs: tf.Tensor, compiled: Any) -> tf.Tensor:
        """`_normalize_with_batch` and the activation; the result between is never kept."""
        moving = [keras_compat.tf_variable(v) for v in (self.moving_mean, self.moving_variance)]
        # A strategy's variables change by its own ways, a stateless call's are tensors.
        is_one = not tf.distribute.has_strategy()
        in_place = is_one and all(isinstance(v, tf.Variable) for v in moving)
        result = compiled(
            x=inputs,
            gamma=tf.convert_to_tensor(self.gamma),
            beta=tf.convert_to_tensor(self.beta),
            moving=[v.handle for v in moving] if in_place and self.keeps_statistics else [],
            epsilon=self.epsilon,
            share=1.0 - self.momentum,
        )
        if not in_place:
            self._take_over(inputs, *tf.unstack(result.statistics))
        return result.y

    def _take_over(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """The moving statistics take over their share of a batch's, whose variance is biased."""
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        moving_mean, moving_variance = map(
            tf.convert_to_tensor, (self.moving_mean, self.moving_variance)
        )
        share = 1.0 - self.momentum
        self._keep_statistics(
            inputs,
            moving_mean + share * (mean - moving_mean),
            moving_variance + share * (unbiased - moving_variance),
        )

    def _keep_statistics(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Takes over what the fused operation returns with a factor below 1: new moving ones."""
        if not self.keeps_statistics:
            return
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            if _is_one_of_several_replicas():  # an epoch's last batch may leave one without images
                new = tf.where(tf.size(inputs) > 0, new, tf.convert_to_tensor(moving))
            moving.assign(new)

    def _normalize_and_recompute(self, inputs: tf.Tensor) -> tf.Tensor:
        """SiLU of `_normalize_with_batch`, whose result is computed again for the gradient."""
        tensors = self._tensors()
        moving = {name: tensors[name] for name in ("mean", "variance")}
        none = {name: tf.zeros([0]) for name in moving}

        @tf.custom_gradient
        def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
            affine = {"scale": gamma, "offset": beta}
            share = 1.0 - self.momentum
            result = self._fused(x, True, exponential_avg_factor=share, **affine, **moving)
            y = silu(result.y)

            def gradient(dy: tf.Tensor, *_: Any) -> tuple:
                # Not before the gradient arrives: it would lie in memory as long as the first.
                with tf.control_dependencies([dy]):
                    again = self._fused(tf.identity(x), True, **affine, **none)
                back = tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=silu_gradient(dy, again.y, y),
                    x=x,
                    scale=gamma,
                    reserve_space_1=result.reserve_space_1,
                    reserve_space_2=result.reserve_space_2,
                    reserve_space_3=result.reserve_space_3,
                    epsilon=self.epsilon,
                    is_training=True,
                )
                return back.x_backprop, back.scale_backprop, back.offset_backprop

            return (y, result.batch_mean, result.batch_variance), gradient

        outputs, mean, variance = normalize(inputs, tensors["scale"], tensors["offset"])
        self._keep_statistics(inputs, mean, variance)
        return outputs

    def _normalize_with_global_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.cast(inputs, tf.float32)
        replica_context = tf.distribute.get_replica_context()
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
        sums = [count, tf.reduce_sum(x, [0, 1, 2]), tf.reduce_sum(x * x, [0, 1, 2])]
        count, total, total_squares = replica_context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        mean = total / count
        variance = tf.maximum(total_squares / count - mean * mean, 0.0)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            variable = keras_compat.tf_variable(moving)
            variable.assign_sub((variable - tf.stop_gradient(batch)) * (1.0 - self.momentum))
        return self._normalize(inputs, mean, variance)

    def _normalize(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        scale = tf.math.rsqrt(variance + self.epsilon) * tf.convert_to_tensor(self.gamma)
        offset = tf.convert_to_tensor(self.beta) - mean * scale
        return tf.cast(tf.cast(inputs, tf.float32) * scale + offset, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "activation": self.activation,
            "synchronized": self.synchronized,
        }


def _is_one_of_several_replicas() -> bool:
    """False where a strategy's model is called as a whole: the batch then is the global one."""
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return several and not tf.distribute.in_cross_replica_context()
