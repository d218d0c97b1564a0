"""A confusion matrix in numbers."""

import numpy as np

from effnetv2_tf.reporting import confusion

MATRIX = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
NAMES = ("cat", "a dog, small", "emu")


def test_pairs_that_occurred():
    assert confusion.confusion_csv(MATRIX, NAMES).splitlines() == [
        "true,predicted,images",
        "cat,cat,3",
        'cat,"a dog, small",1',
        "emu,cat,2",
        "emu,emu,2",
    ]


def test_accuracy_of_each_class():
    assert confusion.classes_csv(MATRIX, NAMES).splitlines() == [
        "class,images,correct,accuracy",
        "cat,4,3,0.750000",
        '"a dog, small",0,0,',
        "emu,4,2,0.500000",
    ]
    assert confusion.classes_without_images(MATRIX, NAMES) == ["a dog, small"]


def test_mistakes_by_their_number():
    assert confusion.most_confused(MATRIX, NAMES) == [
        ("emu", "cat", 2),
        ("cat", "a dog, small", 1),
    ]
