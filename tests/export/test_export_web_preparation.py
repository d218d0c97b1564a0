"""The page's own image code, run by Node.js, against Python's evaluation preprocessing."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from importlib import resources

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_tf.export.images import ImagePreparation

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

PREPARE = """
import { readFileSync, writeFileSync } from "node:fs";
import { evaluationWindow, prepare } from "./preparation.mjs";

const { width, height, preparation } = JSON.parse(readFileSync("case.json"));
const rgba = readFileSync("rgba");
const part = evaluationWindow(width, height, preparation);
const rows = [];
for (let row = part.y; row < part.y + part.height; row += 1) {
  const start = 4 * (row * width + part.x);
  rows.push(rgba.subarray(start, start + 4 * part.width));
}
const image = { ...part, rgba: Buffer.concat(rows), isPng: true };
writeFileSync("pixels", prepare(image, preparation));
"""
STRIP = """
import { readFileSync, writeFileSync } from "node:fs";
import { withoutHints } from "./decoding.mjs";

writeFileSync("stripped", Buffer.concat(withoutHints(new Uint8Array(readFileSync("file")))));
"""


@pytest.fixture
def node(tmp_path):
    """Runs a script beside the page's modules."""
    for name in ("decoding", "preparation"):
        source = resources.files("effnetv2_tf.export") / "web_page" / f"{name}.js"
        text = source.read_text(encoding="utf-8").replace("preparation.js", "preparation.mjs")
        (tmp_path / f"{name}.mjs").write_text(text)

    def run(script: str):
        (tmp_path / "script.mjs").write_text(script)
        done = subprocess.run(
            ["node", "script.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return tmp_path

    return run


def image(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A sharp pattern: its every pixel matters to a resize."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), "u1")


def page_pixels(node, tmp_path, picture: np.ndarray, preparation: ImagePreparation) -> np.ndarray:
    """What the page makes of a decoded picture."""
    rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
    rgba = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)
    height, width, _ = rgba.shape
    (tmp_path / "rgba").write_bytes(rgba.tobytes())
    case = {"width": width, "height": height, "preparation": preparation.as_dict()}
    (tmp_path / "case.json").write_text(json.dumps(case))
    node(PREPARE)
    shape = (preparation.image_size, preparation.image_size, preparation.channels)
    return np.frombuffer((tmp_path / "pixels").read_bytes(), "<f4").reshape(shape)


def python_pixels(picture: np.ndarray, preparation: ImagePreparation) -> np.ndarray:
    return preparation.prepare(tf.io.encode_png(picture)).numpy().astype("f")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "settings"),
    [
        (97, 131, {"image_size": 32}),
        (131, 97, {"image_size": 48, "crop_padding": 0}),
        (97, 131, {"image_size": 224, "crop": "none"}),
        (23, 9, {"image_size": 64, "crop": "none"}),
        (400, 301, {"image_size": 24, "crop_padding": 4}),
        (64, 64, {"image_size": 32, "crop_padding": 0}),  # values between two grey levels
        (40, 40, {"image_size": 40, "crop_padding": 0}),
        (1, 1, {"image_size": 8}),
        (3, 500, {"image_size": 16}),
    ],
)
def test_pixels_are_those_of_python(node, tmp_path, height, width, settings, interpolation):
    preparation = ImagePreparation(**settings, interpolation=interpolation)
    picture = image(height, width)
    found = page_pixels(node, tmp_path, picture, preparation)
    expected = python_pixels(picture, preparation)
    difference = np.abs(found - expected)
    assert difference.max() <= 1, f"{(difference > 1).sum()} of {difference.size} values"
    # Sums in another order may fall on the other side of a half.
    assert (difference > 0).mean() < 2e-4, f"{(difference > 0).sum()} of {difference.size} values"


@pytest.mark.parametrize(
    ("picture_channels", "decoded_channels", "channels"),
    [(1, None, 1), (1, None, 3), (1, 1, 3), (3, 3, 1), (3, None, 1), (3, 1, 3)],
)
def test_grey_and_colour(node, tmp_path, picture_channels, decoded_channels, channels):
    preparation = ImagePreparation(24, channels, decoded_channels=decoded_channels)
    picture = image(50, 40, picture_channels)
    found = page_pixels(node, tmp_path, picture, preparation)
    np.testing.assert_allclose(found, python_pixels(picture, preparation), atol=1)


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def test_png_keeps_pixels_only(node, tmp_path):
    plain = tf.io.encode_png(image(5, 7)).numpy()
    header = plain[:33]  # signature and IHDR
    extra = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"eXIf", b"orientation")
    (tmp_path / "file").write_bytes(header + extra + plain[33:])
    node(STRIP)
    np.testing.assert_array_equal(
        tf.io.decode_png((tmp_path / "stripped").read_bytes()), image(5, 7)
    )
    stripped = (tmp_path / "stripped").read_bytes()
    assert b"gAMA" not in stripped
    assert b"eXIf" not in stripped


def test_jpeg_keeps_pixels_only(node, tmp_path):
    plain = tf.io.encode_jpeg(image(16, 24)).numpy()
    exif, profile = b"\xff\xe1\x00\x08Exif\0\0", b"\xff\xe2\x00\x05ICC"
    (tmp_path / "file").write_bytes(plain[:2] + exif + profile + plain[2:])
    node(STRIP)
    assert (tmp_path / "stripped").read_bytes() == plain


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a and so on", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_other_bytes_stay_as_they_are(node, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    node(STRIP)
    assert (tmp_path / "stripped").read_bytes() == content
