"""What a network is, as a table and as plain values: what `python -m effnetv2_tf.describe` prints.

From a spec nothing is built and TensorFlow is not imported: a table of all networks takes no
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.nasnet_specs import NASNetSpec
from effnetv2_tf.models.specs import NetworkSpec, normalization_text
from effnetv2_tf.models.stage_costs import ImageSize, StageRow, image_sides, spec_stages, totals
from effnetv2_tf.reporting.numbers import short_count

_INPUT_RANGE = (0, 255)


@dataclass(frozen=True)
class Description:
    """A network's stages, costs and preprocessing.

    Attributes:
      name: of the network.
      image_size: (height, width) in pixels to which sizes and multiply-adds belong.
      stages: see `stage_costs.StageRow`.
      preprocessing: plain values, see `spec_preprocessing`; keys may be missing where a file
        does not say.
      origin: where the weights come from; None of a spec.
      settings: further plain values by name, such as the dropout rate.
    """

    name: str
    image_size: tuple[int, int]
    stages: tuple[StageRow, ...]
    preprocessing: Mapping[str, Any]
    origin: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Numbers held, the batch norms' moving statistics included."""
        return totals(self.stages)[0]

    @property
    def multiply_adds(self) -> int:
        """For one image, see `models.flops`."""
        return totals(self.stages)[1]

    @property
    def title(self) -> str:
        """One line: name, size and costs."""
        return (
            f"{self.name} at {_sides_text(self.image_size)}: "
            f"{short_count(self.parameters)} parameters, "
            f"{short_count(self.multiply_adds)} multiply-adds"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "origin": self.origin,
            "image_size": list(self.image_size),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "stages": [asdict(row) for row in self.stages],
            "preprocessing": dict(self.preprocessing),
            "settings": dict(self.settings),
        }

    def text(self) -> str:
        """The table of the stages, then how images are prepared."""
        header = ("stage", "block", "kernel", "stride", "output", "channels", "repeats")
        rows: list[tuple[str, ...]] = [(*header, "parameters", "multiply-adds")]
        rows += [_stage_cells(row) for row in self.stages]
        total = ("",) * (len(header) - 1)
        cost = f"{self.multiply_adds:,}"
        rows.append(("total", *total, f"{self.parameters:,}", cost))
        lines = [self.title, "", *_table(rows, left_columns=2), ""]
        if self.origin is not None:
            lines.append(f"Weights: {self.origin}")
        lines += _preprocessing_lines(self.preprocessing)
        lines += [f"{name.capitalize()}: {value}" for name, value in self.settings.items()]
        return "\n".join(lines)


def describe_spec(spec: NetworkSpec, image_size: ImageSize | None = None) -> Description:
    """The network of a spec, with 1000 classes.

    Args:
      spec: of the network.
      image_size: side in pixels, or (height, width); None for the spec's `eval_size`.
    """
    return Description(
        name=spec.name,
        image_size=image_sides(spec.eval_size if image_size is None else image_size),
        stages=spec_stages(spec, image_size),
        preprocessing=spec_preprocessing(spec),
        settings={
            "trained at": f"{spec.train_size} px",
            "evaluated at": f"{spec.eval_size} px",
            "activation": spec.activation,
            "dropout": spec.dropout_rate,
            "stochastic depth": f"0 at the first block to {spec.drop_path_rate:g} at the last",
        },
    )


def describe_nasnet(spec: NASNetSpec, image_size: ImageSize | None = None) -> Description:
    """The NASNet of a spec, with 1000 classes; it is built, which takes seconds.

    Args:
      spec: of the network.
      image_size: side in pixels, or (height, width); None for the spec's `eval_size`.
    """
    from effnetv2_tf.models.flops import stage_table
    from effnetv2_tf.models.nasnet import build_nasnet

    sides = image_sides(spec.eval_size if image_size is None else image_size)
    return Description(
        name=spec.name,
        image_size=sides,
        stages=stage_table(build_nasnet(spec), sides),
        preprocessing=spec_preprocessing(spec),
        settings={
            "trained at": f"{spec.train_size} px",
            "evaluated at": f"{spec.eval_size} px",
            "dropout": spec.dropout_rate,
            "drop path": f"growing to {spec.drop_path_rate:g} at the last cell",
        },
    )


def describe_run(model_dir: str | Path, image_size: int | None = None) -> Description:
    """The network of a training run.

    Args:
      model_dir: see `export.loading.load_model_dir`.
      image_size: side in pixels; None for the recipe's evaluation size.

    Raises:
      UsageError: if there is no such run, or it has no checkpoint yet.
    """
    from effnetv2_tf.export.loading import load_model_dir
    from effnetv2_tf.models.flops import stage_table

    run = load_model_dir(model_dir)
    size = image_size or run.preparation.image_size
    preparation = run.preparation.as_dict()
    return Description(
        name=run.model.name,
        image_size=(size, size),
        stages=stage_table(run.model, size),
        preprocessing={
            "input_range": list(_INPUT_RANGE),
            "normalization": _normalization(run.model),
            **{key: preparation[key] for key in ("crop", "crop_padding", "interpolation")},
        },
        origin=run.origin,
        settings={"classes": len(run.labels)},
    )


