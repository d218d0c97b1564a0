"""The names of ImageNet's classes: as many, as ordered and as unique as they must be."""

import importlib.resources
import re

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import decode_predictions
from effnetv2_tf.prediction import imagenet_class_names

ANCHORS = {
    0: "tench",
    1: "goldfish",
    134: "crane (bird)",
    207: "golden retriever",
    281: "tabby cat",
    282: "tiger cat",
    285: "Egyptian cat",
    291: "lion",
    388: "giant panda",
    404: "airliner",
    504: "coffee mug",
    517: "crane (machine)",
    638: "maillot (tights)",
    639: "maillot (tank suit)",
    657: "missile",
    673: "computer mouse",
    744: "projectile",
    812: "space shuttle",
    850: "teddy bear",
    888: "viaduct",
    954: "banana",
    967: "espresso",
    968: "cup",
    985: "daisy",
    999: "toilet tissue",
}


def test_every_class_has_a_name_of_its_own():
    names = imagenet_class_names()
    assert len(names) == 1000
    folded = [name.casefold() for name in names]
    assert sorted(set(folded)) == sorted(folded)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z'. ()-]*[A-Za-z.)]", name) for name in names)


def test_known_places():
    names = imagenet_class_names()
    assert {index: names[index] for index in ANCHORS} == ANCHORS


def test_the_order_is_that_of_the_synsets():
    path = importlib.resources.files("effnetv2_tf") / "weights" / "imagenet_classes.txt"
    synsets = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    assert synsets == sorted(set(synsets))
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in synsets)
    assert (synsets[0], synsets[999]) == ("n01440764", "n15075141")


def test_predictions_are_decoded_as_keras_applications_does():
    scores = np.zeros((2, 1000), np.float32)
    scores[0, [207, 388, 954]] = 0.2, 0.7, 0.1
    scores[1, 0] = 1.0
    first, second = decode_predictions(scores, top=3)
    assert [name for _, name, _ in first] == ["giant panda", "golden retriever", "banana"]
    assert first[0] == ("n02510455", "giant panda", pytest.approx(0.7))
    assert isinstance(first[0][2], float)
    assert second[0][:2] == ("n01440764", "tench")
    assert [len(image) for image in decode_predictions(tf.constant(scores))] == [5, 5]


@pytest.mark.parametrize("shape", [(1, 10), (1000,), (1, 1000, 1)])
def test_outputs_of_other_classes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, 1000\)\. Received: shape \(1"):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top", [0, 1001])
def test_as_many_classes_as_there_are(top):
    with pytest.raises(ValueError, match=rf"`top` must lie in 1 to 1000. Received: top={top}"):
        decode_predictions(np.zeros((1, 1000)), top=top)
