"""State dicts of PyTorch's EfficientNets: timm's, torchvision's and efficientnet-pytorch's.

    file = pytorch.read("tf_efficientnetv2_s-eb54923e.pth", spec)
    report = load_tensors(model, pytorch.origins(spec, file), file)

V1, V2 and Lite are covered. Layouts are turned (OIHW to HWIO); what a state dict does not say
is taken from where the weights come from, see `pytorch_origin`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from effnetv2_tf.errors import UsageError
from effnetv2_tf.models.specs import NetworkSpec
from effnetv2_tf.weights.mapping import Origins, WeightFile
from effnetv2_tf.weights.pytorch_names import NoSuchNetwork, naming_of, network_origins
from effnetv2_tf.weights.pytorch_origin import provenance
from effnetv2_tf.weights.torch_files import read_state_dict
from effnetv2_tf.weights.variants import matching_row

# Last parts of the names of tensors that hold no weights.
_COUNTERS = {
    "num_batches_tracked": "counts training steps; the moving averages here need no count",
    "n_averaged": "counts averaging steps",
}


def read(path: str | Path, spec: NetworkSpec, prefer_averages: bool = True) -> WeightFile:
    """Reads a `.safetensors`, `.pth`, `.pt` or `.bin` file; no code in it is run.

    Args:
      path: of the file: a state dict, or a training checkpoint that contains one.
      spec: of the network that is to take the weights.
      prefer_averages: whether the moving averages of a checkpoint that has them are read rather
        than its raw weights; `WeightFile.source` names the entry.

    Raises:
      UsageError: if the file is missing, damaged, asks for code to be run, holds no
        EfficientNet, or one that this package does not have.
    """
    path = Path(path)
    state = read_state_dict(path, prefer_averages)
    naming = naming_of(state.tensors, str(path))
    _refuse_relatives(spec, state.tensors, path)
    known = provenance(naming, spec, path, state.architecture)
    return WeightFile(
        source=f"{naming.source}, {state.container}" if state.container else naming.source,
        path=str(path),
        tensors=state.tensors,
        left_out=_counters(state.tensors),
        preprocessing=known.preprocessing,
        padding=known.padding,
        batch_norm_epsilon=known.batch_norm_epsilon,
        notes=known.notes,
    )


def origins(spec: NetworkSpec, file: WeightFile) -> Origins:
    """Where every variable of the spec's network is in a file that `read` returned.

    Raises:
      UsageError: if the file's implementation has no network of this spec's kind: torchvision,
        for one, has no Lite networks.
    """
    naming = naming_of(file.tensors, file.path)
    try:
        return network_origins(naming, spec)
    except NoSuchNetwork as error:
        shapes = [array.shape for name, array in file.tensors.items() if name not in file.left_out]
        row = matching_row(shapes)
        known = f"those of {row.name!r}: build that network instead" if row else "of another kind"
        raise UsageError(
            f"Weights file {file.path!r} ({file.source}) does not fit {spec.name!r}: {error}. "
            f"Its tensors are {known}."
        ) from error


def _counters(names: Iterable[str]) -> dict[str, str]:
    ends = {name: name.rpartition(".")[2] for name in names}
    return {name: _COUNTERS[end] for name, end in ends.items() if end in _COUNTERS}


def _refuse_relatives(spec: NetworkSpec, names: Collection[str], path: Path) -> None:
    """Networks in timm that are called EfficientNetV2 and are others."""
    first = spec.stages[0]
    is_papers = (first.block, first.expansion) == ("fused", 1)
    if is_papers and "blocks.0.0.conv_pwl.weight" in names:
        raise UsageError(
            f"Weights file {str(path)!r}: the blocks of its first stage have a projection, as in "
            "timm's efficientnetv2_rw_* and the EdgeTPU networks, but not in the paper's "
            "EfficientNetV2. Pass weights of timm's tf_efficientnetv2_*."
        )
