"""What a NASNet is, as data: frozen dataclasses, and the rows of the family."""

from __future__ import annotations

from dataclasses import dataclass

from effnetv2_tf.models.genotypes import NASNET_A, Genotype
from effnetv2_tf.models.specs import Preprocessing

# Stacks of normal cells; a reduction cell stands between two of them.
STACKS = 3
# Of the auxiliary classifier's loss, beside 1 for the classifier's.
AUXILIARY_LOSS_WEIGHT = 0.4
# x / 127.5 - 1, as the NASNets were trained.
CENTRED_127_5 = Preprocessing(mean=(127.5,), std=(127.5,), interpolation="bilinear")


@dataclass(frozen=True)
class NASNetSpec:
    """Everything that decides a NASNet's graph and parameter count, class count aside.

    In the paper's notation it is `genotype (cells_per_stack @ penultimate_filters)`.

    Attributes:
      name: of the Keras model.
      cells_per_stack: normal cells in each of the three stacks, N.
      penultimate_filters: channels of the last feature map; a multiple of the normal cell's
        number of outputs times `filter_multiplier` squared.
      genotype: of the cells.
      stem_filters: width of the 3x3 stem.
      stem_stride: 2, without padding, or 1 with padding, for small images.
      stem_reductions: reduction cells between the stem and the first stack: 2, or 0 for small
        images; their width grows by the multiplier up to the first stack's.
      filter_multiplier: width of a stack over that of the one before.
      skip_reduction: whether the first cell after a reduction cell has as its second input
        what that cell had, rather than that cell's first input.
      auxiliary_head: whether training has a second classifier, behind the second stack.
      batch_norm_momentum: share of the old moving statistics kept at each step.
      batch_norm_epsilon: added to the variance.
      dropout_rate: before the classifier.
      drop_path_rate: of the operations in the last cell; cell i of n has i / n of it.
      train_size: image side in pixels for training.
      eval_size: image side in pixels for evaluation.
      preprocessing: see `Preprocessing`.
    """

    name: str
    cells_per_stack: int
    penultimate_filters: int
    genotype: Genotype = NASNET_A
    stem_filters: int = 32
    stem_stride: int = 2
    stem_reductions: int = 2
    filter_multiplier: int = 2
    skip_reduction: bool = False
    auxiliary_head: bool = False
    batch_norm_momentum: float = 0.9997
    batch_norm_epsilon: float = 1e-3
    dropout_rate: float = 0.5
    drop_path_rate: float = 0.0
    train_size: int = 224
    eval_size: int = 224
    preprocessing: Preprocessing = CENTRED_127_5

    def __post_init__(self) -> None:
        names = ("cells_per_stack", "penultimate_filters", "stem_filters", "filter_multiplier")
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"NASNetSpec: `{name}` must be a positive integer. Received: {value!r}."
                )
        if self.stem_stride not in (1, 2):
            raise ValueError(
                f"NASNetSpec: `stem_stride` must be 1 or 2. Received: {self.stem_stride!r}."
            )
        if not isinstance(self.stem_reductions, int) or self.stem_reductions < 0:
            raise ValueError(
                "NASNetSpec: `stem_reductions` must be 0 or a positive integer. Received: "
                f"{self.stem_reductions!r}."
            )
        for name in ("dropout_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"NASNetSpec: `{name}` must lie in [0, 1). Received: {getattr(self, name)}."
                )
        self._check_filters()

    def _check_filters(self) -> None:
        wanted = len(self.genotype.normal.output_states) * self.filter_multiplier ** (STACKS - 1)
        if self.penultimate_filters % wanted:
            below = self.penultimate_filters // wanted * wanted
            nearest = [n for n in (below, below + wanted) if n]
            raise ValueError(
                f"NASNetSpec: `penultimate_filters` must be a multiple of {wanted} (outputs of "
                "the normal cell times `filter_multiplier` squared). Received: "
                f"{self.penultimate_filters}; near it: {', '.join(map(str, nearest))}."
            )
        if self.filters < self.filter_multiplier**self.stem_reductions:
            raise ValueError(
                f"NASNetSpec: `penultimate_filters` {self.penultimate_filters} makes the first "
                f"stack {self.filters} filters wide, which leaves none for the "
                f"{self.stem_reductions} reduction cells of the stem. Raise it, or lower "
                "`stem_reductions`."
            )

    @property
    def filters(self) -> int:
        """Width of the operations in the first stack."""
        outputs = len(self.genotype.normal.output_states)
        return self.penultimate_filters // (outputs * self.filter_multiplier ** (STACKS - 1))

    @property
    def cell_count(self) -> int:
        """All cells, those of the stem and the reduction cells included."""
        return self.stem_reductions + STACKS * self.cells_per_stack + STACKS - 1

    def drop_path_rates(self, last_rate: float) -> list[float]:
        """The rate of each cell: growing linearly up to `last_rate` at the last."""
        return [last_rate * (i + 1) / self.cell_count for i in range(self.cell_count)]


NASNET_MOBILE = NASNetSpec(name="nasnet-mobile", cells_per_stack=4, penultimate_filters=1056)
NASNET_LARGE = NASNetSpec(
    name="nasnet-large",
    cells_per_stack=6,
    penultimate_filters=4032,
    stem_filters=96,
    skip_reduction=True,
    drop_path_rate=0.3,
    train_size=331,
    eval_size=331,
    preprocessing=Preprocessing(
        mean=(127.5,), std=(127.5,), crop_padding=47, interpolation="bilinear"
    ),
)

NASNETS: dict[str, NASNetSpec] = {spec.name: spec for spec in (NASNET_MOBILE, NASNET_LARGE)}
