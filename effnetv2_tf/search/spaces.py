"""Spaces over a backbone: EfficientNetV2's by stages, and its ablation of fused stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from effnetv2_tf.models import scaling
from effnetv2_tf.models.specs import BlockKind, NetworkSpec, StageSpec
from effnetv2_tf.search.decisions import Choice, Decision, Space, check_not_empty
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import parse_recipe

PAPER_BLOCKS: tuple[BlockKind, ...] = ("mbconv", "fused")
PAPER_KERNELS = (3, 5)
PAPER_EXPANSIONS = (1, 4, 6)


@dataclass(frozen=True)
class StageChoice:
    """What is searched of a stage.

    Attributes:
      block: `"mbconv"` or `"fused"`.
      layers: number of blocks.
      kernel_size: side of the spatial convolution's kernel.
      expansion: width of the hidden layer over the block's input width.
    """

    block: BlockKind
    layers: int
    kernel_size: int
    expansion: int


@dataclass(frozen=True)
class StagePoint:
    """A network of `StageSpace`: a choice for every stage."""

    stages: tuple[StageChoice, ...]


@dataclass(frozen=True)
class FusingPoint:
    """A network of `FusingSpace`: how many of the first stages are Fused-MBConv."""

    fused_stages: int


class StageSpace(Space[StagePoint]):
    """EfficientNetV2's space (arXiv 2104.00298, section 3.2), over any backbone of stages.

    For every stage: the block, the number of layers, the kernel and the expansion. Channels,
    strides, stem and head are the backbone's; skipping by pooling is left out, as there.

    Args:
      backbone: whose channels and strides are kept.
      layers: numbers of blocks that a stage can have; None for the backbone's own (after depth
        scaling), one less and one more.
      blocks: kinds to choose from.
      kernel_sizes: to choose from.
      expansions: to choose from.
      se_ratio: of MBConv in place of a Fused-MBConv stage that has none, 0 for none. A stage that
        keeps its block keeps its own; Fused-MBConv in place of MBConv has none, as in
        EfficientNetV2.

    Raises:
      ValueError: if something has no choices.
    """

    def __init__(
        self,
        backbone: NetworkSpec,
        *,
        layers: Sequence[int] | None = None,
        blocks: Sequence[BlockKind] = PAPER_BLOCKS,
        kernel_sizes: Sequence[int] = PAPER_KERNELS,
        expansions: Sequence[int] = PAPER_EXPANSIONS,
        se_ratio: float = 0.25,
    ) -> None:
        self.backbone = backbone
        self._se_ratio = se_ratio
        decisions: list[Decision] = []
        for number, stage in enumerate(backbone.stages, start=1):
            own = scaling.scaled_stage(backbone, stage)[1]
            near = tuple(n for n in (own - 1, own, own + 1) if n > 0)
            decisions += (
                Decision(f"stage{number}.block", tuple(blocks)),
                Decision(f"stage{number}.layers", near if layers is None else tuple(layers)),
                Decision(f"stage{number}.kernel_size", tuple(kernel_sizes)),
                Decision(f"stage{number}.expansion", tuple(expansions)),
            )
        self._decisions = tuple(decisions)
        check_not_empty(self._decisions, "StageSpace")

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._decisions

    def decode(self, choices: Mapping[str, Choice]) -> StagePoint:
        self.check(choices)
        stages = range(1, len(self.backbone.stages) + 1)
        return StagePoint(
            tuple(
                StageChoice(
                    block=choices[f"stage{n}.block"],  # type: ignore[arg-type]
                    layers=int(choices[f"stage{n}.layers"]),
                    kernel_size=int(choices[f"stage{n}.kernel_size"]),
                    expansion=int(choices[f"stage{n}.expansion"]),
                )
                for n in stages
            )
        )

    def encode(self, point: StagePoint) -> dict[str, Choice]:
        choices = {
            f"stage{number}.{name}": value
            for number, stage in enumerate(point.stages, start=1)
            for name, value in asdict(stage).items()
        }
        self.check(choices)
        return choices

    def spec(self, point: StagePoint) -> NetworkSpec:
        """What the ordinary builder (`build_network`) makes the network of."""
        stages = [
            StageSpec(
                block=choice.block,
                kernel_size=choice.kernel_size,
                stride=base.stride,
                expansion=choice.expansion,
                filters=base.filters,
                repeats=choice.layers,
                se_ratio=self._stage_se_ratio(base, choice),
            )
            for base, choice in zip(self.backbone.stages, point.stages, strict=True)
        ]
        # The layers are counted after depth scaling.
        return replace(self.backbone, stages=tuple(stages), depth=1.0)

    def _stage_se_ratio(self, base: StageSpec, choice: StageChoice) -> float:
        if choice.block == base.block:
            return base.se_ratio
        return 0.0 if choice.block == "fused" else base.se_ratio or self._se_ratio

    def recipe(self, point: StagePoint, recipe: Recipe) -> Recipe:
        return with_stages(recipe, self.spec(point))

    def backbone_point(self) -> StagePoint | None:
        point = StagePoint(
            tuple(
                StageChoice(
                    stage.block,
                    scaling.scaled_stage(self.backbone, stage)[1],
                    stage.kernel_size,
                    stage.expansion,
                )
                for stage in self.backbone.stages
            )
        )
        return point if _contains(self, point) else None


class FusingSpace(Space[FusingPoint]):
    """The ablation of EfficientNetV2's table 3: the first stages fused, one after the other.

    A fused stage keeps its layers, kernel, expansion and channels, and loses squeeze-excite.

    Args:
      backbone: a network of MBConv stages, EfficientNet-B4 in the paper.
      fused_stages: how many of the first stages can be fused, (0, 3, 5, 7) in the paper.

    Raises:
      ValueError: if there is no choice, one has more stages than the backbone, or a stage of the
        backbone is fused already.
    """

    def __init__(self, backbone: NetworkSpec, fused_stages: Sequence[int] = (0, 3, 5, 7)) -> None:
        self.backbone = backbone
        self._decisions = (Decision("fused_stages", tuple(fused_stages)),)
        if not 0 <= min(fused_stages) <= max(fused_stages) <= len(backbone.stages):
            raise ValueError(
                f"FusingSpace: `fused_stages` must lie in 0 .. {len(backbone.stages)}, the number "
                f"of the backbone's stages. Received: {tuple(fused_stages)}."
            )
        fused = [n for n, stage in enumerate(backbone.stages, start=1) if stage.block == "fused"]
        if fused:
            raise ValueError(
                "FusingSpace: the backbone must have MBConv stages alone, so that its choices are "
                f"different networks. Received Fused-MBConv in stages {fused}."
            )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self._decisions

    def decode(self, choices: Mapping[str, Choice]) -> FusingPoint:
        self.check(choices)
        return FusingPoint(int(choices["fused_stages"]))

    def encode(self, point: FusingPoint) -> dict[str, Choice]:
        choices: dict[str, Choice] = {"fused_stages": point.fused_stages}
        self.check(choices)
        return choices

    def spec(self, point: FusingPoint) -> NetworkSpec:
        """What the ordinary builder (`build_network`) makes the network of."""
        stages = tuple(
            replace(stage, block="fused", se_ratio=0.0) if n < point.fused_stages else stage
            for n, stage in enumerate(self.backbone.stages)
        )
        return replace(self.backbone, stages=stages)

    def recipe(self, point: FusingPoint, recipe: Recipe) -> Recipe:
        return with_stages(recipe, self.spec(point))

    def backbone_point(self) -> FusingPoint | None:
        return FusingPoint(0) if _contains(self, FusingPoint(0)) else None


def with_stages(recipe: Recipe, spec: NetworkSpec) -> Recipe:
    """`recipe` with the stages of `spec`, whose other values are the recipe's already.

    Raises:
      UsageError: if the recipe cannot be for this network.
    """
    tree = recipe.model_dump()
    rows = []
    for stage in spec.stages:
        row = asdict(stage)
        del row["scale_depth"]
        # Recipes scale every stage; the number after scaling stays right at depth 1.
        rows.append(row | {"repeats": scaling.scaled_stage(spec, stage)[1]})
    tree["model"] |= {"stages": tuple(rows), "depth": 1.0}
    return parse_recipe(tree, recipe.name)


def _contains(space: Space, point: object) -> bool:
    try:
        space.encode(point)
    except ValueError:
        return False
    return True
