"""Recipes: the typed form of the YAML files in `configs/`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from effnetv2_tf.training.reduced_sizes import check_reduced_size, reduced_size
from effnetv2_tf.training.schedule import round_size

PositiveInt = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values are not converted silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take true for 1.
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation not in (bool, bool | None):
            raise ValueError(f"expected another type than true or false, received {value}")
        return value


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


class ModelSection(Section):
    """Which network. Whatever is not None replaces the value in the named spec's row.

    `weights` is `imagenet` or a file, see `constructors`; with `new_classifier` all of it but
    the classifier is loaded.
    """

    name: str
    weights: str | None = None
    new_classifier: bool = False
    width: Positive | None = None
    depth: Positive | None = None
    stem_filters: PositiveInt | None = None
    stem_stride: Literal[1, 2] | None = None
    head_filters: PositiveInt | None = None
    activation: str | None = None
    group_size: PositiveInt | None = None
    normalization: Literal["batch", "group", "layer"] | None = None
    normalization_groups: PositiveInt | None = None
    proxy_normalization: bool | None = None
    batch_norm_momentum: Rate | None = None
    batch_norm_epsilon: Positive | None = None
    padding: Literal["same", "symmetric"] | None = None
    dropout_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    stages: tuple[StageSection, ...] | None = None
    preprocessing: PreprocessingSection | None = None
    classifier_initializer: Literal["reference", "zeros"] = "reference"
    synchronized_batch_norm: bool = False


class AugmentationSection(Section):
    """What happens to training images besides the scheduled magnitudes; see `Augmentation`."""

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    crop_area: tuple[Positive, Positive] = (0.08, 1.0)
    crop_aspect_ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)
    crop_padding: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    policy: Literal["randaugment", "autoaugment", "cutout", "none"] = "randaugment"
    randaugment_layers: PositiveInt = 2
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mixing: Literal["either", "both"] = "either"
    cutmix_lambda: Annotated[float, Field(ge=0, le=1)] | None = None


class DataSection(Section):
    """Where images come from and how they are prepared.

    `service` is the address of a tf.data service that makes the training batches, see
    `data.service`.
    """

    source: str
    options: dict[str, Any] = Field(default_factory=dict)
    train_split: str = "train"
    eval_split: str = "test"
    channels: Literal[1, 3] | None = None
    num_classes: Annotated[int, Field(ge=2)] | None = None
    augmentation: AugmentationSection = Field(default_factory=AugmentationSection)
    eval_size: Annotated[int, Field(ge=8)] | None = None
    eval_crop: Literal["center", "none"] = "center"
    eval_crop_padding: Annotated[int, Field(ge=0)] | None = None
    eval_batch_size: PositiveInt | None = None
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    service: str | None = None

    @field_validator("service")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"grpc://[^/:\s]+:\d+", value):
            raise ValueError(f"expected the dispatcher's grpc://host:port, received {value!r}")
        return value


class OptimizerSection(Section):
    """`rmsprop`, `sgd` or `adamw` of this package, or any Keras optimizer by class name."""

    name: str = "rmsprop"
    l2: NonNegative = 1e-5
    weight_decay: NonNegative | None = None
    gradient_clip_norm: Positive | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class LearningRateSection(Section):
    """See `learning_rates.WarmUpDecay`."""

    per_256: Positive = 0.016
    decay: Literal["exponential", "cosine", "constant"] = "exponential"
    warmup_epochs: NonNegative = 5.0
    decay_factor: Positive = 0.97
    decay_epochs: Positive = 2.4
    final_share: NonNegative = 0.0


StartEnd = tuple[NonNegative, NonNegative]
RateStartEnd = tuple[Rate, Rate]


class ProgressiveSection(Section):
    """The stages; pairs are [at the first stage, at the last stage]."""

    stages: PositiveInt = 4
    schedule: Literal["paper", "reference"] = "paper"
    image_size: tuple[PositiveInt, PositiveInt]
    size_multiple: PositiveInt = 1
    image_sizes: tuple[PositiveInt, ...] | None = None
    epochs_per_stage: tuple[PositiveInt, ...] | None = None
    batch_sizes: tuple[PositiveInt, ...] | None = None
    randaugment_magnitude: StartEnd | None = None
    mixup_alpha: StartEnd | None = None
    cutmix_alpha: StartEnd | None = None
    dropout_rate: RateStartEnd | None = None
    drop_path_rate: RateStartEnd | None = None


class TrainingSection(Section):
    """Length, batch, loss and precision."""

    epochs: PositiveInt
    batch_size: PositiveInt
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: Rate = 0.1
    class_weights: Literal["balanced"] | dict[int, NonNegative] | None = None
    ema_decay: Rate | None = 0.9999
    ema_every: Literal["step", "epoch"] = "step"
    evaluate_every_epochs: PositiveInt = 1
    steps_per_execution: PositiveInt = 1
    jit_compile: bool = False


class FineTuningSection(Section):
    """Training weights that were loaded; see `fine_tuning.Phases` and `transfer`."""

    head_epochs: Annotated[int, Field(ge=0)] = 1
    head: str = "classifier"
    until: str | None = None
    batch_norm: Literal["frozen", "training"] = "frozen"
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class ReducedResolutionSection(Section):
    """Training at a reduced size and fine-tuning the last layers at the test size.

    After `training.epochs` at `image_size` (None: the one that `reduced_sizes.reduced_size`
    picks for `data.eval_size`; `progressive.image_size` for growing sizes), `fine_tune_epochs`
    at `data.eval_size` with the evaluation's preprocessing train `fine_tune`: `top`, that is
    the head convolution, its norm and the classifier, or also that many of the last blocks.
    They begin with the averages of the weights, which are not averaged any further. Masters
    et al., arXiv 2106.03640.
    """

    image_size: PositiveInt | None = None
    modulo: PositiveInt = 32
    fine_tune_epochs: PositiveInt = 2
    fine_tune: Literal["top"] | PositiveInt = "top"
    learning_rate_per_256: Positive = 0.0005

    @field_validator("fine_tune", mode="before")
    @classmethod
    def _is_top_or_a_count(cls, value: Any) -> Any:
        if value != "top" and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"expected top or a number of blocks from 1 up, received {value!r}")
        return value


class CheckpointSection(Section):
    """When to save, and what to keep."""

    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    keep_last: PositiveInt = 2
    keep_best: bool = True
    monitor: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"


_NO_TEST_SIZE = (
    "reduced_resolution: expected data.eval_size, the size to test and fine-tune at, received none"
)


class Recipe(Section):
    """One experiment."""

    name: str
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelSection
    data: DataSection
    training: TrainingSection
    progressive: ProgressiveSection
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    learning_rate: LearningRateSection = Field(default_factory=LearningRateSection)
    fine_tuning: FineTuningSection | None = None
    reduced_resolution: ReducedResolutionSection | None = None
    checkpoints: CheckpointSection = Field(default_factory=CheckpointSection)

    @model_validator(mode="before")
    @classmethod
    def _training_size(cls, tree: Any) -> Any:
        """Fills in `progressive.image_size` from `reduced_resolution`, if that is to say it."""
        try:
            section, progressive = tree["reduced_resolution"], tree.get("progressive", {})
            if section is None or {"image_size", "image_sizes"} & progressive.keys():
                return tree
            size, modulo = section.get("image_size"), section.get("modulo", 32)
            test_size = tree["data"].get("eval_size")
            if size is None and test_size is not None:
                size = reduced_size(test_size, modulo)
        except ValueError as error:
            raise ValueError(f"reduced_resolution: data.eval_size: {error}") from error
        except (AttributeError, KeyError, TypeError):
            return tree  # other checks say what is wrong
        if size is None:
            raise ValueError(_NO_TEST_SIZE)
        return {**tree, "progressive": {**progressive, "image_size": [size, size]}}

    @model_validator(mode="after")
    def _reduced_size_fits(self) -> Recipe:
        section, progressive = self.reduced_resolution, self.progressive
        if section is None:
            return self
        if self.data.eval_size is None:
            raise ValueError(_NO_TEST_SIZE)
        sizes = progressive.image_sizes or progressive.image_size
        last = round_size(sizes[-1], progressive.size_multiple)
        if section.image_size not in (None, last):
            raise ValueError(
                f"reduced_resolution.image_size: expected the size of the last training stage "
                f"({last}, by progressive), received {section.image_size}; leave one of them out"
            )
        try:
            check_reduced_size(last, self.data.eval_size, section.modulo)
        except ValueError as error:
            raise ValueError(f"reduced_resolution.image_size: {error}") from error
        return self

    @model_validator(mode="after")
    def _cutmix_is_said_once(self) -> Recipe:
        augmentation = self.data.augmentation
        if augmentation.cutmix_lambda is None:
            return self
        if augmentation.mixing != "both":
            raise ValueError(
                "data.augmentation.cutmix_lambda: expected data.augmentation.mixing to be "
                f"'both', received {augmentation.mixing!r}"
            )
        if self.progressive.cutmix_alpha is not None:
            raise ValueError(
                "data.augmentation.cutmix_lambda: expected no progressive.cutmix_alpha beside "
                f"it, received {list(self.progressive.cutmix_alpha)}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        stages = self.progressive.stages
        if stages > self.training.epochs:
            raise ValueError(
                f"progressive.stages: expected at most training.epochs ({self.training.epochs}), "
                f"received {stages}; every stage needs an epoch"
            )
        for name in ("image_sizes", "epochs_per_stage", "batch_sizes"):
            given = getattr(self.progressive, name)
            if given is not None and len(given) != stages:
                raise ValueError(
                    f"progressive.{name}: expected {stages} numbers (progressive.stages), "
                    f"received {len(given)}"
                )
        sizes = self.progressive.image_sizes or self.progressive.image_size
        if min(sizes) < 8:
            raise ValueError(
                f"progressive.image_size: expected at least 8 pixels, received {min(sizes)}"
            )
        return self
