"""Compares the networks with the real reference implementations, on the same random weights.

    python benchmarks/parity.py --networks=efficientnet-b0,efficientnetv2-b0 --sizes=64,75

References: keras.applications; timm and torchvision, with PyTorch, where they are installed;
google/automl, where --automl names a checkout's folder `efficientnetv2` (its code needs
TensorFlow up to 2.15 and tensorflow-addons). Each network gets random weights there, batch-norm
statistics included, is saved in its own format, and loaded by `load_weights`. Reported: the
largest difference of logits over the largest logit, for normalised random images at every size.
What cannot be compared is said with the reason. A difference over 1e-4, or one that is no number,
ends it with code 1, as does a run in which nothing could be compared.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _measure import check_names
from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure
from effnetv2_tf.models.families import SPECS

_NETWORKS = flags.DEFINE_list(
    "networks", "efficientnet-b0,efficientnetv2-b0", "Names in effnetv2_tf.models.families.SPECS."
)
_SIZES = flags.DEFINE_list("sizes", "64,75", "Image sides in pixels.")
_AUTOML = flags.DEFINE_string("automl", None, "Folder efficientnetv2 of google/automl's checkout.")

TOLERANCE = 1e-4
Predict = Callable[[np.ndarray], np.ndarray]


class NotCompared(Exception):
    """The reference is not installed, or has no such network."""


def random_value(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A value for what a fresh network leaves at 0 or 1: `scale`, `offset`, `mean`, `variance`."""
    low, high = {"scale": (0.5, 1.0), "variance": (0.5, 1.5)}.get(kind, (-0.1, 0.1))
    return rng.uniform(low, high, shape).astype("float32")


def our_network(name: str, weights: Any, padding: str = "same") -> Predict:
    """Our network with the weights of a reference; images are normalised already."""
    from effnetv2_tf import build_network
    from effnetv2_tf.weights import load_weights

    spec = replace(SPECS[name], padding=padding)
    model = build_network(spec, classifier_activation=None, include_preprocessing=False)
    load_weights(model, weights, spec)
    return lambda images: np.asarray(model(images))


