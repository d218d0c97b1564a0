"""Operations of this package's own, in C++: optional, compiled on request.

`python -m effnetv2_tf.kernels` compiles them, `operations` hands them out.
"""

from __future__ import annotations


def load() -> None:
    """Loads the operations into this process, for SavedModels that were exported with them.

    Raises:
      UsageError: if they are not compiled.
    """
    # Here: programs set TensorFlow's environment before it is imported.
    from effnetv2_tf.kernels import operations

    operations.load()
