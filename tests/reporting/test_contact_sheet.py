"""A contact sheet shows every image with its classes."""

import numpy as np
import pytest
from PIL import Image

from effnetv2_tf.reporting import contact_sheet
from effnetv2_tf.reporting.contact_sheet import SheetEntry, draw_contact_sheet


def entry(number: int, channels: int = 3, classes: int = 2) -> SheetEntry:
    pixels = np.full((20, 20, channels), number, np.uint8)
    shares = tuple((f"class {i}", 0.75 / (i + 1)) for i in range(classes))
    return SheetEntry(pixels, f"image{number}.jpg", shares)


@pytest.fixture
def figures(monkeypatch):
    """Figures that would be written."""
    drawn = []
    monkeypatch.setattr(contact_sheet, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


def test_every_image_with_its_classes(figures, tmp_path):
    draw_contact_sheet([entry(i) for i in range(7)], tmp_path / "sheet.png", "seven")
    (figure,) = figures
    pictures, bars = figure.axes[::2], figure.axes[1::2]
    assert len(pictures) == len(bars) == 7
    assert figure.get_suptitle() == "seven"
    assert [axes.get_title() for axes in pictures] == [f"image{i}.jpg" for i in range(7)]
    for number, axes in enumerate(pictures):
        assert (axes.images[0].get_array() == number).all()
    for axes in bars:
        assert [text.get_text() for text in axes.texts] == ["class 0", "75.0%", "class 1", "37.5%"]
        assert [bar.get_width() for bar in axes.patches[-2:]] == [0.75, 0.375]


def test_five_in_a_row_without_overlap(figures, tmp_path):
    draw_contact_sheet([entry(i) for i in range(12)], tmp_path / "sheet.png", "")
    boxes = [axes.get_position() for axes in figures[0].axes]
    pictures = boxes[::2]
    assert len({round(box.x0, 4) for box in pictures}) == 5
    assert len({round(box.y0, 4) for box in pictures}) == 3
    for index, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1
        for other in boxes[index + 1 :]:
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or box.y1 <= other.y0 or other.y1 <= box.y0


@pytest.mark.parametrize("classes", [0, 1, 5])
def test_one_grey_image(figures, tmp_path, classes):
    draw_contact_sheet([entry(9, 1, classes)], tmp_path / "sheet.png", "one")
    assert figures[0].axes[0].images[0].get_array().shape == (20, 20, 3)
    assert len(figures[0].axes) == 1 + (classes > 0)


def test_long_names_are_cut(figures, tmp_path):
    long = SheetEntry(np.zeros((8, 8, 3), np.uint8), "x" * 99, (("y" * 99, 1.0),))
    draw_contact_sheet([long], tmp_path / "sheet.png", "")
    picture, bars = figures[0].axes
    assert picture.get_title() == "x" * 33 + "..."
    assert bars.texts[0].get_text() == "y" * 25 + "..."


def test_the_file(tmp_path):
    draw_contact_sheet([entry(i) for i in range(3)], tmp_path / "new" / "sheet.png", "three")
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height
