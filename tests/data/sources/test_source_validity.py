"""Complete and cut-off image files are told apart, on disk and in the graph alike."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from effnetv2_tf.data.sources import is_valid_image
from effnetv2_tf.data.sources.validity import find_fault

FORMATS = ["JPEG", "PNG", "GIF", "BMP"]
FILM = np.random.default_rng(1).bytes(5000)  # in place of a phone's, behind the image


def _encode(image_format: str, size: tuple[int, int] = (17, 23)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def _jpeg_with_thumbnail() -> bytes:
    """A JPEG within a segment of another one's headers, as cameras write it."""
    jpeg = _encode("JPEG", (64, 64))
    segment = b"Exif\0\0" + _encode("JPEG")
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def _bmp(mode: str) -> bytes:
    """The same picture with a palette, in grey levels, in black and white, or with opacity."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(_encode("PNG"))).convert(mode).save(buffer, "BMP")
    return buffer.getvalue()


def _bmp_as(compression: int, bits: int, *masks: int) -> bytes:
    """A file of 32-bit colours whose header says this of it."""
    data = bytearray(_bmp("RGBA"))
    header = b"".join(number.to_bytes(4, "little") for number in masks)
    data[28:30], data[30:34] = bits.to_bytes(2, "little"), compression.to_bytes(4, "little")
    data[54 : 54 + len(header)] = header
    return bytes(data)


CASES = [
    *[(f"complete {f}", _encode(f), True) for f in FORMATS],
    *[(f"padded {f}", _encode(f) + b"\0" * 500, True) for f in FORMATS],
    *[(f"half of {f}", _encode(f)[: len(_encode(f)) // 2], False) for f in FORMATS],
    *[(f"head of {f}", _encode(f)[:9], False) for f in FORMATS],
    ("JPEG with a trailer", _encode("JPEG") + b"made by a camera", True),
    ("JPEG with much padding", _encode("JPEG") + b"\0" * 5000, True),
    ("JPEG with a film", _jpeg_with_thumbnail() + FILM, True),
    ("half of a JPEG with a thumbnail", _jpeg_with_thumbnail()[:-400], False),
    ("PNG with a film", _encode("PNG") + FILM, True),
    ("JPEG without its last byte", _encode("JPEG")[:-1], False),
    ("PNG without IEND", _encode("PNG")[:-12], False),
    ("BMP of grey levels", _bmp("L"), True),
    ("BMP with opacity", _bmp("RGBA"), True),
    ("BMP with the usual masks", _bmp_as(3, 32, 0xFF0000, 0xFF00, 0xFF), True),
    ("BMP of red, green, blue", _bmp_as(3, 32, 0xFF, 0xFF00, 0xFF0000), False),
    ("BMP of run lengths", _bmp_as(1, 8), False),
    ("BMP with a palette", _bmp("P"), False),
    ("BMP in black and white", _bmp("1"), False),
    ("empty", b"", False),
    ("one byte", b"\xff", False),
    ("text", b"this is not an image\n", False),
]


@pytest.mark.parametrize(("case", "content", "valid"), CASES, ids=[c[0] for c in CASES])
def test_both_checks_agree(tmp_path, case, content, valid):
    path = tmp_path / "image"
    path.write_bytes(content)
    assert (find_fault(path) is None) == valid, find_fault(path)
    assert bool(is_valid_image(tf.constant(content))) == valid


def test_runs_in_tf_data():
    contents = tf.data.Dataset.from_tensor_slices([content for _, content, _ in CASES])
    found = list(contents.map(is_valid_image).as_numpy_iterator())
    assert found == [valid for _, _, valid in CASES]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_encode("JPEG")[:300], "truncated JPEG: no end-of-image marker"),
        (_encode("GIF")[:300], "truncated GIF, no trailer"),
        (_encode("BMP")[:300], "truncated BMP, shorter than its header says"),
        (_bmp("P"), "BMP with colours of a palette, which TensorFlow does not read: save it"),
        (
            _bmp_as(3, 32, 1, 2, 3),
            "BMP with an unusual order of colours, which TensorFlow does not",
        ),
        (_bmp_as(1, 8), "BMP with compressed pixels, which TensorFlow does not read: save it"),
        (_encode("PNG")[:300], "broken image: "),
        (b"hello", "not an image: no JPEG, PNG, GIF or BMP signature"),
        (b"", "empty file"),
    ],
)
def test_reasons(tmp_path, content, reason):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    assert find_fault(path).startswith(reason)


RUBBISH = bytes(range(1, 255)) * 2
JPEG = _encode("JPEG")


@pytest.mark.parametrize(
    ("content", "decodable"),
    [
        (b"\xff\xd8\xff\xe0" + RUBBISH + b"\xff\xd9", False),
        (b"\xff\xd8\xff\xe0\0\x04ab" + RUBBISH + b"\xff\xd9", False),
        (JPEG[:2] + JPEG[-2:], False),
        (JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :], False),
        (JPEG[:2] + b"\xff\xff" + JPEG[2:], True),  # fill bytes before a marker
        (JPEG[:2] + b"\xff\xe1\0\x06\xff\xda\xff\xd9" + JPEG[2:], True),  # an image in a segment
        (JPEG[:20] + b"extra" + JPEG[20:], True),  # between segments
    ],
    ids=["no segment", "no marker", "no segments", "no frame", "fill", "thumbnail", "between"],
)
def test_the_headers_of_a_jpeg_are_read_on_disk(tmp_path, content, decodable):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    if decodable:
        assert find_fault(path) is None
        assert tf.io.decode_jpeg(content).shape == (17, 23, 3)
    else:
        assert find_fault(path) == "broken image: it cannot be decoded"
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_jpeg(content)


def test_a_name_that_cannot_be():
    assert find_fault(Path("a\0b.jpg")) == "unreadable: embedded null byte"


def test_missing_file(tmp_path):
    assert find_fault(tmp_path / "nothing.jpg") == "missing file"


def test_flipped_byte_in_a_png_is_found_on_disk(tmp_path):
    content = bytearray(_encode("PNG"))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "image.png"
    path.write_bytes(bytes(content))
    assert find_fault(path).startswith("broken image")
