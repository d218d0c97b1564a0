"""From a recipe's model section to a spec, and to the Keras model that is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, TypeVar

import keras
import numpy as np

from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.models import transfer
from effnetv2_tf.models.families import SPECS
from effnetv2_tf.models.input_range import EfficientNet
from effnetv2_tf.models.nasnet import build_nasnet
from effnetv2_tf.models.nasnet_specs import NASNETS, STACKS, NASNetSpec
from effnetv2_tf.models.network import build_network
from effnetv2_tf.models.scaling import total_stride
from effnetv2_tf.models.specs import NetworkSpec, Preprocessing, StageSpec
from effnetv2_tf.training.auxiliary import main_network, to_be_trained_as_one
from effnetv2_tf.training.model_section import ModelSection
from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.weights import WeightReport, load_weights

# Keys that no row has, of either kind of network.
_OF_NO_ROW = ("weights", "new_classifier", "classifier_initializer", "synchronized_batch_norm")
_ADVICE = re.compile(r"Pass [^.]*(?:include_top|input_shape)[^.]*\.")
Row = TypeVar("Row", NetworkSpec, NASNetSpec)


def model_spec(section: ModelSection) -> NetworkSpec | NASNetSpec:
    """The named spec, of whatever kind, with the recipe's replacements.

    Raises:
      UsageError: if there is no such network, or one that cannot be.
    """
    return _nasnet_spec(section) if section.name in NASNETS else network_spec(section)


def network_spec(section: ModelSection) -> NetworkSpec:
    """The named EfficientNet's spec with the recipe's replacements.

    Raises:
      UsageError: if there is no such EfficientNet, or one that cannot be.
    """
    if section.name in NASNETS:
        raise UsageError(f"model.name: expected an EfficientNet here, received {section.name!r}")
    if section.name not in SPECS:
        known = [*SPECS, *NASNETS]
        hint = suggestion(section.name, known) or f"; known: {', '.join(known)}"
        raise UsageError(f"model.name: unknown network {section.name!r}{hint}")
    row = SPECS[section.name]
    _refuse_keys_of_others(section, row)
    replaced: dict[str, Any] = {}
    if section.stages is not None:
        replaced["stages"] = tuple(StageSpec(**dict(stage)) for stage in section.stages)
    spec = _replaced(row, section, replaced)
    _refuse_keys_of_other_norms(section, spec)
    return spec


def _refuse_keys_of_other_norms(section: ModelSection, spec: NetworkSpec) -> None:
    """Raises a UsageError for a key that is of another norm than the network's."""
    given = {
        "batch_norm_momentum": section.batch_norm_momentum is not None,
        "synchronized_batch_norm": section.synchronized_batch_norm,
    }
    for name, is_given in given.items():
        if is_given and spec.normalization != "batch":
            raise UsageError(
                f"model.{name}: expected none with model.normalization {spec.normalization!r}, "
                "which keeps no statistics of batches; received one"
            )
    if section.normalization_groups is not None and spec.normalization != "group":
        raise UsageError(
            "model.normalization_groups: expected model.normalization to be 'group' beside it, "
            f"received {spec.normalization!r}, which has no groups"
        )


def _nasnet_spec(section: ModelSection) -> NASNetSpec:
    row = NASNETS[section.name]
    _refuse_keys_of_others(section, row, also=("filters",))
    genotype = row.genotype if section.genotype is None else section.genotype.genotype
    replaced: dict[str, Any] = {"genotype": genotype}
    if section.penultimate_filters is None:
        multiplier = section.filter_multiplier or row.filter_multiplier
        filters = section.filters or row.filters
        outputs = len(genotype.normal.output_states)
        replaced["penultimate_filters"] = filters * outputs * multiplier ** (STACKS - 1)
    return _replaced(row, section, replaced)


def _replaced(row: Row, section: ModelSection, replaced: dict[str, Any]) -> Row:
    """`row` with `replaced`, and with the section's other values."""
    for field in fields(row):
        value = getattr(section, field.name, None)
        if field.name != "name" and value is not None:
            replaced.setdefault(field.name, value)
    if section.preprocessing is not None:
        replaced["preprocessing"] = Preprocessing(**dict(section.preprocessing))
    try:
        return replace(row, **replaced)
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def _refuse_keys_of_others(
    section: ModelSection, row: NetworkSpec | NASNetSpec, also: Collection[str] = ()
) -> None:
    """Raises a UsageError for a key of the other kind of network, which would do nothing."""
    own = {field.name for field in fields(row)} | {*_OF_NO_ROW, *also}
    for name, value in section:
        if name not in own and value is not None:
            kind = "a NASNet" if isinstance(row, NASNetSpec) else "no NASNet"
            raise UsageError(
                f"model.{name}: expected none with {row.name!r}, which is {kind}; received one"
            )


