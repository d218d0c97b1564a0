"""Branches of an input pipeline as calls, so that only the one taken costs time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_CONDITIONALS = ("Case", "If", "StatelessCase", "StatelessIf")


def branches_as_calls(function: Callable) -> Callable:
    """Has a dataset's function call the branches of its `tf.cond` and `tf.switch_case`.

    TensorFlow otherwise merges all branches into the graph around them and, at each example, goes
    through the operations of those that are not taken as well: for one that is decoded and
    augmented some thousand, an eighth of its time. Branches within a branch are merged into
    that one, as is usual. Called eagerly the function is as before.
    """

    @functools.wraps(function)
    def with_calls(*args: Any) -> Any:
        results = function(*args)
        if tf.inside_function():
            for operation in tf.compat.v1.get_default_graph().get_operations():
                if operation.type in _CONDITIONALS:
                    # TensorFlow has the attribute, but no public argument that sets it.
                    operation._set_attr(
                        "_lower_using_switch_merge", tf.compat.v1.AttrValue(b=False)
                    )
        return results

    return with_calls
