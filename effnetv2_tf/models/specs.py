"""What a network is, as data: frozen dataclasses. The rows of the families: `families`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from effnetv2_tf.errors import suggestion

BlockKind = Literal["mbconv", "fused"]
Rounding = Literal["nearest", "at_least_90_percent"]
Padding = Literal["same", "symmetric"]
Normalization = Literal["batch", "group", "layer"]


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image between the file and the first convolution.

    Attributes:
      mean: subtracted from pixels in [0, 255], one number for every channel or one for all.
      std: divided by, likewise.
      crop_padding: the centre crop for evaluation keeps `size / (size + crop_padding)` of
        the shorter side; 0 keeps it whole.
      interpolation: `"bilinear"` or `"bicubic"`, for resizing at evaluation.
      crop: `"center"`, or `"none"`: the whole image, stretched to the square.
    """

    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (128.0,)
    crop_padding: int = 32
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop: Literal["center", "none"] = "center"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                "Preprocessing: `mean` and `std` must both hold 1 or 3 numbers. "
                f"Received: mean={self.mean}, std={self.std}."
            )
        if min(self.std) <= 0:
            raise ValueError(f"Preprocessing: `std` must be positive. Received: {self.std}.")

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for images with `channels` channels: colour statistics are averaged for grey."""
        if len(self.mean) in (1, channels):
            return self
        average = (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        return replace(self, mean=average[0], std=average[1])


def normalization_text(mean: Sequence[float], std: Sequence[float], pixels: str = "pixels") -> str:
    """`(pixels - 128) / 128`; numbers that differ by channel in brackets."""
    return f"({pixels} - {_numbers_text(mean)}) / {_numbers_text(std)}"


def _numbers_text(values: Sequence[float]) -> str:
    texts = [f"{value + 0.0:.6g}" for value in values]  # -0.0 is 0
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"


# x / 255 normalised by ImageNet's statistics, as EfficientNet V1 and V2-B0..B3 were trained.
IMAGENET_STATISTICS = Preprocessing(
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), std=(0.229 * 255, 0.224 * 255, 0.225 * 255)
)
# (x - 128) / 128, as V2-S, M, L and XL were trained.
CENTRED_128 = Preprocessing()
# And as they are evaluated: google/automl takes no crop from 320 px on.
WHOLE_CENTRED_128 = Preprocessing(interpolation="bilinear", crop="none")
# (x - 127) / 128, as the Lite networks were trained.
CENTRED_127 = Preprocessing(mean=(127.0,), interpolation="bilinear")


@dataclass(frozen=True)
class StageSpec:
    """A run of blocks that share a resolution and a width.

    Attributes:
      block: `"mbconv"` (1x1 expand, depthwise, 1x1 project) or `"fused"` (one dense
        convolution in place of the first two).
      kernel_size: side of the spatial convolution's kernel.
      stride: of the first block; the others have 1.
      expansion: width of the hidden layer over the block's input width.
      filters: output channels before width scaling.
      repeats: number of blocks before depth scaling.
      se_ratio: width of squeeze-excite over the block's input width; 0 for none.
      scale_depth: whether the network's `depth` multiplies `repeats`.
    """

    block: BlockKind
    kernel_size: int
    stride: int
    expansion: int
    filters: int
    repeats: int
    se_ratio: float = 0.0
    scale_depth: bool = True

    def __post_init__(self) -> None:
        if self.block not in ("mbconv", "fused"):
            raise ValueError(
                f"StageSpec: `block` must be 'mbconv' or 'fused'. Received: {self.block!r}."
            )
        for name in ("kernel_size", "stride", "expansion", "filters", "repeats"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"StageSpec: `{name}` must be a positive integer. Received: {value!r}."
                )
        if not 0 <= self.se_ratio <= 1:
            raise ValueError(f"StageSpec: `se_ratio` must lie in [0, 1]. Received: {self.se_ratio}")


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that decides a network's graph and parameter count, class count aside.

    Attributes:
      name: of the Keras model.
      stages: in order; filters and repeats before scaling.
      stem_filters: width of the 3x3 stem, before scaling.
      stem_stride: 2, or 1 for small images.
      padding: of strided convolutions: `"same"` is TensorFlow's (more zeros to the bottom and
        right), `"symmetric"` PyTorch's, for weights that were trained so.
      scale_stem: whether `width` applies to the stem too.
      head_filters: width of the last 1x1 convolution.
      scale_head: whether `width` applies to the head too.
      width: multiplies filters.
      depth: multiplies repeats.
      rounding: how scaled widths become multiples of 8, see `scaling.round_filters`.
      activation: `"silu"`, `"relu6"` or any Keras activation's name.
      group_size: channels per group of the blocks' spatial convolutions, see
        `scaling.convolution_groups`; None for depthwise ones in `"mbconv"` blocks, dense ones
        in `"fused"` blocks.
      normalization: `"batch"`, `"group"`, or `"layer"`: one group over rows, columns and
        channels.
      normalization_groups: number of groups of `"group"`; must divide all widths.
      proxy_normalization: whether activations are proxy-normalised, see `layers.ProxyNorm`;
        with `"group"` and `"layer"` only.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance, by the other norms too.
      dropout_rate: before the classifier.
      drop_path_rate: of the last block; falls linearly to 0 at the first.
      train_size: image side in pixels for training (the last, in progressive training).
      eval_size: image side in pixels for evaluation.
      preprocessing: see `Preprocessing`.
    """

    name: str
    stages: tuple[StageSpec, ...]
    stem_filters: int
    stem_stride: int = 2
    padding: Padding = "same"
    scale_stem: bool = True
    head_filters: int = 1280
    scale_head: bool = False
    width: float = 1.0
    depth: float = 1.0
    rounding: Rounding = "nearest"
    activation: str = "silu"
    group_size: int | None = None
    normalization: Normalization = "batch"
    normalization_groups: int = 4
    proxy_normalization: bool = False
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-3
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.2
    train_size: int = 224
    eval_size: int = 224
    preprocessing: Preprocessing = CENTRED_128

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("NetworkSpec: `stages` is empty; expected at least one StageSpec.")
        strangers = [stage for stage in self.stages if not isinstance(stage, StageSpec)]
        if strangers:
            raise ValueError(
                f"NetworkSpec: `stages` must hold StageSpecs. Received: {strangers[0]!r}; "
                "StageSpec(**values) makes one of a dictionary."
            )
        self._check_numbers()
        for name, known in (("rounding", Rounding), ("padding", Padding)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise ValueError(
                    f"NetworkSpec: `{name}` must be one of {get_args(known)}. "
                    f"Received: {value!r}{suggestion(str(value), get_args(known))}"
                )
        self._check_normalization()

    def _check_numbers(self) -> None:
        for name in ("stem_filters", "stem_stride", "head_filters", "train_size", "eval_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"NetworkSpec: `{name}` must be a positive integer. Received: {value!r}."
                )
        for name in ("width", "depth", "batch_norm_epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"NetworkSpec: `{name}` must be positive. Received: {getattr(self, name)}."
                )
        for name in ("dropout_rate", "drop_path_rate", "batch_norm_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"NetworkSpec: `{name}` must lie in [0, 1). Received: {getattr(self, name)}."
                )

    def _check_normalization(self) -> None:
        for name in ("group_size", "normalization_groups"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"NetworkSpec: `{name}` must be a positive integer. Received: {value!r}."
                )
        if self.normalization not in get_args(Normalization):
            raise ValueError(
                f"NetworkSpec: `normalization` must be one of {get_args(Normalization)}. "
                f"Received: {self.normalization!r}."
            )
        if not self.proxy_normalization:
            return
        if self.normalization == "batch":
            raise ValueError(
                "NetworkSpec: `proxy_normalization` stands in for batch statistics; expected "
                "`normalization` 'layer' or 'group' with it. Received: 'batch'. Set "
                "proxy_normalization=False to keep batch norm."
            )
        if self.activation in (None, "linear"):
            raise ValueError(
                "NetworkSpec: `proxy_normalization` needs an `activation` such as 'silu'. "
                f"Received: activation={self.activation!r}."
            )
