"""Compiles this package's own operations: `python -m effnetv2_tf.kernels`.

Training on CPUs uses them from then on. Needs a C++ compiler, and about 20 seconds, once for each
version of TensorFlow; the library lies in the user's cache (see `compiler.library_path`).
"""

from __future__ import annotations

from absl import flags

from effnetv2_tf import programs
from effnetv2_tf.errors import TrainingFailure, UsageError

_IF_POSSIBLE = flags.DEFINE_bool(
    "if_possible", False, "Without a compiler say so and end well, as it is not needed."
)


def main() -> None:
    """Compiles, tries and reports."""
    programs.import_tensorflow()
    from effnetv2_tf.kernels import operations
    from effnetv2_tf.kernels.compiler import compile_library

    try:
        path = compile_library()
    except (TrainingFailure, UsageError) as error:
        if not _IF_POSSIBLE.value:
            raise
        print(f"Not compiled, training is slower: {error}")
        return
    state = "in use" if operations.in_use() else "not in use here"
    print(f"{path}: {state}")


if __name__ == "__main__":
    programs.run(main)
