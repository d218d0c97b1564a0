"""Transfer learning: frozen parts, new heads, learning rates by depth.

Works on this package's networks and on other Keras models that are one chain of layers.
"""

from __future__ import annotations

from typing import Any, Literal

import keras

from effnetv2_tf import keras_compat
from effnetv2_tf.errors import is_whole, suggestion
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.layers import BatchNorm, Dropout, NASNetCell
from effnetv2_tf.models.layers.initializers import dense_initializer

BatchNormMode = Literal["frozen", "training"]
_NORMS = (BatchNorm, keras.layers.BatchNormalization)
# The layers behind the last feature map, in this package's networks.
_TOP = ("pool", "dropout", "classifier")


def freeze(
    model: keras.Model, until: str = "classifier", batch_norm: BatchNormMode = "frozen"
) -> list[str]:
    """Freezes the layers before `until`; those from it on are trained.

    Calling it again with another `until` moves the border, either way. `compile`, or trace
    the training step anew, afterwards.

    Args:
      model: what to freeze.
      until: the first layer that is trained, by name: `"classifier"`, `"head"`,
        `"stage5_block1"`; `"stage5"` for the first block of that stage; the model's first
        layer for nothing frozen.
      batch_norm: `"frozen"`: the frozen layers' batch norms normalise with their moving
        statistics, as at inference. `"training"`: they go on learning, parameters and
        statistics, which helps when the new images look different.

    Returns:
      The names of the frozen layers (of the model's own, not those inside them).

    Raises:
      ValueError: if there is no such layer, with the nearest name; for `"training"` if the model
        has no batch norm.
    """
    check_batch_norm(model, batch_norm)
    border = index_of(model, until)
    for layer in model.layers[border:]:
        _set_trainable(layer, True)
    for layer in model.layers[:border]:
        _set_trainable(layer, False, keep_norms=batch_norm == "training")
    return [layer.name for layer in model.layers[:border]]


def check_batch_norm(model: keras.Model, mode: BatchNormMode) -> None:
    """Raises a ValueError unless `freeze` can treat the model's batch norms so."""
    if mode not in ("frozen", "training"):
        raise ValueError(f"`batch_norm` must be 'frozen' or 'training'. Received: {mode!r}.")
    if mode == "training" and not any(
        isinstance(layer, _NORMS) for layer in keras_compat.flatten_layers(model)
    ):
        raise ValueError(
            f"`batch_norm`: model {model.name!r} has no batch norms: expected 'frozen', received "
            "'training'."
        )


def unfreeze(model: keras.Model) -> None:
    """Makes every layer trainable; `compile`, or trace the training step anew, afterwards."""
    for layer in model.layers:
        _set_trainable(layer, True)


def backbone(model: keras.Model) -> keras.Model:
    """The network up to its last feature map; the layers are shared with `model`.

    Raises:
      ValueError: if `model` is not one of this package's networks.
    """
    names = [layer.name for layer in model.layers]
    if "head_norm" in names:
        features = model.get_layer("head_norm").output
    elif not any(isinstance(layer, NASNetCell) for layer in model.layers):
        raise ValueError(
            f"Model {model.name!r} has no layer 'head_norm': expected one of this package's "
            f"EfficientNets or NASNets. Its last layers: {names[-3:]}."
        )
    else:
        features = model.get_layer("pool").input if "pool" in names else model.outputs[0]
    return EfficientNet(model.input, features, name=f"{model.name}_backbone")


