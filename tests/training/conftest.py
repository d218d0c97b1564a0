"""A plain Keras model that records what it is given, and data that tell which batch it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.training.recipe import Recipe
from effnetv2_tf.training.recipe_files import parse_recipe
from effnetv2_tf.training.schedule import Regularization, StageSchedule


class Seen:
    """What passed through a `Probe` in training, batch by batch."""

    def __init__(self):
        self.shapes: list[tuple] = []
        self.values: list[float] = []
        self.zero_shares: list[float] = []

    def record(self, batch):
        self.shapes.append(batch.shape)
        self.values.append(float(batch.max()))
        self.zero_shares.append(float((batch == 0).mean()))
        return np.bool_(True)


class Probe(keras.layers.Layer):
    """The identity; records the batches of training steps."""

    def __init__(self, seen: Seen):
        super().__init__()
        self.seen = seen
        self.supports_jit = False

    def call(self, inputs, training=None):
        if not training:
            return inputs
        done = tf.numpy_function(self.seen.record, [inputs], tf.bool, stateful=True)
        with tf.control_dependencies([done]):
            return tf.identity(inputs)


class PlainModel:
    """A compiled model of Keras's own layers with two probes: its input, and after dropout."""

    def __init__(self, dropout=None, input_size=None, **compile_options):
        self.inputs, self.dropped = Seen(), Seen()
        image = keras.Input((input_size, input_size, 1))
        x = Probe(self.inputs)(image)
        x = keras.layers.GlobalAveragePooling2D()(x)
        # A thousand ones, whatever the image: dropout's zeros can be counted.
        x = keras.layers.Dense(
            1000, kernel_initializer="zeros", bias_initializer="ones", trainable=False
        )(x)
        if dropout is not None:
            x = dropout(x)
        x = keras.layers.Dense(2)(Probe(self.dropped)(x))
        self.model = keras.Model(image, x)
        self.model.compile(
            optimizer=keras.optimizers.SGD(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
            **compile_options,
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self.traces = count_traces(self.model)

    @property
    def steps(self) -> int:
        return int(self.model.optimizer.iterations)


def count_traces(model) -> list:
    """A list that grows by the images' static shape whenever a train step is traced."""
    traces, original = [], model.train_step

    def train_step(data):
        traces.append(tuple(data[0].shape))
        return original(data)

    model.train_step = tf.autograph.experimental.do_not_convert(train_step)
    return traces


def numbered_batches(stage) -> tf.data.Dataset:
    """One epoch; every pixel of batch i (from 0) is i + 1."""
    steps, batch, side = stage.steps_per_epoch, stage.batch_size, stage.image_size
    numbers = np.repeat(np.arange(1, steps + 1), batch).astype("float32")
    images = np.broadcast_to(numbers[:, None, None, None], (steps * batch, side, side, 1))
    labels = np.arange(steps * batch) % 2
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def two_stages(**changes) -> StageSchedule:
    """Two stages of two epochs of three steps: 8 px, then 12 px."""
    arguments = {
        "epochs": 4,
        "num_examples": 12,
        "batch_size": 4,
        "image_size": (8, 12),
        "num_stages": 2,
        **changes,
    }
    return StageSchedule.progressive(**arguments)


def moving(**ends) -> dict:
    """`start` and `end` of a schedule from pairs."""
    return {
        "start": Regularization(**{name: pair[0] for name, pair in ends.items()}),
        "end": Regularization(**{name: pair[1] for name, pair in ends.items()}),
    }


def write_image_classes(folder, names, count=4):
    """A sub-folder of PNG files for every class; returns the folder."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = np.full((8, 8, 3), (40 * number + 5 * len(name)) % 256, np.uint8)
            path = folder / name / f"{number}.png"
            path.write_bytes(tf.io.encode_png(picture).numpy())
    return folder


def small_recipe(data, **sections) -> Recipe:
    """One epoch of a network with one block at 8 px; sections as a recipe's."""
    return parse_recipe(
        {
            "name": "small",
            "model": {
                "name": "efficientnetv2-b0",
                "stem_filters": 8,
                "head_filters": 8,
                "stages": [{"block": "fused", "expansion": 1, "filters": 8, "repeats": 1}],
                **sections.pop("model", {}),
            },
            "data": {
                "augmentation": {"crop": "none", "policy": "none"},
                "eval_crop": "none",
                **data,
            },
            "training": {"epochs": 1, "batch_size": 4, **sections.pop("training", {})},
            "progressive": {
                "stages": 1,
                "image_size": [8, 8],
                **sections.pop("progressive", {}),
            },
            **sections,
        }
    )


@pytest.fixture
def write_classes():
    return write_image_classes


@pytest.fixture
def make_recipe():
    return small_recipe


@pytest.fixture
def plain_model():
    return PlainModel


@pytest.fixture
def make_schedule():
    return two_stages


@pytest.fixture
def batches():
    return numbered_batches


@pytest.fixture
def ends():
    return moving


@pytest.fixture
def traces_of():
    return count_traces
