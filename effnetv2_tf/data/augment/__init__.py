"""Augmentation: operations on one image, random policies, crops, and mixing of batches."""

from effnetv2_tf.data.augment.autoaugment import AutoAugment
from effnetv2_tf.data.augment.crops import (
    center_crop_and_resize,
    decode_and_random_crop,
    pad_and_random_crop,
    random_crop_and_resize,
    random_flip,
    sample_crop_window,
)
from effnetv2_tf.data.augment.cutout import Cutout
from effnetv2_tf.data.augment.mixing import (
    cutmix,
    mixup,
    mixup_and_cutmix,
    mixup_then_cutmix,
)
from effnetv2_tf.data.augment.randaugment import RandAugment

__all__ = [
    "AutoAugment",
    "Cutout",
    "RandAugment",
    "center_crop_and_resize",
    "cutmix",
    "decode_and_random_crop",
    "mixup",
    "mixup_and_cutmix",
    "mixup_then_cutmix",
    "pad_and_random_crop",
    "random_crop_and_resize",
    "random_flip",
    "sample_crop_window",
]
