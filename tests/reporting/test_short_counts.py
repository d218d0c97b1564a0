"""Numbers as people read them."""

import pytest

from effnetv2_tf.reporting.numbers import short_count, short_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9_994, "9.99 k"),
        (9_996, "10.0 k"),
        (99_960, "100 k"),
        (999_400, "999 k"),
        (999_600, "1.00 M"),
        (407_186_304, "407 M"),
        (8_365_617_152, "8.37 G"),
        (475_703_653_280, "476 G"),
    ],
)
def test_three_digits_and_a_unit(count, text):
    assert short_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5990, "100 min"), (6000, "1.7 h")],
)
def test_durations(seconds, text):
    assert short_duration(seconds) == text
