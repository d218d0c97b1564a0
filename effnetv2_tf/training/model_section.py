"""The recipe's section that says which network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from effnetv2_tf.models.genotypes import Cell, Genotype, Operation
from effnetv2_tf.models.specs import Preprocessing
from effnetv2_tf.training.sections import Positive, PositiveInt, Rate, Section


class StageSection(Section):
    """One row of `model.stages`; see `specs.StageSpec`."""

    block: Literal["mbconv", "fused"]
    kernel_size: PositiveInt = 3
    stride: PositiveInt = 1
    expansion: PositiveInt = 4
    filters: PositiveInt
    repeats: PositiveInt
    se_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0


class PreprocessingSection(Section):
    """What images go through; see `specs.Preprocessing`."""

    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    crop_padding: Annotated[int, Field(ge=0)] = 32
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop: Literal["center", "none"] = "center"

    @model_validator(mode="after")
    def _is_preprocessing(self) -> PreprocessingSection:
        Preprocessing(**self.model_dump())
        return self


class BlockSection(Section):
    """One block of a cell; see `genotypes.Block`."""

    left_state: Annotated[int, Field(ge=0)]
    left_op: Operation
    right_state: Annotated[int, Field(ge=0)]
    right_op: Operation


class CellSection(Section):
    """One cell; see `genotypes.Cell`."""

    blocks: tuple[BlockSection, ...]
    outputs: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _is_a_cell(self) -> CellSection:
        Cell.from_values(self.model_dump())
        return self


class GenotypeSection(Section):
    """The two cells of a NASNet; see `genotypes.Genotype`."""

    normal: CellSection
    reduction: CellSection

    @property
    def genotype(self) -> Genotype:
        """The same as what the builder takes."""
        return Genotype.from_values(self.model_dump())


class ModelSection(Section):
    """Which network. Whatever is not None replaces the value in the named spec's row.

    `weights` is `imagenet` or a file, see `constructors`; with `new_classifier` all of it but
    the classifier is loaded. `width` to `stages` are of EfficientNets alone, `genotype` to
    `auxiliary_head` of NASNets, see `nasnet_specs.NASNetSpec`; `filters` is the width of the
    first stack's operations, which stays the row's whatever the genotype, unless
    `penultimate_filters` is given.
    """

    name: str
    weights: str | None = None
    new_classifier: bool = False
    width: Positive | None = None
    depth: Positive | None = None
    head_filters: PositiveInt | None = None
    activation: str | None = None
    group_size: PositiveInt | None = None
    normalization: Literal["batch", "group", "layer"] | None = None
    normalization_groups: PositiveInt | None = None
    proxy_normalization: bool | None = None
    padding: Literal["same", "symmetric"] | None = None
    stages: tuple[StageSection, ...] | None = None
    genotype: GenotypeSection | None = None
    cells_per_stack: PositiveInt | None = None
    filters: PositiveInt | None = None
    penultimate_filters: PositiveInt | None = None
    filter_multiplier: PositiveInt | None = None
    stem_reductions: Annotated[int, Field(ge=0)] | None = None
    skip_reduction: bool | None = None
    auxiliary_head: bool | None = None
    stem_filters: PositiveInt | None = None
    stem_stride: Literal[1, 2] | None = None
    batch_norm_momentum: Rate | None = None
    batch_norm_epsilon: Positive | None = None
    dropout_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    preprocessing: PreprocessingSection | None = None
    classifier_initializer: Literal["reference", "zeros"] = "reference"
    synchronized_batch_norm: bool = False

    @model_validator(mode="after")
    def _a_new_classifier_replaces_one(self) -> ModelSection:
        if self.new_classifier and self.weights is None:
            raise ValueError(
                "new_classifier: expected weights beside it, of which all but the classifier is "
                "loaded; received none"
            )
        return self

    @model_validator(mode="after")
    def _width_is_said_once(self) -> ModelSection:
        if self.filters is not None and self.penultimate_filters is not None:
            raise ValueError(
                f"penultimate_filters: expected none beside filters ({self.filters}), received "
                f"{self.penultimate_filters}; leave one of them out"
            )
        return self
