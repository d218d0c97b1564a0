"""Computing parts of a network again for the gradient, in place of keeping their results."""

from __future__ import annotations

from typing import Any, Literal

from effnetv2_tf import keras_compat
from effnetv2_tf.models.layers.activations import silu
from effnetv2_tf.models.layers.batch_norm import BatchNorm
from effnetv2_tf.models.layers.residual_block import ResidualBlock

Recomputed = bool | Literal["norms", "blocks"]


def set_recompute(model: Any, recompute: Recomputed = True) -> int:
    """Lets a model keep less for the gradient and compute it again on the way back.

    - `"norms"`, or True: batch norms with SiLU keep their input and the activation's output, not
      what lies between. Outputs and gradients stay the same, bit for bit. With the compiled
      operations of `kernels` they never keep it.
    - `"blocks"`: MBConv and Fused-MBConv blocks keep their input alone (gradient checkpointing,
      Chen et al., arXiv 1604.06174). Much less memory, about a forward pass more of time; the same
      numbers, but for the rounding of a convolution that TensorFlow may compute in another way.
    - False: everything is kept again.

    `compile` afterwards, or trace the training step anew. The setting belongs to the training, it
    is not saved with the model.

    Args:
      model: with this package's layers, at any depth.
      recompute: what to compute again.

    Returns:
      The number of norms or blocks that recompute; with False, that no longer do. Norms that
      synchronise replicas do not, nor do blocks with such.

    Raises:
      ValueError: for another value of `recompute`, or if there is no such norm or block.
    """
    if recompute not in (True, False, "norms", "blocks"):
        raise ValueError(
            f"set_recompute: `recompute` must be True, False, 'norms' or 'blocks'. Received: "
            f"{recompute!r}."
        )
    norms, blocks = _norms(model), _blocks(model)
    chosen = blocks if recompute == "blocks" else norms
    if recompute and not chosen:
        parts = "blocks" if recompute == "blocks" else "batch norms followed by SiLU"
        raise ValueError(
            f"set_recompute: expected a model with {parts}, received {model.name!r}, which has "
            "none."
        )
    for layer in (*norms, *blocks):
        layer.recompute = False
    if not recompute:
        return len(norms) + len(blocks)
    for layer in chosen:
        layer.recompute = True
    return len(chosen)


def _norms(model: Any) -> list[BatchNorm]:
    norms = [x for x in keras_compat.flatten_layers(model) if isinstance(x, BatchNorm)]
    return [norm for norm in norms if norm._activate is silu and not _synchronizes(norm)]


def _blocks(model: Any) -> list[ResidualBlock]:
    blocks = [x for x in keras_compat.flatten_layers(model) if isinstance(x, ResidualBlock)]
    return [b for b in blocks if not any(map(_synchronizes, keras_compat.flatten_layers(b)))]


def _synchronizes(layer: Any) -> bool:
    return isinstance(layer, BatchNorm) and layer.synchronized
