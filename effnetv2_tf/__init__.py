"""EfficientNetV2 and its family for TensorFlow and Keras.

The public names are loaded on first use, so that `import effnetv2_tf` costs nothing and the
command-line programs can set TensorFlow's environment before it is imported. Where Keras is
already imported the layers are loaded at once, so that `keras.models.load_model` knows them.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from effnetv2_tf.garbage import collection_paused

__version__ = "0.1.0"

if TYPE_CHECKING:
    from effnetv2_tf.loading import load_model
    from effnetv2_tf.models.compound_scaling import compound_scale, nonuniform_scale
    from effnetv2_tf.models.efficientnet_g16 import (
        EfficientNetB0G16,
        EfficientNetB1G16,
        EfficientNetB2G16,
        EfficientNetB3G16,
        EfficientNetB4G16,
        EfficientNetB5G16,
    )
    from effnetv2_tf.models.efficientnet_lite import (
        EfficientNetLite0,
        EfficientNetLite1,
        EfficientNetLite2,
        EfficientNetLite3,
        EfficientNetLite4,
    )
    from effnetv2_tf.models.efficientnetv1 import (
        EfficientNetB0,
        EfficientNetB1,
        EfficientNetB2,
        EfficientNetB3,
        EfficientNetB4,
        EfficientNetB5,
        EfficientNetB6,
        EfficientNetB7,
        EfficientNetB8,
        EfficientNetL2,
    )
    from effnetv2_tf.models.efficientnetv2 import (
        EfficientNetV2B0,
        EfficientNetV2B1,
        EfficientNetV2B2,
        EfficientNetV2B3,
        EfficientNetV2L,
        EfficientNetV2M,
        EfficientNetV2S,
        EfficientNetV2XL,
    )
    from effnetv2_tf.models.flops import count_flops
    from effnetv2_tf.models.genotypes import Genotype
    from effnetv2_tf.models.nasnet import NASNetLarge, NASNetMobile, build_nasnet
    from effnetv2_tf.models.nasnet_specs import NASNetSpec
    from effnetv2_tf.models.network import build_network
    from effnetv2_tf.models.recompute import set_recompute
    from effnetv2_tf.models.scaling import with_group_size
    from effnetv2_tf.models.specs import NetworkSpec, Preprocessing, StageSpec
    from effnetv2_tf.models.transfer import freeze, replace_head, unfreeze
    from effnetv2_tf.prediction.imagenet import decode_predictions
    from effnetv2_tf.training.ema import ExponentialMovingAverage
    from effnetv2_tf.training.learning_rates import WarmUpDecay
    from effnetv2_tf.training.optimizers import SGD, AdamW, RMSProp
    from effnetv2_tf.training.progressive import ProgressiveLearning
    from effnetv2_tf.training.schedule import Regularization, Stage, StageSchedule
    from effnetv2_tf.weights import WeightReport, load_weights

_HOMES = {
    "effnetv2_tf.models.compound_scaling": ("compound_scale", "nonuniform_scale"),
    "effnetv2_tf.models.efficientnet_g16": (
        "EfficientNetB0G16",
        "EfficientNetB1G16",
        "EfficientNetB2G16",
        "EfficientNetB3G16",
        "EfficientNetB4G16",
        "EfficientNetB5G16",
    ),
    "effnetv2_tf.models.efficientnet_lite": (
        "EfficientNetLite0",
        "EfficientNetLite1",
        "EfficientNetLite2",
        "EfficientNetLite3",
        "EfficientNetLite4",
    ),
    "effnetv2_tf.models.efficientnetv1": (
        "EfficientNetB0",
        "EfficientNetB1",
        "EfficientNetB2",
        "EfficientNetB3",
        "EfficientNetB4",
        "EfficientNetB5",
        "EfficientNetB6",
        "EfficientNetB7",
        "EfficientNetB8",
        "EfficientNetL2",
    ),
    "effnetv2_tf.models.efficientnetv2": (
        "EfficientNetV2B0",
        "EfficientNetV2B1",
        "EfficientNetV2B2",
        "EfficientNetV2B3",
        "EfficientNetV2L",
        "EfficientNetV2M",
        "EfficientNetV2S",
        "EfficientNetV2XL",
    ),
    "effnetv2_tf.models.flops": ("count_flops",),
    "effnetv2_tf.models.genotypes": ("Genotype",),
    "effnetv2_tf.loading": ("load_model",),
    "effnetv2_tf.models.nasnet": ("NASNetLarge", "NASNetMobile", "build_nasnet"),
    "effnetv2_tf.models.nasnet_specs": ("NASNetSpec",),
    "effnetv2_tf.models.network": ("build_network",),
    "effnetv2_tf.models.recompute": ("set_recompute",),
    "effnetv2_tf.models.scaling": ("with_group_size",),
    "effnetv2_tf.models.specs": ("NetworkSpec", "Preprocessing", "StageSpec"),
    "effnetv2_tf.models.transfer": ("freeze", "replace_head", "unfreeze"),
    "effnetv2_tf.prediction.imagenet": ("decode_predictions",),
    "effnetv2_tf.training.ema": ("ExponentialMovingAverage",),
    "effnetv2_tf.training.learning_rates": ("WarmUpDecay",),
    "effnetv2_tf.training.optimizers": ("SGD", "AdamW", "RMSProp"),
    "effnetv2_tf.training.progressive": ("ProgressiveLearning",),
    "effnetv2_tf.training.schedule": ("Regularization", "Stage", "StageSchedule"),
    "effnetv2_tf.weights": ("WeightReport", "load_weights"),
}
_ROOMS = ("data", "export", "models", "prediction", "search", "training", "weights")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "SGD",
    "AdamW",
    "EfficientNetB0",
    "EfficientNetB0G16",
    "EfficientNetB1",
    "EfficientNetB1G16",
    "EfficientNetB2",
    "EfficientNetB2G16",
    "EfficientNetB3",
    "EfficientNetB3G16",
    "EfficientNetB4",
    "EfficientNetB4G16",
    "EfficientNetB5",
    "EfficientNetB5G16",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetB8",
    "EfficientNetL2",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "EfficientNetLite3",
    "EfficientNetLite4",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2L",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "EfficientNetV2XL",
    "ExponentialMovingAverage",
    "Genotype",
    "NASNetLarge",
    "NASNetMobile",
    "NASNetSpec",
    "NetworkSpec",
    "Preprocessing",
    "ProgressiveLearning",
    "RMSProp",
    "Regularization",
    "Stage",
    "StageSchedule",
    "StageSpec",
    "WarmUpDecay",
    "WeightReport",
    "build_nasnet",
    "build_network",
    "compound_scale",
    "count_flops",
    "decode_predictions",
    "freeze",
    "load_model",
    "load_weights",
    "nonuniform_scale",
    "replace_head",
    "set_recompute",
    "unfreeze",
    "with_group_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF and name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collection_paused():  # TensorFlow's import may be in it
        importlib.import_module("effnetv2_tf.loading")  # Keras then knows all that may be saved
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if "keras" in sys.modules:
    importlib.import_module("effnetv2_tf.loading")
