"""Whether options of a recipe have the types that a kind of source says it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from effnetv2_tf.data.sources.base import DataError


def check_types(kind: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises a `DataError` for an option of a type that the factory's signature does not have.

    Args:
        kind: name of the kind of source, for the message.
        factory: a function or a class.
        options: by name; all must be arguments of the factory. Lists stand for tuples.
    """
    types = inspect.signature(factory, eval_str=True).parameters
    for name, value in options.items():
        plain = tuple(value) if isinstance(value, list) else value
        try:
            TypeAdapter(types[name].annotation).validate_python(plain, strict=True)
        except ValidationError as error:
            raise DataError(
                f"option {name!r} has another type",
                expected=inspect.signature(factory).parameters[name].annotation,
                received=repr(value),
                path=kind,
            ) from error
