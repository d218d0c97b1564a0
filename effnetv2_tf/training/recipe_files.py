"""Reading recipes, overriding single keys, and saying in one line what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from effnetv2_tf.errors import UsageError, suggestion
from effnetv2_tf.training.recipe import Recipe

# PyYAML lets through what Python says of values that look like a date or a number and are none,
# as 2020-13-45 or !!int "", and of lists in lists without end.
_YAML_ERRORS = (yaml.YAMLError, ValueError, IndexError, AttributeError, RecursionError)
_WITH_EXPONENT = re.compile(r"\d+(\.\d*)?[eE]\+?\d")
SectionType = TypeVar("SectionType", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently take the second."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return node


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a YAML recipe; each override is `section.key=value`, the value in YAML.

    A path that does not exist is looked for among the recipes that come with the package,
    so `configs/quickstart.yaml` works from any folder.

    Raises:
      UsageError: one line that names the file and the key, what was expected and received,
        and the nearest valid name.
    """
    path = find_file(Path(path))
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_recipe(tree, str(path))


def read_tree(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file of sections; see `load_recipe` for errors."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a text file in UTF-8") from error
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not valid YAML: {_problem(error)}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: expected a mapping of sections, received {_kind(tree)}")
    return tree


def parse_recipe(tree: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Checks a tree of plain values; see `load_recipe` for errors."""
    return parse_section(Recipe, tree, origin)


def parse_section(section: type[SectionType], tree: dict[str, Any], origin: str) -> SectionType:
    """Checks a tree of plain values against any section; see `load_recipe` for errors."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{origin}: {_describe(error, section)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def packaged_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by file name."""
    files = _packaged_files()
    return {name: path for name, path in files.items() if not name.startswith("search_")}


def _packaged_files() -> dict[str, Path]:
    import effnetv2_tf.configs as configs

    return {
        path.name: path
        for folder in configs.__path__
        for path in sorted(Path(folder).glob("*.yaml"))
    }


def find_file(path: Path) -> Path:
    """A YAML file as it is, or the one of that name that comes with the package.

    Raises:
      UsageError: if there is neither.
    """
    if path.is_file():
        return path
    packaged = _packaged_files()
    if path.name in packaged and path.parent.name in ("", "configs"):
        return packaged[path.name]
    raise UsageError(
        f"--config: expected a recipe file, received {str(path)!r}, which "
        f"{'is a folder' if path.is_dir() else 'does not exist'}"
        f"{suggestion(path.name, packaged)}"
    )


def apply_override(tree: dict[str, Any], override: str, flat: Sequence[str] = ()) -> None:
    """Puts the value of `section.key=value` into a tree of plain values.

    Args:
      tree: that is changed.
      override: as the user gave it.
      flat: sections whose own keys have dots.

    Raises:
      UsageError: if it is not of that form, or the section is none.
    """
    keys, separator, text = override.partition("=")
    section, dot, key = keys.partition(".")
    *parents, last = (section, key) if dot and section in flat else keys.split(".")
    if not separator or "" in (*parents, last):
        raise UsageError(f"--set: expected section.key=value, received {override!r}")
    try:
        value = yaml.load(text, _UniqueKeyLoader)
    except _YAML_ERRORS as error:
        raise UsageError(f"--set {keys}: not valid YAML: {text!r}: {_problem(error)}") from error
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise UsageError(f"--set {keys}: {key!r} is no section")
    node[last] = value


def _problem(error: Exception) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def _describe(error: ValidationError, root: type[BaseModel]) -> str:
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        names = _names_beside(first["loc"], root)
        hint = suggestion(str(first["loc"][-1]), names) or f"; known: {', '.join(names)}"
        return f"{key}: unknown key{hint}{more}"
    if first["type"] == "missing":
        return f"{key}: expected a value, received none: the key is missing{more}"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        name = message.partition(":")[0]  # of a key, where a whole section was looked at
        is_key = name in _names_beside((*first["loc"], name), root)
        return (f"{key}{'.' if is_key else ': '}{message}" if key else message) + more
    expected = first["msg"][0].lower() + first["msg"][1:]
    if first["type"] == "model_type":
        expected = "expected a mapping of keys to values"
    where = f"{key}: " if key else ""
    return f"{where}{expected}, received {first.get('input')!r}{_hint(first)}{more}"


def _hint(problem: Any) -> str:
    """What may have been meant by a value that is none of those allowed; or an empty string."""
    received = problem.get("input")
    if not isinstance(received, str):
        return ""
    if problem["type"] == "literal_error":
        return suggestion(received, re.findall("'([^']*)'", problem["ctx"]["expected"]))
    if problem["type"] == "int_parsing" and _WITH_EXPONENT.fullmatch(received):
        return f"; YAML takes {received} for text: write {float(received):.0f}"
    return ""


def _names_beside(location: tuple, root: type[BaseModel]) -> list[str]:
    """The valid names at the place where an unknown key stands."""
    section = root
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(str(part))
        found = _section_in(field.annotation) if field else None
        if found is None:
            break
        section = found
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _section_in(part)
        if found is not None:
            return found
    return None


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