def _check_modulo(recipe: Recipe, spec: NetworkSpec | NASNetSpec) -> None:
    """Raises a UsageError where a reduced resolution would put padding elsewhere."""
    section = recipe.reduced_resolution
    if section is None or isinstance(spec, NASNetSpec):
        return
    stride = total_stride(spec)
    if section.modulo % stride:
        raise UsageError(
            f"reduced_resolution.modulo: expected a multiple of {stride}, the total stride of "
            f"{spec.name!r}, received {section.modulo}: with other sizes padding lies differently"
        )


def build_model(recipe: Recipe, num_classes: int, channels: int) -> keras.Model:
    """The recipe's network with freshly initialised (or the named file's) weights.

    With an auxiliary head it is an `AuxiliaryNetwork`, of which `main_network` gives what is
    evaluated, saved and exported.
    """
    section = recipe.model
    spec = model_spec(section)
    _check_modulo(recipe, spec)
    arguments: dict[str, Any] = {
        "classes": num_classes,
        "input_shape": (None, None, channels),
        "classifier_activation": recipe.training.loss,
        "classifier_initializer": "zeros" if section.classifier_initializer == "zeros" else None,
        "synchronized_batch_norm": section.synchronized_batch_norm,
    }
    try:
        if isinstance(spec, NetworkSpec):
            model = build_network(spec, **arguments)
        else:
            model = build_nasnet(spec, **arguments)
            if spec.auxiliary_head:
                model = to_be_trained_as_one(model)
        if section.weights is not None:
            _load(section, spec, main_network(model))
        return model
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def without_weights(recipe: Recipe) -> Recipe:
    """The same recipe, whose network begins with no file of weights: a checkpoint has them."""
    model = recipe.model.model_copy(update={"weights": None, "new_classifier": False})
    return recipe.model_copy(update={"model": model})


def _load(section: ModelSection, spec: NetworkSpec | NASNetSpec, model: keras.Model) -> None:
    """Loads the file of weights into a network."""
    known, target = None, model
    if isinstance(spec, NetworkSpec):
        known = spec
        target = transfer.backbone(model) if section.new_classifier else model
    elif section.new_classifier:
        features = model.get_layer("relu").output  # the last, before pooling
        target = EfficientNet(model.input, features)
    try:
        report = load_weights(target, section.weights, spec=known)
    except UsageError as error:
        raise UsageError(_in_recipe_words(str(error))) from error
    if report is not None:
        _check_described(spec, report, channels=model.input_shape[-1])
        print("\n".join([report.summary(), *report.notes]))


def _in_recipe_words(message: str) -> str:
    """A message of `load_weights` that names keys in place of a constructor's arguments."""
    advice = _ADVICE.search(message)
    if advice is None:
        return message
    channels = re.search(r"input_shape=\(None, None, (\d)\)", advice[0])
    keys = [f"data.channels: {channels[1]}"] if channels else []
    if "include_top" in advice[0]:
        keys.append("model.new_classifier: true")
    return message.replace(advice[0], f"Set {' and '.join(keys)}.")


def _check_described(spec: NetworkSpec | NASNetSpec, report: WeightReport, channels: int) -> None:
    """Refuses weights with a preprocessing or an epsilon that the recipe does not have.

    A network is rebuilt from its recipe when a run is resumed, evaluated or exported.
    """
    theirs = report.preprocessing and report.preprocessing.for_channels(channels)
    own = spec.preprocessing.for_channels(channels)
    trained, missing = [], []
    if theirs and not np.allclose([theirs.mean, theirs.std], [own.mean, own.std]):
        trained.append(f"images normalised by mean {theirs.mean} and std {theirs.std}")
        missing.append(f"preprocessing: {{mean: {list(theirs.mean)}, std: {list(theirs.std)}}}")
    epsilon = report.batch_norm_epsilon
    if epsilon is not None and not math.isclose(epsilon, spec.batch_norm_epsilon, rel_tol=1e-3):
        trained.append(f"batch norms with epsilon {epsilon:g}")
        missing.append(f"batch_norm_epsilon: {epsilon:g}")
    if missing:
        raise UsageError(
            f"these weights were trained with {' and '.join(trained)}; add {', '.join(missing)}"
        )
