"""Worker: training steps of G16-EfficientNet-B0, with our group convolutions or Keras's."""

from __future__ import annotations

import time
from typing import Any

from _keras_worker import batches
from _worker import serve

from effnetv2_tf import programs

_state: dict[str, Any] = {}


def first_step(convolution: str, image_size: int, batch_size: int) -> float:
    """Builds the network and makes one training step; returns the seconds of both.

    Args:
      convolution: `"effnetv2_tf"` or `"keras"`: what the group convolutions are. All else is
        the same.
      image_size: side in pixels.
      batch_size: images in a step.
    """
    programs.import_tensorflow()
    from effnetv2_tf import EfficientNetB0G16, RMSProp
    from effnetv2_tf.models.layers.residual_block import ResidualBlock

    began = time.perf_counter()
    if convolution == "keras":
        ResidualBlock._group_conv = _keras_group_conv
    model = EfficientNetB0G16()
    model.compile(
        RMSProp(0.01, rho=0.9, momentum=0.9, epsilon=1e-3),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    dataset = batches("effnetv2_tf", image_size, batch_size)
    model.fit(dataset, epochs=1, steps_per_epoch=1, verbose=0)
    _state.update(model=model, iterator=iter(dataset))
    return time.perf_counter() - began


def steps(count: int) -> float:
    """Makes further steps; returns their seconds."""
    began = time.perf_counter()
    for _ in range(count):
        _state["model"].train_function(_state["iterator"])
    return time.perf_counter() - began


def _keras_group_conv(block: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """In place of `ResidualBlock._group_conv`."""
    import keras

    from effnetv2_tf.models.layers.initializers import conv_initializer
    from effnetv2_tf.models.scaling import convolution_groups

    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same" if block.pad is None else "valid",
        groups=convolution_groups(filters, filters, block.group_size),
        use_bias=False,
        kernel_initializer=conv_initializer(),
        name=name,
    )


if __name__ == "__main__":
    programs.prepare_environment()
    serve({"first_step": first_step, "steps": steps})
