"""Recipes: the typed form of the YAML files in `configs/`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from effnetv2_tf.data.service_address import check_address
from effnetv2_tf.models.nasnet_specs import AUXILIARY_LOSS_WEIGHT, NASNETS
from effnetv2_tf.training.model_section import ModelSection
from effnetv2_tf.training.reduced_sizes import check_reduced_size, reduced_size
from effnetv2_tf.training.schedule import round_size
from effnetv2_tf.training.sections import NonNegative, Positive, PositiveInt, Rate, Section

Share = Annotated[float, Field(gt=0, le=1)]
LARGEST_SEED = 2**32 - 1  # that NumPy takes
AUTO_SPLIT = "auto"


class AugmentationSection(Section):
    """What happens to training images besides the scheduled magnitudes; see `Augmentation`."""

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    crop_area: tuple[Share, Share] = (0.08, 1.0)
    crop_aspect_ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)
    crop_padding: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    policy: Literal["randaugment", "autoaugment", "cutout", "none"] = "randaugment"
    randaugment_layers: PositiveInt = 2
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mixing: Literal["either", "both"] = "either"
    cutmix_lambda: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("crop_area", "crop_aspect_ratio")
    @classmethod
    def _smallest_comes_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"expected the smallest, then the largest, received {list(value)}")
        return value


class DataSection(Section):
    """Where images come from and how they are prepared.

    `eval_split` `auto` is `validation` if the source has one, else `test`. `eval_crop` and
    `eval_crop_padding` are the network's own by default, see `specs.Preprocessing`. `service` is
    the address of a tf.data service that makes the training batches, see `data.service`.
    """

    source: str
    options: dict[str, Any] = Field(default_factory=dict)
    train_split: str = "train"
    eval_split: str = AUTO_SPLIT
    channels: Literal[1, 3] | None = None
    num_classes: Annotated[int, Field(ge=2)] | None = None
    augmentation: AugmentationSection = Field(default_factory=AugmentationSection)
    eval_size: Annotated[int, Field(ge=8)] | None = None
    eval_crop: Literal["center", "none"] | None = None
    eval_crop_padding: Annotated[int, Field(ge=0)] | None = None
    eval_batch_size: PositiveInt | None = None
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    service: str | None = None

    @field_validator("service")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value


class OptimizerSection(Section):
    """`rmsprop`, `sgd` or `adamw` of this package, or any Keras optimizer by class name.

    `l2` is 1e-5 by default, or 0 if the optimizer decays the weights itself (`adamw`, or any
    with `weight_decay`). Both act on kernels and on the parameters of proxies, neither on biases
    and the parameters of other norms.
    """

    name: str = "rmsprop"
    l2: NonNegative | None = None
    weight_decay: NonNegative | None = None
    gradient_clip_norm: Positive | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def decays_weights(self) -> bool:
        """Whether the optimizer has a weight decay of its own."""
        inner = self.options.get("optimizer")  # of one that wraps another
        places = [self.options, *([inner] if isinstance(inner, dict) else [])]
        given = [self.weight_decay, *(place.get("weight_decay") for place in places)]
        return self.name.lower() == "adamw" or any(given)


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
    crop_area_min: tuple[Share, Share] | None = None
    crop_area_max: tuple[Share, Share] | None = None

    @property
    def given_sizes(self) -> tuple[int, ...]:
        """Image sizes as given, before rounding: of all stages, or of the first and the last."""
        return self.image_sizes or self.image_size

    @property
    def last_size(self) -> int:
        """Side in pixels at which the last stage trains."""
        return round_size(self.given_sizes[-1], self.size_multiple)


class TrainingSection(Section):
    """Length, batch, loss and precision.

    `loss` is the cross-entropy of a distribution over the classes (several labels of an image
    share its sum of 1), or for `sigmoid` of each class by itself, the mean over the classes.
    `auxiliary_weight` is of the loss of `model.auxiliary_head`. `drop_path_ramp` lets the
    drop-path rate grow step by step from 0 to the network's, see `DropPathRamp`; None: for
    NASNets, unless `progressive.drop_path_rate` is given.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: Rate = 0.1
    auxiliary_weight: Positive = AUXILIARY_LOSS_WEIGHT
    drop_path_ramp: bool | None = None
    class_weights: Literal["balanced"] | dict[int, NonNegative] | None = None
    ema_decay: Rate | None = 0.9999
    ema_every: Literal["step", "epoch"] = "step"
    evaluate_every_epochs: PositiveInt = 1
    steps_per_execution: PositiveInt = 1
    jit_compile: bool = False
    recompute_norms: bool = False
    recompute_blocks: bool = False

    @field_validator("class_weights", mode="before")
    @classmethod
    def _are_weights_of_numbers(cls, value: Any) -> Any:
        # Of a wrong mapping Pydantic would say first that it is not the word.
        if value in (None, "balanced") or (
            isinstance(value, dict) and all(map(_is_class_weight, value.items()))
        ):
            return value
        raise ValueError(
            "expected balanced, or a weight from 0 up for class numbers, as {0: 1, 1: 2.5}, "
            f"received {value!r}"
        )


