"""ImageNet weights that keras.applications publishes, fetched and cached by Keras itself."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras

from effnetv2_tf.errors import UsageError

# Row of our families to the constructor in keras.applications and the stem of its file name.
PUBLISHED = {
    **{f"efficientnet-b{i}": (f"EfficientNetB{i}", f"efficientnetb{i}") for i in range(8)},
    **{
        f"efficientnetv2-{v}": (f"EfficientNetV2{v.upper()}", f"efficientnetv2-{v}")
        for v in ("b0", "b1", "b2", "b3", "s", "m", "l")
    },
}
_URL = "https://storage.googleapis.com"
_FOLDERS = {
    "efficientnet": "keras-applications",
    "efficientnetv2": "tensorflow/keras-applications/efficientnet_v2",
}


def fetch(row: str, include_top: bool) -> keras.Model:
    """The model of keras.applications with ImageNet weights, which Keras fetches and caches.

    Args:
      row: a key of `PUBLISHED`.
      include_top: with or without the classifier: these are different files.

    Raises:
      UsageError: if Keras has no cached file and cannot fetch it.
    """
    constructor, stem = PUBLISHED[row]
    file_name = f"{stem}.h5" if include_top else f"{stem}_notop.h5"
    build = getattr(keras.applications, constructor)
    return fetched(
        lambda: build(weights="imagenet", include_top=include_top),
        f"{_URL}/{_FOLDERS[row.partition('-')[0]]}/{file_name}",
        file_name,
    )


def fetched(build: Callable[[], keras.Model], url: str, file_name: str) -> keras.Model:
    """What `build` gives, which fetches the file at `url` and caches it under a name.

    Raises:
      UsageError: if Keras has no cached file and cannot fetch it.
    """
    try:
        return build()
    except Exception as error:
        # Keras raises a plain Exception for a failed download, ValueError for a wrong checksum.
        if type(error) is not Exception and not isinstance(error, OSError | ValueError):
            raise
        cache = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
        raise UsageError(
            f"weights='imagenet': Keras could not fetch {url} ({error}). Get the file on "
            f"another machine and put it to {os.path.join(cache, 'models', file_name)}, or "
            f"anywhere and pass its path: weights='.../{file_name}'."
        ) from error
