"""How PyTorch's implementations of EfficientNet name and lay out their tensors.

Three namings cover nearly all state dicts there are: timm's (huggingface/pytorch-image-models,
`timm/models/efficientnet.py` and `_efficientnet_blocks.py`), torchvision's (`torchvision/models/
efficientnet.py`), and that of efficientnet-pytorch (lukemelas) and the packages derived from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models import scaling
from effnetv2_tf.models.specs import NetworkSpec, StageSpec
from effnetv2_tf.weights.mapping import Origin, Origins

_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# A block's layers to its modules, for (block kind, whether it expands).
_BlockModules = Mapping[tuple[str, bool], Mapping[str, str]]


class NoSuchNetwork(Exception):
    """An implementation has no network of the kind that a spec describes."""


@dataclass(frozen=True)
class Naming:
    """Where an implementation keeps each layer.

    Attributes:
      source: its name.
      signature: two tensors that every network of it has, and none of the others'.
      stem, stem_norm, head, head_norm, classifier: modules; `{last}` in them is the number of
        stages plus one.
      block: module of a block; `{stage}` counts from 0, `{stage_from_1}` from 1, `{block}` is
        the block's place in its stage and `{index}` in the network, from 0.
      modules: of a block's layers, within the block.
      has_optional_squeeze_excite: whether blocks that could have squeeze-excite may lack it.
    """

    source: str
    signature: tuple[str, str]
    stem: str
    stem_norm: str
    head: str
    head_norm: str
    classifier: str
    block: str
    modules: _BlockModules
    has_optional_squeeze_excite: bool = True


TIMM = Naming(
    source="timm",
    signature=("conv_stem.weight", "blocks.0.0."),
    stem="conv_stem",
    stem_norm="bn1",
    head="conv_head",
    head_norm="bn2",
    classifier="classifier",
    block="blocks.{stage}.{block}",
    modules={
        ("fused", False): {"fused": "conv", "fused_norm": "bn1"},
        ("fused", True): {
            "fused": "conv_exp",
            "fused_norm": "bn1",
            "squeeze_excite/reduce": "se.conv_reduce",
            "squeeze_excite/expand": "se.conv_expand",
            "project": "conv_pwl",
            "project_norm": "bn2",
        },
        ("mbconv", False): {
            "depthwise": "conv_dw",
            "depthwise_norm": "bn1",
            "squeeze_excite/reduce": "se.conv_reduce",
            "squeeze_excite/expand": "se.conv_expand",
            "project": "conv_pw",
            "project_norm": "bn2",
        },
        ("mbconv", True): {
            "expand": "conv_pw",
            "expand_norm": "bn1",
            "depthwise": "conv_dw",
            "depthwise_norm": "bn2",
            "squeeze_excite/reduce": "se.conv_reduce",
            "squeeze_excite/expand": "se.conv_expand",
            "project": "conv_pwl",
            "project_norm": "bn3",
        },
    },
)
TORCHVISION = Naming(
    source="torchvision",
    signature=("features.0.0.weight", "features.1.0.block.0.0."),
    stem="features.0.0",
    stem_norm="features.0.1",
    head="features.{last}.0",
    head_norm="features.{last}.1",
    classifier="classifier.1",
    block="features.{stage_from_1}.{block}.block",
    modules={
        ("fused", False): {"fused": "0.0", "fused_norm": "0.1"},
        ("fused", True): {
            "fused": "0.0",
            "fused_norm": "0.1",
            "project": "1.0",
            "project_norm": "1.1",
        },
        ("mbconv", False): {
            "depthwise": "0.0",
            "depthwise_norm": "0.1",
            "squeeze_excite/reduce": "1.fc1",
            "squeeze_excite/expand": "1.fc2",
            "project": "2.0",
            "project_norm": "2.1",
        },
        ("mbconv", True): {
            "expand": "0.0",
            "expand_norm": "0.1",
            "depthwise": "1.0",
            "depthwise_norm": "1.1",
            "squeeze_excite/reduce": "2.fc1",
            "squeeze_excite/expand": "2.fc2",
            "project": "3.0",
            "project_norm": "3.1",
        },
    },
    has_optional_squeeze_excite=False,
)
_EFFICIENTNET_PYTORCH_MBCONV = {
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "squeeze_excite/reduce": "_se_reduce",
    "squeeze_excite/expand": "_se_expand",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
EFFICIENTNET_PYTORCH = Naming(
    source="efficientnet-pytorch",
    signature=("_conv_stem.weight", "_blocks.0."),
    stem="_conv_stem",
    stem_norm="_bn0",
    head="_conv_head",
    head_norm="_bn1",
    classifier="_fc",
    block="_blocks.{index}",
    modules={
        ("mbconv", False): _EFFICIENTNET_PYTORCH_MBCONV,
        ("mbconv", True): {
            "expand": "_expand_conv",
            "expand_norm": "_bn0",
            **_EFFICIENTNET_PYTORCH_MBCONV,
        },
    },
)
NAMINGS = (TIMM, TORCHVISION, EFFICIENTNET_PYTORCH)


def naming_of(names: Collection[str], path: str) -> Naming:
    """The implementation that names its tensors so.

    Raises:
      UsageError: if none does; it shows what the names begin with.
    """
    for naming in NAMINGS:
        stem, first_block = naming.signature
        if stem in names and any(name.startswith(first_block) for name in names):
            return naming
    known = "; ".join(f"{naming.source} {naming.signature[0]!r}" for naming in NAMINGS)
    found = ", ".join(map(repr, list(names)[:3])) or "no tensors"
    raise UsageError(
        f"Weights file {path!r}: its {len(names)} tensors are not named as any implementation "
        f"of EfficientNet that is known here. Expected one of {known}; received {found}."
    )


def network_origins(naming: Naming, spec: NetworkSpec) -> Origins:
    """The origin of every variable of the spec's network, in the network's order.

    Raises:
      NoSuchNetwork: if the implementation has none like it.
    """
    if spec.group_size is not None or spec.normalization != "batch":
        raise NoSuchNetwork(
            f"{naming.source} has no network with group convolutions or without batch norms"
        )
    last = len(spec.stages) + 1
    origins = {
        **_layer("stem", naming.stem),
        **_layer("stem_norm", naming.stem_norm),
    }
    for block, module, stage in _blocks(naming, spec):
        for layer, inner in _block_modules(naming, stage).items():
            origins |= _layer(f"{block}/{layer}", f"{module}.{inner}")
    origins |= _layer("head", naming.head.format(last=last))
    origins |= _layer("head_norm", naming.head_norm.format(last=last))
    return origins | _layer("classifier", naming.classifier)


def _blocks(naming: Naming, spec: NetworkSpec) -> Iterator[tuple[str, str, StageSpec]]:
    """Our name, the module and the stage of every block."""
    index = 0
    for number, stage in enumerate(spec.stages):
        for place in range(scaling.scaled_stage(spec, stage)[1]):
            module = naming.block.format(
                stage=number, stage_from_1=number + 1, block=place, index=index
            )
            yield f"stage{number + 1}_block{place + 1}", module, stage
            index += 1


def _block_modules(naming: Naming, stage: StageSpec) -> dict[str, str]:
    """The layers that a stage's blocks have, and the modules of them."""
    modules = naming.modules.get((stage.block, stage.expansion != 1), {})
    possible = "squeeze_excite/reduce" in modules
    wanted = bool(stage.se_ratio) and (stage.block, stage.expansion) != ("fused", 1)
    required = possible and not naming.has_optional_squeeze_excite
    if not modules or (wanted and not possible) or (required and not wanted):
        having = "with" if wanted else "without"
        raise NoSuchNetwork(
            f"{naming.source} has no network with {stage.block} blocks {having} squeeze-excite"
        )
    return {
        layer: module
        for layer, module in modules.items()
        if wanted or not layer.startswith("squeeze_excite/")
    }


def _layer(path: str, module: str) -> Origins:
    """The origins of one layer's variables."""
    if path.endswith("_norm"):
        return {f"{path}/{ours}": Origin(f"{module}.{theirs}") for ours, theirs in _NORM.items()}
    kernel, change = _kernel_change(path)
    origins = {f"{path}/kernel": Origin(f"{module}.weight", kernel, change)}
    if path == "classifier" or "squeeze_excite/" in path:
        origins[f"{path}/bias"] = Origin(f"{module}.bias")
    return origins


def _kernel_change(path: str) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    if path == "classifier":
        return np.transpose, "OI to IO"
    if path.endswith("/depthwise"):
        return lambda kernel: kernel.transpose(2, 3, 0, 1), "OIHW to HWOI"
    return lambda kernel: kernel.transpose(2, 3, 1, 0), "OIHW to HWIO"
