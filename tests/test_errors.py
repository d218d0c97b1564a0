"""What an operation of TensorFlow's complains of, out of all that TensorFlow writes around it."""

import re

import pytest
import tensorflow as tf

from effnetv2_tf.errors import operation_fault

NO_JPEG = b"\xff\xd8\xff\xe0" + bytes(range(1, 200)) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Invalid PNG data\n\tmore\n", "Invalid PNG data"),
        ("{{function_node __wrapped__X_device_/job:a}} Bad [Op:DecodeJpeg] name: ", "Bad"),
        (
            "Graph execution error:\n\nDetected at node a defined at (most recent call last):\n"
            '  File "a.py", line 3, in <module>\n\nBad data, size 7\n\t [[{{node a/decode}}]]\n'
            "\t [[IteratorGetNext]] [Op:__inference_train_function_12]",
            "Bad data, size 7",
        ),
        (
            "Error in user-defined function passed to ParallelMapDatasetV2:5 transformation with "
            "iterator: Iterator::Root::Prefetch[0]::Map: Bad data\n\t [[{{node a}}]]",
            "Bad data",
        ),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT:  {{function_node f}} Bad data\n"
            "\t [[{{node a}}]]\n  (1) CANCELLED:  Function was cancelled\n"
            "0 successful operations.\n0 derived errors ignored. [Op:__inference_f_3]",
            "Bad data",
        ),
        (
            "TooMany: 3 are bad\nTraceback (most recent call last):\n\n"
            '  File "a.py", line 3, in f\n    raise TooMany()\n\na.b.TooMany: 3 are bad\n\n\n'
            "\t [[{{node PyFunc}}]]",
            "TooMany: 3 are bad",
        ),
        ("Graph execution error:\n\n", "no reason given"),
        (None, "no reason given"),
    ],
)
def test_only_the_operations_own_line_is_left(message, fault):
    assert operation_fault(message) == fault


def _in_a_pipeline():
    next(iter(tf.data.Dataset.from_tensors(NO_JPEG).map(tf.io.decode_jpeg)))


@pytest.mark.parametrize(
    "work",
    [
        lambda: tf.io.decode_jpeg(NO_JPEG),
        lambda: tf.function(tf.io.decode_jpeg)(tf.constant(NO_JPEG)),
        _in_a_pipeline,
    ],
    ids=["eager", "graph", "tf.data"],
)
def test_errors_of_this_tensorflow(work):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        work()
    fault = operation_fault(caught.value.message)
    assert re.fullmatch(r"(jpeg::Uncompress failed\. )?Invalid JPEG data[^.\[]*", fault)
