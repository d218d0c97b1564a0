"""Branches of a dataset's function are calls, and nothing else about it changes."""

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.data.branches import branches_as_calls
from effnetv2_tf.data.pipeline import Augmentation, TrainingPipeline, evaluation_dataset
from effnetv2_tf.data.sources import ImageFolderSource
from effnetv2_tf.training.schedule import Regularization, StageSchedule

_MERGED = "_lower_using_switch_merge"


def _branching(number):
    odd = tf.cond(number % 2 == 1, lambda: number + 100, lambda: number)
    return tf.switch_case(
        tf.cast(number % 3, tf.int32), [lambda: odd, lambda: -odd, lambda: odd * 2]
    )


def _conditionals(dataset):
    """The conditional operations of the functions that a dataset maps, not of their branches."""
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    functions = {function.signature.name: function for function in graph.library.function}
    mapped = {node.attr["f"].func.name for node in graph.node if "f" in node.attr}
    nodes = [node for name in mapped for node in functions[name].node_def]
    return [node for node in nodes if node.op.removeprefix("Stateless") in ("If", "Case")]


def test_the_branches_taken_are_the_same():
    numbers = tf.data.Dataset.range(12)
    called = list(numbers.map(branches_as_calls(_branching)).as_numpy_iterator())
    assert called == list(numbers.map(_branching).as_numpy_iterator())
    assert called == [int(branches_as_calls(_branching)(tf.constant(n))) for n in range(12)]


def test_conditionals_are_no_longer_merged():
    numbers = tf.data.Dataset.range(1)
    before = _conditionals(numbers.map(_branching))
    after = _conditionals(numbers.map(branches_as_calls(_branching)))
    assert [node.attr[_MERGED].b for node in before] == [True, True]
    assert [node.attr[_MERGED].b for node in after] == [False, False]


@pytest.mark.parametrize("training", [True, False])
def test_pipelines_of_files_call_their_branches(training, tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(2):
            pixels = tf.constant(np.full((12, 12, 3), 40 * number, np.uint8))
            tf.io.write_file(f"{tmp_path}/{label}/{number}.jpg", tf.io.encode_jpeg(pixels))
    source = ImageFolderSource(tmp_path)
    if training:
        strengths = Regularization(randaugment_magnitude=5.0)
        stage = StageSchedule.progressive(
            epochs=1,
            num_examples=4,
            batch_size=2,
            image_size=(8, 8),
            num_stages=1,
            start=strengths,
            end=strengths,
        ).stages[0]
        dataset = TrainingPipeline(source, Augmentation(policy="randaugment"))(stage)
    else:
        dataset = evaluation_dataset(source, 8, 2)
    conditionals = _conditionals(dataset)
    assert conditionals, "decoding branches by the file's format"
    assert not any(node.attr[_MERGED].b for node in conditionals)
