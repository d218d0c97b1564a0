"""The garbage collector is paused where objects are made to stay, and only there."""

import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf import EfficientNetV2B0
from effnetv2_tf.garbage import collection_paused


def test_pauses_within_the_block():
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_resumes_after_an_error():
    with pytest.raises(ValueError), collection_paused():
        raise ValueError
    assert gc.isenabled()


def test_stays_off_where_the_user_switched_it_off():
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_training_step_is_traced_without_and_fit_goes_on_with_it():
    enabled = {}

    class Loss(keras.losses.Loss):
        def call(self, y_true, y_pred):
            enabled["while tracing"] = gc.isenabled()
            return tf.reduce_mean((tf.cast(y_true, y_pred.dtype) - y_pred) ** 2)

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            enabled["after a step"] = gc.isenabled()

    model = EfficientNetV2B0(weights=None, classes=2, input_shape=(32, 32, 3))
    model.compile("sgd", Loss())
    model.fit(np.full([2, 32, 32, 3], 128.0), np.eye(2), callbacks=[Note()], verbose=0)
    assert enabled == {"while tracing": False, "after a step": True}


def test_importing_the_package_leaves_it_on():
    code = "import gc, effnetv2_tf; effnetv2_tf.EfficientNetV2S; assert gc.isenabled()"
    subprocess.run([sys.executable, "-c", code], check=True)
