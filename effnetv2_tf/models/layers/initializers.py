"""Initial values of the reference implementation."""

from __future__ import annotations

import keras


def conv_initializer() -> keras.initializers.Initializer:
    """Normal with standard deviation sqrt(2 / (k * k * out)), not truncated."""
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )


def dense_initializer() -> keras.initializers.Initializer:
    """Uniform in +-1 / sqrt(out)."""
    return keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_out", distribution="uniform")