def keras_applications(name: str, size: int, folder: Path) -> Iterator[tuple[Predict, Predict]]:
    """keras.applications, through a live model: it pads by the size it was built with."""
    import keras

    from effnetv2_tf.weights.keras_applications import from_keras_applications
    from effnetv2_tf.weights.keras_published import PUBLISHED

    if name not in PUBLISHED:
        raise NotCompared("it has no such network")
    source = getattr(keras.applications, PUBLISHED[name][0])(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    rng = np.random.default_rng(0)
    kinds = {"gamma": "scale", "moving_variance": "variance", "beta": "offset"}
    kinds |= {"moving_mean": "mean", "bias": "offset"}
    for variable in source.weights:
        kind = kinds.get(variable.name.rpartition("/")[2].removesuffix(":0"))
        if kind:
            variable.assign(random_value(kind, tuple(variable.shape), rng))
    model, _ = from_keras_applications(source)
    # These two take pixels: V1 and V2 of Keras normalise them within the network.
    yield (
        lambda images: np.asarray(model(images * 64 + 128)),
        lambda images: np.asarray(source(images * 64 + 128, training=False)),
    )


def timm(name: str, size: int, folder: Path) -> Iterator[tuple[Predict, Predict]]:
    """timm: the networks with TensorFlow's padding, and those with PyTorch's."""
    torch, timm_package = _imported("torch", "timm")
    family, _, variant = name.partition("-")
    available = set(timm_package.list_models())
    found = False
    for prefix, padding in (("tf_", "same"), ("", "symmetric")):
        their_name = f"{prefix}{family}_{variant}"
        if their_name in available:
            found = True
            source = timm_package.create_model(their_name, pretrained=False)
            yield _from_pytorch(torch, source, name, padding, folder / f"{their_name}.pth")
    if not found:
        raise NotCompared("it has no such network")


def torchvision(name: str, size: int, folder: Path) -> Iterator[tuple[Predict, Predict]]:
    """torchvision, which pads as PyTorch does."""
    torch, package = _imported("torch", "torchvision")
    their_name = name.replace("efficientnetv2-", "efficientnet_v2_").replace("-", "_")
    constructor = getattr(package.models, their_name, None)
    if constructor is None:
        raise NotCompared("it has no such network")
    path = folder / f"{their_name}.pth"
    yield _from_pytorch(torch, constructor(weights=None), name, "symmetric", path)


def _from_pytorch(
    torch: Any, source: Any, name: str, padding: str, path: Path
) -> tuple[Predict, Predict]:
    rng = np.random.default_rng(0)
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            tensors = {"scale": module.weight, "offset": module.bias}
            tensors |= {"mean": module.running_mean, "variance": module.running_var}
            for kind, tensor in tensors.items():
                value = random_value(kind, tuple(tensor.shape), rng)
                tensor.data.copy_(torch.from_numpy(value))
    source.eval()
    torch.save(source.state_dict(), path)

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
            return source(batch).numpy()

    return our_network(name, path, padding), predict


def automl(name: str, size: int, folder: Path) -> Iterator[tuple[Predict, Predict]]:
    """google/automl's V1 and V2, through a checkpoint by its variables' names."""
    import tensorflow as tf

    if _AUTOML.value is None:
        raise NotCompared("not installed: pass --automl=.../automl/efficientnetv2")
    if _AUTOML.value not in sys.path:
        sys.path.insert(0, _AUTOML.value)
    (package,) = _imported("effnetv2_model")
    tf.keras.backend.clear_session()  # or a second network's variables are called `stem_1/...`
    try:
        source = package.get_model(name, weights=None, training=False)
    except ValueError as error:
        raise NotCompared(f"it has no such network: {error}") from error
    source(tf.zeros((1, size, size, 3)), training=False)
    rng = np.random.default_rng(0)
    tensors = {}
    kinds = {"gamma": "scale", "beta": "offset", "bias": "offset"}
    kinds |= {"moving_mean": "mean", "moving_variance": "variance"}
    for variable in source.weights:
        path = variable.name.removesuffix(":0")
        kind = kinds.get(path.rpartition("/")[2])
        if kind:
            variable.assign(random_value(kind, tuple(variable.shape), rng))
        tensors[path if path.startswith(name) else f"{name}/{path}"] = variable.numpy()
    prefix = folder / f"{name}.ckpt"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    yield our_network(name, prefix), lambda images: source(images, training=False).numpy()


def _imported(*names: str) -> list[Any]:
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise NotCompared(f"not installed: {error}") from error


REFERENCES: dict[str, Callable[[str, int, Path], Iterator[tuple[Predict, Predict]]]] = {
    "keras.applications": keras_applications,
    "timm": timm,
    "torchvision": torchvision,
    "google/automl": automl,
}


def compare(name: str, reference: str, size: int) -> list[float]:
    """Relative differences of the logits, for each form of the network the reference has."""
    images = np.random.default_rng(size).normal(0, 1, (2, size, size, 3)).astype("float32")
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        for ours, theirs in REFERENCES[reference](name, size, Path(folder)):
            expected = theirs(images)
            difference = np.abs(ours(images) - expected).max() / np.abs(expected).max()
            differences.append(float(difference))
    return differences


def check_differences(differences: Sequence[float]) -> None:
    """Raises a TrainingFailure unless there are differences and all of them are small."""
    if not differences:
        raise TrainingFailure("Nothing was compared: see the reasons above.")
    worst = float(np.max(differences))  # NaN if one is
    if not worst <= TOLERANCE:
        raise TrainingFailure(f"The largest difference is {worst:.2e}; expected {TOLERANCE:g}.")


def main() -> None:
    check_names(_NETWORKS, SPECS)
    sizes = programs.parse_sizes("sizes", _SIZES.value)
    programs.import_tensorflow()
    print(f"{'network':18s} {'reference':20s} {'size':>5s} {'max relative difference':>24s}")
    found: list[float] = []
    for name in _NETWORKS.value:
        for reference in REFERENCES:
            for size in sizes:
                try:
                    differences = compare(name, reference, size)
                except NotCompared as reason:
                    print(f"{name:18s} {reference:20s}       {reason}", flush=True)
                    break
                for difference in differences:
                    line = f"{name:18s} {reference:20s} {size:5d} {difference:24.2e}"
                    print(line, flush=True)
                found += differences
    check_differences(found)


if __name__ == "__main__":
    programs.run(main)
