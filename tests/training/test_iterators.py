"""Iterators are let go of without waiting for their ends."""

import threading

import tensorflow as tf

from effnetv2_tf import ProgressiveLearning
from effnetv2_tf.training.iterators import let_go, without_autotuning


class _EndsOnDemand:
    """As an iterator whose tuning thread sleeps; notes that it has ended."""

    def __init__(self):
        self.may_end, self.has_ended = threading.Event(), threading.Event()

    def hold(self):
        return _Held(self.may_end, self.has_ended)


class _Held:
    def __init__(self, may_end, has_ended):
        self._may_end, self._has_ended = may_end, has_ended

    def __del__(self):
        assert self._may_end.wait(20)
        self._has_ended.set()


def test_nobody_waits():
    end = _EndsOnDemand()
    references = [end.hold()]
    let_go(references)
    assert not end.has_ended.is_set()
    end.may_end.set()
    assert end.has_ended.wait(20)


def test_each_stages_iterator_is_let_go_of(plain_model, make_schedule, batches, monkeypatch):
    gone = []
    monkeypatch.setattr("effnetv2_tf.training.progressive.let_go", gone.extend)
    progressive = ProgressiveLearning(make_schedule(), batches)
    model = plain_model().model
    model.fit(progressive.fit_dataset(), epochs=4, callbacks=[progressive], verbose=0)
    before_the_first, first, second = gone
    assert before_the_first is None
    assert first is not second
    assert all(isinstance(iterator, tf.data.Iterator) for iterator in (first, second))


def test_what_only_counts_the_steps_is_not_tuned(make_schedule, batches):
    dataset = ProgressiveLearning(make_schedule(), batches).fit_dataset()
    assert dataset.options().autotune.enabled is False
    same = without_autotuning(tf.data.Dataset.range(3))
    assert list(same.as_numpy_iterator()) == [0, 1, 2]
