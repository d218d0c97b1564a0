"""What a PyTorch state dict does not say: padding, epsilon of the batch norms, preprocessing.

The tensors of a network are the same whatever these are, and the outputs are not. They follow
from the implementation and from the name that the weights were published under:

- torchvision pads symmetrically. Its constructors set epsilon to 1e-5 for B0-B4 and 1e-3 for
  B5-B7 and V2, and its weights' transforms give the preprocessing
  (`torchvision/models/efficientnet.py`).
- timm's networks whose names begin with `tf_` hold weights of the TensorFlow reference: SAME
  padding, epsilon 1e-3. The others were trained in PyTorch: symmetric padding, epsilon 1e-5.
  Preprocessing: `default_cfgs` in `timm/models/efficientnet.py`, and `config.json` beside a file
  from the Hugging Face hub, which counts for more than the name.
- efficientnet-pytorch and its derivatives repeat the TensorFlow reference: SAME padding,
  epsilon 1e-3.

- timm's training script notes the network's name in its checkpoints, but not its preprocessing.

Where none of these is known (a timm state dict called `model.pth`), nothing is assumed: the network
that takes the weights must be built as the one that was trained, and a note says so.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.specs import (
    CENTRED_127,
    IMAGENET_STATISTICS,
    NetworkSpec,
    Padding,
    Preprocessing,
)
from effnetv2_tf.weights.pytorch_names import EFFICIENTNET_PYTORCH, TORCHVISION, Naming

TENSORFLOW_EPSILON = 1e-3
PYTORCH_EPSILON = 1e-5
# x / 255 normalised by a mean and a standard deviation of 0.5.
HALF = Preprocessing(mean=(127.5,), std=(127.5,))


Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Provenance:
    """How weights were trained; None for what is not known.

    Attributes:
      padding: of the strided convolutions.
      batch_norm_epsilon: added to the variances.
      preprocessing: of the images.
      notes: for whoever loads the weights.
    """

    padding: Padding | None = None
    batch_norm_epsilon: float | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


def _imagenet(crop_padding: int, interpolation: Interpolation = "bicubic") -> Preprocessing:
    return replace(IMAGENET_STATISTICS, crop_padding=crop_padding, interpolation=interpolation)


# Blocks and head width of torchvision's networks, B0 to B7, then V2-S, M and L; epsilon and the
# transforms of its weights, for B1 of the newer ones.
_TORCHVISION = {
    (16, 1280): (PYTORCH_EPSILON, _imagenet(32)),
    (23, 1280): (PYTORCH_EPSILON, _imagenet(15, "bilinear")),
    (23, 1408): (PYTORCH_EPSILON, _imagenet(0)),
    (26, 1536): (PYTORCH_EPSILON, _imagenet(20)),
    (32, 1792): (PYTORCH_EPSILON, _imagenet(4)),
    (39, 2048): (TENSORFLOW_EPSILON, _imagenet(0)),
    (45, 2304): (TENSORFLOW_EPSILON, _imagenet(0)),
    (55, 2560): (TENSORFLOW_EPSILON, _imagenet(0)),
    (40, 1280): (TENSORFLOW_EPSILON, _imagenet(0, "bilinear")),
    (57, 1280): (TENSORFLOW_EPSILON, _imagenet(0, "bilinear")),
    (79, 1280): (TENSORFLOW_EPSILON, replace(HALF, crop_padding=0)),
}
# Names of timm's weights, the first that matches: `tf_efficientnet_b0_ap-f262efe1.pth`,
# `tf_efficientnetv2_b3.in21k_ft_in1k`.
_TIMM = (
    (r"tf_efficientnetv2_(s|m|l|xl)", replace(HALF, crop_padding=0)),
    (r"tf_efficientnetv2_b3[._]in21k", HALF),
    (r"tf_efficientnetv2_b\d", IMAGENET_STATISTICS),
    (r"tf_efficientnet_lite[34]", replace(HALF, interpolation="bilinear")),
    (r"tf_efficientnet_lite\d", HALF),
    (r"tf_efficientnet_(b\d|l2)[._]ap([._-]|$)", HALF),  # AdvProp; ap_in1k on the hub
    (r"tf_efficientnet_(b\d|l2)", IMAGENET_STATISTICS),
    (r"efficientnet_b\d[._]ra4_", HALF),
    (r"efficientnet_(b\d|l2|lite\d)", IMAGENET_STATISTICS),
    (r"efficientnetv2_(s|m|l|xl)", replace(IMAGENET_STATISTICS, crop_padding=0)),
)
# What timm's names begin with, and no word goes on behind it.
_TIMM_NAME = re.compile(
    r"(tf_)?efficientnet(v2)?_(b\d|l2|lite\d|blur_b\d|e[slm]|cc_b\d|s|m|l|xl|rw_[tsm])(?![a-z0-9])"
)
_UNKNOWN_PREPROCESSING = (
    "The file does not tell how images were normalised: the model's way is kept."
)
_UNKNOWN_NETWORK = (
    "Neither the file nor its name tells which of timm's networks it is of: padding, epsilon and "
    "normalisation are kept as the model has them. Networks that were trained in PyTorch (without "
    "tf_ in timm's name) have padding='symmetric' and batch_norm_epsilon=1e-5."
)


def provenance(naming: Naming, spec: NetworkSpec, path: Path, architecture: str = "") -> Provenance:
    """What is known of weights with this naming, for this spec, in this file.

    Args:
      naming: of the tensors.
      spec: of the network that is to take them.
      path: of the file.
      architecture: as the file itself calls the network; empty if it does not.

    Raises:
      UsageError: if the file's name or the configuration beside it is that of a network which
        this package does not have, or the configuration cannot be read.
    """
    if naming is TORCHVISION:
        shape = (scaling.block_count(spec), scaling.scaled_head_filters(spec))
        epsilon, preprocessing = _TORCHVISION.get(shape, (None, None))
        return Provenance("symmetric", epsilon, preprocessing)
    if naming is EFFICIENTNET_PYTORCH:
        return Provenance("same", TENSORFLOW_EPSILON, _of_efficientnet_pytorch(path.name.lower()))
    return _of_timm(path, architecture.lower())


def _of_efficientnet_pytorch(name: str) -> Preprocessing | None:
    """By the names of its releases: `efficientnet-b0-355c32eb.pth`, with `adv-` before it."""
    if name.startswith("adv-efficientnet-b"):
        return HALF
    if name.startswith("efficientnet-b"):
        return IMAGENET_STATISTICS
    return CENTRED_127 if name.startswith("efficientnet-lite") else None


def _of_timm(path: Path, architecture: str) -> Provenance:
    config = _config_beside(path)
    name = str(config["architecture"]) if config else architecture or _published_name(path)
    if name.startswith("efficientnet_blur"):
        raise UsageError(
            f"Weights file {str(path)!r}: {name} blurs before it strides, which no network of "
            "this package does, though its tensors are the same. Pass other weights."
        )
    if config:
        preprocessing: Preprocessing | None = _from_config(path, config["pretrained_cfg"])
    else:  # a network that somebody trained has its name, and may have other preprocessing
        preprocessing = None if architecture else _by_name(name)
    notes = () if preprocessing else (_UNKNOWN_PREPROCESSING,)
    if name.startswith("tf_efficientnet"):
        return Provenance("same", TENSORFLOW_EPSILON, preprocessing, notes)
    if name.startswith("efficientnet"):
        return Provenance("symmetric", PYTORCH_EPSILON, preprocessing, notes)
    return Provenance(preprocessing=preprocessing, notes=(_UNKNOWN_NETWORK,))


def _published_name(path: Path) -> str:
    """The file's name, or that of the folder it lies in, if timm gives such names; or ''."""
    for part in (path.name, *(folder.name for folder in path.absolute().parents[:3])):
        name = part.lower().removeprefix("models--timm--")  # the hub's cache
        if _TIMM_NAME.match(name):
            return name
    return ""


