"""Class names, as users give them and as artefacts carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effnetv2_tf.errors import UsageError
from effnetv2_tf.export.deploy_graph import DeployGraph

Labels = Sequence[str] | Mapping[str, int] | Mapping[int, str]


def checked_labels(labels: Labels | None, graph: DeployGraph) -> tuple[str, ...]:
    """The names of a network's classes; numbers if none are given, nothing without classes.

    Args:
      labels: in a list, or with their numbers in a dict; of a network with one probability
        those for no and for yes, or for yes alone.
      graph: the network.

    Raises:
      UsageError: if there are too many or too few, or they are no names.
    """
    if labels is None:
        return _numbers(graph) if graph.is_classifier else ()
    if not graph.has_classes:
        raise UsageError(
            f"--labels: expected none for a network whose outputs are {graph.output_name}"
        )
    names = _names_in_order(labels)
    if graph.is_classifier and graph.classes == 1:
        return no_and_yes(names)
    if len(names) != graph.classes:
        raise UsageError(f"--labels: expected {graph.classes} names, received {len(names)}")
    return names


def no_and_yes(names: Sequence[str]) -> tuple[str, str]:
    """The two names of a network with one probability, given both or that for yes alone.

    Raises:
      UsageError: for another number of names.
    """
    if len(names) == 1:
        return (f"not {names[0]}", names[0])
    if len(names) != 2:
        raise UsageError(
            "--labels: expected two names, for no and for yes, of a network with one "
            f"probability, received {len(names)}"
        )
    return (names[0], names[1])


def _numbers(graph: DeployGraph) -> tuple[str, ...]:
    classes = graph.classes or 0
    return tuple(map(str, range(2 if classes == 1 else classes)))


def _names_in_order(labels: Labels) -> tuple[str, ...]:
    """Class names by their numbers, also of a mapping from or to them, as Keras 2's was."""
    if isinstance(labels, str):
        raise UsageError(f"labels: expected a list of class names, received {labels!r}")
    names: list[Any] = list(labels)
    if isinstance(labels, Mapping):
        by_number: dict[Any, Any] = dict(labels)
        if all(isinstance(key, str) for key in labels):
            by_number = {number: name for name, number in labels.items()}
        if set(by_number) != set(range(len(labels))):
            raise UsageError(
                f"labels: expected a name for each of 0 to {len(labels) - 1}, received {labels}"
            )
        names = [by_number[number] for number in range(len(labels))]
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"labels: expected class names, received {name!r}")
    return tuple(map(encodable, names))


def encodable(name: str) -> str:
    """A name for files in UTF-8: what a folder's name has that is none is written as escapes."""
    return name.encode(errors="backslashreplace").decode()
