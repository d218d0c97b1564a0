"""The names of ImageNet's classes: as many, as ordered and as unique as they must be."""

import importlib.resources
import re

from effnetv2_tf.prediction.networks import imagenet_class_names

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