def _by_name(name: str) -> Preprocessing | None:
    rows = (row for pattern, row in _TIMM if re.match(pattern, name))
    return next(rows, None)


def _config_beside(path: Path) -> dict[str, Any] | None:
    """The configuration that timm publishes with a file; None if there is none of timm's."""
    config_path = path.with_name("config.json")
    if not config_path.is_file():
        return None
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{str(config_path)!r}, beside the weights: expected JSON, received: {error}. "
            "Download it again, or move the weights to a folder of their own."
        ) from error
    is_timms = isinstance(config, dict) and {"architecture", "pretrained_cfg"} <= config.keys()
    return config if is_timms else None


def _from_config(path: Path, config: Any) -> Preprocessing:
    interpolations: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}
    try:
        size, share = int(config["input_size"][-1]), float(config["crop_pct"])
        return Preprocessing(
            mean=tuple(float(value) * 255 for value in config["mean"]),
            std=tuple(float(value) * 255 for value in config["std"]),
            crop_padding=round(size / share) - size,
            interpolation=interpolations[config["interpolation"]],
        )
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"{str(path.with_name('config.json'))!r}, beside the weights: expected timm's "
            "pretrained_cfg with input_size, crop_pct, mean, std and interpolation (bilinear or "
            f"bicubic), received {config!r}: {error!r}."
        ) from error
