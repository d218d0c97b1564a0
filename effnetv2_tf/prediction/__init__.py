"""Classes and probabilities of image files: what `python -m effnetv2_tf.predict` prints."""

from effnetv2_tf.prediction.imagenet import decode_predictions, imagenet_class_names
from effnetv2_tf.prediction.predictor import (
    ClassScore,
    Prediction,
    Predictor,
    Unreadable,
    predict_images,
)

__all__ = [
    "ClassScore",
    "Prediction",
    "Predictor",
    "Unreadable",
    "decode_predictions",
    "imagenet_class_names",
    "predict_images",
]
