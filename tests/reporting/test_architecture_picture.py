"""The picture of a network shows every stage with its costs."""

import dataclasses

import pytest
from PIL import Image

from effnetv2_tf.models.families import EFFICIENTNET_LITE0, EFFICIENTNETV2_S
from effnetv2_tf.models.stage_costs import spec_stages
from effnetv2_tf.reporting import architecture


@pytest.fixture
def figures(monkeypatch):
    """Figures that would be written."""
    drawn = []
    monkeypatch.setattr(architecture, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_stage_and_its_costs(figures, tmp_path):
    rows = spec_stages(EFFICIENTNETV2_S)
    architecture.draw_architecture(rows, tmp_path / "s.png", "a title")
    (figure,) = figures
    shapes, parameters, multiply_adds = figure.axes
    assert figure.get_suptitle() == "a title"
    assert len(shapes.patches) == sum(min(row.repeats, 4) for row in rows)
    assert "192 x 192\n24 ch." in texts(shapes)
    assert "Fused-MBConv\n3x3, stride 2\nexpansion 4\n4 blocks" in texts(shapes)
    assert "MBConv\n3x3, stride 2\nexpansion 6, SE\n15 blocks" in texts(shapes)
    for axes, values in (
        (parameters, [row.parameters for row in rows]),
        (multiply_adds, [row.multiply_adds for row in rows]),
    ):
        assert [bar.get_height() for bar in axes.patches] == values
    assert parameters.get_title(loc="left") == "parameters: 21.6 M"
    assert multiply_adds.get_title(loc="left") == "multiply-adds: 8.37 G"
    names = [label.get_text() for label in multiply_adds.get_xticklabels()]
    assert names == [row.name for row in rows]
    assert len(texts(parameters)) == len(rows)
    assert texts(parameters)[-1] == f"1.28 M\n{1_281_000 / 21_612_360:.0%}"


def test_a_larger_output_is_drawn_higher_and_more_channels_wider(figures, tmp_path):
    rows = [row for row in spec_stages(EFFICIENTNET_LITE0) if row.repeats == 1]
    architecture.draw_architecture(rows, tmp_path / "x.png", "")
    boxes = figures[0].axes[0].patches
    heights = [box.get_height() for box in boxes]
    assert heights == sorted(heights, reverse=True)
    order = sorted(range(len(rows)), key=lambda index: rows[index].channels)
    widths = [boxes[index].get_width() for index in order]
    assert widths == sorted(widths)


def test_a_network_of_many_layers_shows_the_costliest(figures, tmp_path):
    row = spec_stages(EFFICIENTNETV2_S)[0]
    rows = [dataclasses.replace(row, name=f"l{i}", multiply_adds=i) for i in range(50)]
    architecture.draw_architecture(rows, tmp_path / "x.png", "deep")
    (figure,) = figures
    assert figure.get_suptitle() == "deep (the 40 costliest of 50 layers)"
    names = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert names == [f"l{i}" for i in range(10, 50)]


def test_the_file(tmp_path):
    path = tmp_path / "new" / "s.png"
    architecture.draw_architecture(spec_stages(EFFICIENTNETV2_S), path, "a title")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 800
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 100
