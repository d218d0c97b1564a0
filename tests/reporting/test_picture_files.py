"""Names of users' are shown as they are, whatever matplotlib would make of them."""

import warnings

import pytest
from matplotlib.figure import Figure
from PIL import Image

from effnetv2_tf.reporting.files import save_figure


@pytest.mark.parametrize("name", ["a$b^{$", "$5 to $10", "caf\udce9", "plain", r"\$1 and \$2"])
def test_names_are_no_formulas(name, tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set(title=name, xscale="log")
    axes.barh([0, 1], [1, 100], label=name)
    axes.set_yticks([0, 1], [name, "other"])
    axes.legend()
    save_figure(figure, tmp_path / "a.png")
    shown = name.replace("\udce9", r"\udce9").replace(r"\$", "$")
    title, _ = axes.title._preprocess_math(axes.title.get_text())
    assert title == shown
    tick = axes.get_yticklabels()[0]
    assert tick._preprocess_math(tick.get_text()) == (shown, False)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 100


def test_characters_that_no_font_has_are_drawn_without_a_word(tmp_path):
    figure = Figure()
    figure.text(0.1, 0.5, "\u732b \u72ac")  # cat and dog
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