def _is_class_weight(item: tuple[Any, Any]) -> bool:
    number, weight = item
    is_weight = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    return str(number).isdecimal() and is_weight and 0 <= weight < math.inf


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
    They begin with the averages of the weights, which are not averaged any further. `modulo` is
    a multiple of the network's total stride: 32 but for small networks, which should say theirs.
    Masters et al., arXiv 2106.03640.
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
    """When to save, and what to keep.

    `mode` says whether the best value of `monitor` is the largest or the smallest; where it does
    not, the smallest of a loss and the largest of anything else.
    """

    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    keep_last: PositiveInt = 2
    keep_best: bool = True
    monitor: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"

    @model_validator(mode="before")
    @classmethod
    def _less_loss_is_better(cls, values: Any) -> Any:
        if isinstance(values, dict) and str(values.get("monitor", "")).endswith("loss"):
            return {"mode": "min", **values}
        return values


_NO_TEST_SIZE = (
    "reduced_resolution: expected data.eval_size, the size to test and fine-tune at, received none"
)


# Where the data lies: its classes and steps are checked by what checkpoints remember.
_PLACES = {"directory", "csv", "files"}
# Keys that may change when a run or a search goes on: they do not alter what is computed.
_FREE_KEYS: Any = {
    "name": True,
    "checkpoints": True,
    "data": {"service": True, "max_bad_share": True, "options": _PLACES},
}


class Recipe(Section):
    """One experiment."""

    name: str
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    model: ModelSection
    data: DataSection
    training: TrainingSection
    progressive: ProgressiveSection
    optimizer: OptimizerSection = Field(default_factory=OptimizerSection)
    learning_rate: LearningRateSection = Field(default_factory=LearningRateSection)
    fine_tuning: FineTuningSection | None = None
    reduced_resolution: ReducedResolutionSection | None = None
    checkpoints: CheckpointSection = Field(default_factory=CheckpointSection)

    def decisive_values(self) -> dict[str, Any]:
        """The plain values of all keys but those that do not alter what is computed."""
        return self.model_dump(mode="json", exclude=_FREE_KEYS)

    @model_validator(mode="before")
    @classmethod
    def _training_size(cls, tree: Any) -> Any:
        """Fills in `progressive.image_size` from `reduced_resolution`, if that is to say it.

        That size is not rounded, unless the recipe asks for it: what matters is its remainder.
        """
        try:
            section, progressive = tree["reduced_resolution"], tree.get("progressive", {})
            given = {name for name, value in progressive.items() if value is not None}
            if section is None or {"image_size", "image_sizes"} & given:
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
        filled_in = {"image_size": [size, size], "size_multiple": 1}
        return {**tree, "progressive": filled_in | {name: progressive[name] for name in given}}

    @model_validator(mode="after")
    def _reduced_size_fits(self) -> Recipe:
        section, last = self.reduced_resolution, self.progressive.last_size
        if section is None:
            return self
        if self.data.eval_size is None:
            raise ValueError(_NO_TEST_SIZE)
        given, multiple = self.progressive.given_sizes[-1], self.progressive.size_multiple
        hint = (
            ""
            if given == last
            else f"; progressive.size_multiple ({multiple}) made {last} of {given}"
        )
        if section.image_size not in (None, last):
            raise ValueError(
                f"reduced_resolution.image_size: expected the size of the last training stage "
                f"({last}, by progressive), received {section.image_size}"
                + (hint or "; leave one of them out")
            )
        try:
            check_reduced_size(last, self.data.eval_size, section.modulo)
        except ValueError as error:
            raise ValueError(f"reduced_resolution.image_size: {error}{hint}") from error
        return self

    @model_validator(mode="after")
    def _crops_can_be_scheduled(self) -> Recipe:
        augmentation, progressive = self.data.augmentation, self.progressive
        least, most = progressive.crop_area_min, progressive.crop_area_max
        if least is None and most is None:
            return self
        if augmentation.crop != "random_resized":
            name = "crop_area_max" if least is None else "crop_area_min"
            raise ValueError(
                f"progressive.{name}: expected data.augmentation.crop to be 'random_resized', "
                f"received {augmentation.crop!r}"
            )
        low, high = augmentation.crop_area
        for smallest, largest in zip(least or (low, low), most or (high, high), strict=True):
            if smallest > largest:
                raise ValueError(
                    "progressive.crop_area_min: expected at most the largest area of the same "
                    f"stage ({largest}), received {smallest}"
                )
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
    def _drop_path_is_scheduled_once(self) -> Recipe:
        if self.training.drop_path_ramp and self.progressive.drop_path_rate is not None:
            raise ValueError(
                "training.drop_path_ramp: expected no progressive.drop_path_rate beside it, "
                f"received {list(self.progressive.drop_path_rate)}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _nasnets_have_no_blocks(self) -> Recipe:
        if self.model.name not in NASNETS:
            return self
        if self.reduced_resolution is not None:
            raise ValueError(
                f"reduced_resolution: expected an EfficientNet, received {self.model.name!r}, "
                "which has no head and blocks to fine-tune"
            )
        if self.fine_tuning is not None and self.fine_tuning.learning_rate_decay != 1:
            raise ValueError(
                "fine_tuning.learning_rate_decay: expected 1 with a NASNet, received "
                f"{self.fine_tuning.learning_rate_decay}"
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
        smallest = min(self.progressive.given_sizes)
        if smallest < 8:
            raise ValueError(
                f"progressive.image_size: expected at least 8 pixels, received {smallest}"
            )
        return self