def describe_file(path: str | Path, image_size: int | None = None) -> Description:
    """The model in a `.keras` file.

    Args:
      path: of the file.
      image_size: side in pixels; None for the model's own, if it has one.

    Raises:
      UsageError: if the file cannot be loaded, no size is known, or a layer is not known.
    """
    from effnetv2_tf.loading import open_keras_file
    from effnetv2_tf.models.flops import stage_table

    model = open_keras_file(Path(path), "--file")
    own = tuple(model.input_shape[1:3])
    sides = own if image_size is None else (image_size, image_size)
    if None in sides:
        raise UsageError(
            f"--image_size: expected the side in pixels at which {path} is used, which takes "
            "images of any size; received none"
        )
    try:
        stages = stage_table(model, sides)
    except ValueError as error:
        raise UsageError(f"--file: {path}: {error}") from error
    normalization = _normalization(model)
    return Description(
        name=model.name,
        image_size=image_sides(sides),
        stages=stages,
        preprocessing={"normalization": normalization} if normalization else {},
        origin=str(path),
    )


def _normalization(model: Any) -> dict[str, list[float]] | None:
    """Mean and standard deviation of the normalisation inside a model, if it has one."""
    from effnetv2_tf.models.layers import InputNormalization

    for layer in model.layers:
        if isinstance(layer, InputNormalization):
            return {"mean": list(layer.mean), "std": list(layer.std)}
    return None


def spec_preprocessing(spec: NetworkSpec | NASNetSpec) -> dict[str, Any]:
    """How images are prepared for the network of a spec, as plain values."""
    preprocessing = spec.preprocessing
    return {
        "input_range": list(_INPUT_RANGE),
        "normalization": {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
        "crop": preprocessing.crop,
        "crop_padding": preprocessing.crop_padding,
        "interpolation": preprocessing.interpolation,
    }


def list_text(specs: Iterable[NetworkSpec]) -> str:
    """A table of networks, a row each, at their evaluation sizes."""
    rows = [("network", "parameters", "multiply-adds", "trained at", "evaluated at")]
    for spec in specs:
        parameters, multiply_adds = totals(spec_stages(spec))
        sizes = (f"{spec.train_size} px", f"{spec.eval_size} px")
        rows.append((spec.name, f"{parameters:,}", short_count(multiply_adds), *sizes))
    return "\n".join(_table(rows, left_columns=1))


def list_values(specs: Iterable[NetworkSpec | NASNetSpec]) -> list[dict[str, Any]]:
    """The same as plain values, for JSON; costs are None for NASNets, which are not built here."""
    values = []
    for spec in specs:
        parameters, multiply_adds = (
            totals(spec_stages(spec)) if isinstance(spec, NetworkSpec) else (None, None)
        )
        values.append(
            {
                "name": spec.name,
                "parameters": parameters,
                "multiply_adds": multiply_adds,
                "train_size": spec.train_size,
                "eval_size": spec.eval_size,
            }
        )
    return values


def _stage_cells(row: StageRow) -> tuple[str, ...]:
    block = row.block
    if row.expansion is not None:
        block += f", expansion {row.expansion}"
    if row.se_ratio:
        block += f", SE {row.se_ratio:g}"
    return (
        row.name,
        block,
        "" if row.kernel_size is None else "x".join(map(str, row.kernel_size)),
        _stride_text(row),
        "" if row.output_size == (1, 1) else "x".join(map(str, row.output_size)),
        str(row.channels),
        str(row.repeats),
        f"{row.parameters:,}",
        f"{row.multiply_adds:,}",
    )


def _stride_text(row: StageRow) -> str:
    if row.strides is None:
        return ""
    different = dict.fromkeys(row.strides)  # one number where rows and columns agree
    return "x".join(map(str, different))


def _table(rows: Sequence[Sequence[str]], left_columns: int) -> list[str]:
    """Lines of a table whose first row is its header; columns after the first few align right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if column < left_columns else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _preprocessing_lines(preprocessing: Mapping[str, Any]) -> list[str]:
    normalization = preprocessing.get("normalization")
    if normalization is None:
        lines = ["Input: as the model's first layers expect it"]
    else:
        computed = normalization_text(normalization["mean"], normalization["std"], "x")
        lines = [f"Input: pixels in [0, 255]; the network computes {computed}"]
    if "crop" in preprocessing:
        padding = preprocessing["crop_padding"]
        crop = {
            "center": f"centre crop, size / (size + {padding}) of the shorter side",
            "none": "the whole image, stretched to the square",
        }[preprocessing["crop"]]
        lines.append(f"Evaluation: {crop}, {preprocessing['interpolation']}")
    return lines


def _sides_text(sides: tuple[int, int]) -> str:
    return f"{sides[0]} px" if sides[0] == sides[1] else f"{sides[0]} x {sides[1]} px"