def replace_head(
    model: keras.Model,
    classes: int,
    classifier_activation: Any = "softmax",
    classifier_initializer: Any = "zeros",
    dropout_rate: float = 0.2,
) -> keras.Model:
    """The network with a new classifier; everything before it is shared with `model`.

    Args:
      model: one of this package's networks, with or without a classifier. A NASNet's auxiliary
        classifier is left out.
      classes: of the new classifier.
      classifier_activation: `"softmax"`, `"sigmoid"`, None for logits.
      classifier_initializer: of the kernel. Zeros start with equal probabilities for all
        classes, so that the first steps do not harm what the network knows; None for the
        reference's, uniform in +-1 / sqrt(classes).
      dropout_rate: before the classifier.

    Returns:
      A Keras model, images to (batch, classes).

    Raises:
      ValueError: for a model that is not of this package, or an impossible class count.
    """
    if not is_whole(classes) or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: classes={classes!r}.")
    body = backbone(model)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body.outputs[0])  # (b, head)
    x = Dropout(dropout_rate, name="dropout")(x)
    x = keras.layers.Dense(
        int(classes),
        activation=classifier_activation,
        kernel_initializer=classifier_initializer or dense_initializer(),
        dtype="float32",
        name="classifier",
    )(x)
    return EfficientNet(body.input, x, name=model.name)


def head_report(before: keras.Model, after: keras.Model) -> str:
    """What `replace_head` (or a new classifier) kept and what is new, one line for each part."""
    old = {keras_compat.variable_path(w): tuple(w.shape) for w in before.weights}
    new = {keras_compat.variable_path(w): tuple(w.shape) for w in after.weights}
    kept = [path for path in new if path.split("/")[0] not in _TOP]
    lines = [f"kept: {len(kept)} variables, {kept[0]} to {kept[-1]}"]
    for path, shape in new.items():
        if path.split("/")[0] in _TOP:
            was = f"was {old[path]}" if path in old else "there was none"
            lines.append(f"new:  {path} {shape}, {was}")
    return "\n".join(lines)


def learning_rates_by_depth(model: keras.Model, decay: float) -> dict[str, float]:
    """Learning-rate factors that fall towards the input (discriminative fine-tuning).

    The classifier and the head convolution have 1; the last stage has `decay`, the stage
    before it `decay**2`, and so on to the stem (Howard & Ruder, arXiv 1801.06146, section
    3.2, with one group for each stage).

    Args:
      model: one of this package's EfficientNets.
      decay: in (0, 1].

    Returns:
      Factors by the beginning of a variable's path, for the optimizers'
      `learning_rate_factors`.

    Raises:
      ValueError: if `decay` is out of range, or the model has no stages.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"`decay` must lie in (0, 1]. Received: decay={decay}.")
    if not any(layer.name.startswith("stage") for layer in model.layers):
        raise ValueError(
            "`model` must be an EfficientNet of this package, with layers such as "
            f"'stage1_block1'. Received: model {model.name!r}, which has none."
        )
    groups = []  # from the input on
    for layer in model.layers:
        group = layer.name.split("_")[0]
        if (group == "stem" or group.startswith("stage")) and group not in groups:
            groups.append(group)
    return {group: decay ** (len(groups) - i) for i, group in enumerate(groups)}


def index_of(model: keras.Model, name: str) -> int:
    """Position of a layer among the model's own; `"stage5"` stands for its first block.

    Raises:
      ValueError: if there is none, with the nearest name.
    """
    names = [layer.name for layer in model.layers]
    for candidate in (name, f"{name}_block1"):
        if candidate in names:
            return names.index(candidate)
    stages = sorted({n.split("_")[0] for n in names if n.startswith("stage")})
    hint = suggestion(name, [*names, *stages]) or f"; known: {', '.join([*stages, *names[-5:]])}"
    raise ValueError(f"`until`: model {model.name!r} has no layer {name!r}{hint}.")


def _set_trainable(layer: Any, trainable: bool, keep_norms: bool = False) -> None:
    if not keep_norms:
        # Each of them: Keras does not pass on a value that the layer around them has already.
        for inner in (layer, *keras_compat.flatten_layers(layer)):
            inner.trainable = trainable
        return
    # A layer inside one that is not trainable is not trained either, so the leaves are set.
    layer.trainable = True
    for inner in (layer, *keras_compat.flatten_layers(layer)):
        if not keras_compat.flatten_layers(inner):
            inner.trainable = isinstance(inner, _NORMS)
