"""The sixteen RandAugment operations on one image.

Every function takes a uint8 image [H, W, C] with C = 1 or 3 (H and W may be unknown until run
time) and returns a uint8 image of the same shape. Magnitudes may be Python numbers or scalar
tensors. Values follow Pillow (`ImageOps`, `ImageEnhance`), directions follow Pillow's affine
transform: for shear and translate the output pixel (x, y) is read at a transformed position.
Source: AutoAugment (arXiv 1805.09501) table 6, RandAugment (arXiv 1909.13719).

The pointwise operations use byte arithmetic where they can: on CPU a gather from a 256-entry
table costs about 0.7 ms for a 224 px image, five to ten times as much as the arithmetic.
"""

from __future__ import annotations

import math

import tensorflow as tf

from effnetv2_tf.data.augment._common import require_image, truncate_to_uint8

GREY_FILL = 128

# Pillow's integer luma weights: (19595 R + 38470 G + 7471 B + 32768) >> 16. Every partial sum
# stays below 2**24, so float32 computes them exactly.
_LUMA_WEIGHTS = (19595.0, 38470.0, 7471.0)

# Positions of geometric operations are int32 with 16 fractional bits, as Pillow's.
_FIXED_BITS = 16
_FIXED_ONE = 1 << _FIXED_BITS


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest pixel becomes 0 and its brightest 255.

    The value is floor((x - low) * 255 / (high - low)) exactly; Pillow's `ImageOps.autocontrast`
    computes the same in floating point and can be one level lower where that is an integer.
    A channel of one value is left alone.
    """
    image = require_image(image)
    channels = image.shape[-1]
    rows = _as_rows(tf.cast(image, tf.float32))
    # First over rows, then over columns: the first, large reduction is a vectorised one.
    low = tf.reduce_min(tf.reshape(tf.reduce_min(rows, axis=0), [-1, channels]), axis=0)
    high = tf.reduce_max(tf.reshape(tf.reduce_max(rows, axis=0), [-1, channels]), axis=0)
    is_flat = high <= low
    low = tf.where(is_flat, tf.zeros_like(low), low)
    span = tf.where(is_flat, tf.fill(tf.shape(low), 255.0), high - low)
    width = tf.shape(image)[1]
    stretched = (rows - tf.tile(low, [width])) * 255.0 / tf.tile(span, [width])
    return _with_shape_of(image, tf.cast(stretched, tf.uint8))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Flattens each channel's histogram, exactly as Pillow's `ImageOps.equalize`."""
    image = require_image(image)
    channels = image.shape[-1]
    # Channel c owns bins 256 c to 256 c + 255: one histogram and one gather serve them all.
    # Offsets are added to long rows: broadcasting along three channels is five times slower.
    offsets = tf.tile(tf.range(channels) * 256, [tf.shape(image)[1]])
    bins = tf.cast(_as_rows(image), tf.int32) + offsets  # [H, W C]
    histogram = tf.raw_ops.HistogramFixedWidth(
        values=tf.reshape(tf.cast(bins, tf.float32), [-1]),
        value_range=[0.0, 256.0 * channels],
        nbins=256 * channels,
    )
    table = _equalize_table(tf.reshape(histogram, [channels, 256]))
    # gather_nd is about twice as fast as gather for single bytes.
    equalized = tf.gather_nd(tf.reshape(table, [-1]), bins[..., tf.newaxis])
    return _with_shape_of(image, equalized)


def _equalize_table(histogram: tf.Tensor) -> tf.Tensor:
    """Returns Pillow's equalisation table, uint8 [C, 256], of an int32 histogram [C, 256]."""
    brightest = 255 - tf.argmax(tf.reverse(histogram > 0, [1]), axis=1, output_type=tf.int32)
    count_of_brightest = tf.gather(histogram, brightest, axis=1, batch_dims=1)
    step = (tf.reduce_sum(histogram, axis=1) - count_of_brightest) // 255
    step = step[:, tf.newaxis]
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, table, tf.range(256)[tf.newaxis]), tf.uint8)


def invert(image: tf.Tensor) -> tf.Tensor:
    """Returns 255 - image."""
    return tf.bitwise.invert(require_image(image))


def posterize(image: tf.Tensor, bits: int | tf.Tensor) -> tf.Tensor:
    """Keeps the `bits` highest bits (0 to 8) of every value and clears the others."""
    image = require_image(image)
    cleared = 8 - tf.clip_by_value(tf.cast(bits, tf.int32), 0, 8)
    mask = tf.bitwise.bitwise_and(tf.bitwise.left_shift(255, cleared), 255)
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image: tf.Tensor, threshold: int | tf.Tensor) -> tf.Tensor:
    """Inverts the values that are at least `threshold` (0 inverts all, 256 or more none)."""
    image = require_image(image)
    is_inverted = tf.cast(image, tf.int32) >= tf.cast(threshold, tf.int32)
    # XOR with 255 inverts, XOR with 0 keeps: tf.where branches per pixel, ten times slower.
    return tf.bitwise.bitwise_xor(
        image, tf.cast(is_inverted, tf.uint8) * tf.constant(255, tf.uint8)
    )


def solarize_add(image: tf.Tensor, addition: int | tf.Tensor, threshold: int = 128) -> tf.Tensor:
    """Adds `addition` (0 to 255, clipped), saturating at 255, to the values below `threshold`.

    Args:
      image: uint8 [H, W, C].
      addition: Grey levels to add.
      threshold: From 0 to 255.
    """
    image = require_image(image)
    addition = tf.cast(tf.clip_by_value(tf.cast(addition, tf.int32), 0, 255), tf.uint8)
    headroom = tf.bitwise.invert(image)
    is_dark = tf.cast(image < tf.constant(threshold, tf.uint8), tf.uint8)
    return image + tf.minimum(headroom, addition) * is_dark


def color(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blends grey version and image: 0 is grey, 1 the image, above 1 more saturated.

    As Pillow's `ImageEnhance.Color`. An image of one channel has no colour and is returned
    as it is.
    """
    image = require_image(image)
    if image.shape[-1] == 1:
        return image
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    # A matrix product that repeats the grey value in three columns: broadcasting a single
    # column along three channels takes more than twice the time of the whole function.
    weights = tf.tile(tf.constant(_LUMA_WEIGHTS)[:, tf.newaxis], [1, 3])
    grey = _scaled_luma(tf.matmul(pixels, weights))
    return _with_shape_of(image, truncate_to_uint8(_blend(grey, pixels, factor)))


def contrast(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blends the mean grey level and the image: 0 is flat grey, 1 the image.

    As Pillow's `ImageEnhance.Contrast`: the mean of the grey version, rounded to a level.
    """
    image = require_image(image)
    row_sums = tf.reduce_sum(_luma(image), axis=[1, 2])  # [H], exact: below 2**24
    total = tf.reduce_sum(tf.cast(row_sums, tf.float64))
    pixels = tf.cast(tf.reduce_prod(tf.shape(image)[:2]), tf.float64)
    mean = tf.cast(tf.floor(total / pixels + 0.5), tf.float32)
    return truncate_to_uint8(_blend(mean, tf.cast(image, tf.float32), factor))


def brightness(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Multiplies by `factor`, truncated and saturated: Pillow's `ImageEnhance.Brightness`."""
    image = require_image(image)
    return truncate_to_uint8(tf.cast(image, tf.float32) * tf.cast(factor, tf.float32))


def sharpness(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Blends a smoothed version and the image: below 1 softer, above 1 sharper.

    As Pillow's `ImageEnhance.Sharpness`: smoothing by [1 1 1; 1 5 1; 1 1 1] / 13, the border
    of one pixel is kept. An image less than 3 pixels high or wide is all border.
    """
    image = require_image(image)
    is_all_border = tf.reduce_min(tf.shape(image)[:2]) < 3
    result = tf.cond(is_all_border, lambda: image, lambda: _sharpen_inside(image, factor))
    result.set_shape(image.shape)
    return result


def _sharpen_inside(image: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    c = image.shape[-1]  # a step of one pixel to the right in a flattened row
    flat = _as_rows(image)
    rows = tf.cast(flat, tf.float32)  # [H, W C]
    columns = rows[:-2] + rows[1:-1] + rows[2:]  # [H - 2, W C]
    box = columns[:, : -2 * c] + columns[:, c:-c] + columns[:, 2 * c :]  # [H - 2, (W - 2) C]
    centre = rows[1:-1, c:-c]
    smooth = tf.floor((box + 4.0 * centre) * (1.0 / 13.0) + 0.5)  # n / 13 is never near a tie
    inside = truncate_to_uint8(_blend(smooth, centre, factor))
    middle = tf.concat([flat[1:-1, :c], inside, flat[1:-1, -c:]], axis=1)
    return _with_shape_of(image, tf.concat([flat[:1], middle, flat[-1:]], axis=0))


def rotate(image: tf.Tensor, degrees: float | tf.Tensor, fill: int = GREY_FILL) -> tf.Tensor:
    """Rotates about the centre, counterclockwise for positive `degrees`, nearest pixel."""
    image = require_image(image)
    radians = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = _to_fixed(tf.cos(radians) / 2.0), _to_fixed(tf.sin(radians) / 2.0)
    # In units of half a pixel the centre is a whole number: last_x, last_y.
    last_y, last_x = tf.unstack(tf.shape(image)[:2] - 1)
    offset_x = last_x * _FIXED_ONE // 2 - cosine * last_x + sine * last_y
    offset_y = last_y * _FIXED_ONE // 2 - sine * last_x - cosine * last_y
    affine = [2 * cosine, -2 * sine, offset_x, 2 * sine, 2 * cosine, offset_y]
    return _project(image, affine, fill)


def shear_x(image: tf.Tensor, level: float | tf.Tensor, fill: int = GREY_FILL) -> tf.Tensor:
    """Reads output pixel (x, y) at (x + level * y, y): row y moves left by level * y pixels."""
    affine = [_FIXED_ONE, _to_fixed(level), 0, 0, _FIXED_ONE, 0]
    return _project(require_image(image), affine, fill)


def shear_y(image: tf.Tensor, level: float | tf.Tensor, fill: int = GREY_FILL) -> tf.Tensor:
    """Reads output pixel (x, y) at (x, y + level * x): column x moves up by level * x pixels."""
    affine = [_FIXED_ONE, 0, 0, _to_fixed(level), _FIXED_ONE, 0]
    return _project(require_image(image), affine, fill)


def translate_x(image: tf.Tensor, pixels: float | tf.Tensor, fill: int = GREY_FILL) -> tf.Tensor:
    """Moves the content left by `pixels` (rounded; negative moves it right)."""
    return _translate(image, pixels, fill, axis=1)


def translate_y(image: tf.Tensor, pixels: float | tf.Tensor, fill: int = GREY_FILL) -> tf.Tensor:
    """Moves the content up by `pixels` (rounded; negative moves it down)."""
    return _translate(image, pixels, fill, axis=0)


def cutout(
    image: tf.Tensor,
    center_y: int | tf.Tensor,
    center_x: int | tf.Tensor,
    half_size: int | tf.Tensor,
    fill: int = GREY_FILL,
) -> tf.Tensor:
    """Fills the square of side 2 * half_size around a centre, clipped at the borders.

    Rows center_y - half_size to center_y + half_size - 1 and the same columns are filled, as
    in the reference implementation of RandAugment; Cutout itself is arXiv 1708.04552.
    """
    image = require_image(image)
    height, width = tf.unstack(tf.shape(image)[:2])
    y = tf.range(height)[:, tf.newaxis]
    x = (tf.range(width * image.shape[-1]) // image.shape[-1])[tf.newaxis]
    inside_rows = (y >= center_y - half_size) & (y < center_y + half_size)
    inside_columns = (x >= center_x - half_size) & (x < center_x + half_size)
    is_cut = inside_rows & inside_columns  # [H, W C]
    return _with_shape_of(image, tf.where(is_cut, tf.constant(fill, tf.uint8), _as_rows(image)))


def _translate(image: tf.Tensor, pixels: float | tf.Tensor, fill: int, axis: int) -> tf.Tensor:
    # Padding and slicing whole rows costs a tenth of a projective transform.
    image = require_image(image)
    shape = tf.shape(image)
    shift = tf.cast(tf.round(tf.cast(pixels, tf.float32)), tf.int32)
    shift = tf.clip_by_value(shift, -shape[axis], shape[axis])
    along_axis = tf.one_hot(axis, 3, dtype=tf.int32)
    before, after = tf.maximum(-shift, 0) * along_axis, tf.maximum(shift, 0) * along_axis
    padded = tf.pad(
        image, tf.stack([before, after], axis=1), constant_values=tf.constant(fill, tf.uint8)
    )
    return _with_shape_of(image, tf.slice(padded, after, shape))


def _project(image: tf.Tensor, affine: list[int | tf.Tensor], fill: int) -> tf.Tensor:
    """Reads output (x, y) at (a x + b y + c, d x + e y + f), nearest pixel, `fill` outside.

    One gather of whole pixels: a third of the time of ImageProjectiveTransformV3, which works
    value by value. Coefficients are fixed-point numbers: in floating point, a graph optimiser
    that reorders sums moves pixels whose position is a tie. Good for sides up to 10,000 pixels.
    """
    a, b, c, d, e, f = affine
    height, width = tf.unstack(tf.shape(image)[:2])
    x, y = tf.range(width)[tf.newaxis], tf.range(height)[:, tf.newaxis]
    source_x = _nearest_or_frame(a * x + (b * y + c), width)  # [H, W]
    source_y = _nearest_or_frame(d * x + (e * y + f), height)
    one_pixel = [[1, 1], [1, 1], [0, 0]]
    framed = tf.pad(image, one_pixel, constant_values=tf.constant(fill, tf.uint8))
    indices = (source_y + 1) * (width + 2) + source_x + 1
    pixels = tf.reshape(framed, [-1, image.shape[-1]])
    return _with_shape_of(image, tf.gather_nd(pixels, indices[..., tf.newaxis]))


def _nearest_or_frame(positions: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the nearest pixel, or -1 or `size` (the filled frame) for positions outside."""
    nearest = tf.bitwise.right_shift(positions + _FIXED_ONE // 2, _FIXED_BITS)
    return tf.clip_by_value(nearest, -1, size)


def _to_fixed(value: float | tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(value, tf.float32) * _FIXED_ONE), tf.int32)


def _luma(image: tf.Tensor) -> tf.Tensor:
    """Returns the grey version as Pillow's convert("L") computes it, float32 [H, W, 1]."""
    values = tf.cast(image, tf.float32)
    if image.shape[-1] == 1:
        return values
    red, green, blue = tf.split(values, 3, axis=-1)
    weights = _LUMA_WEIGHTS
    return _scaled_luma(red * weights[0] + green * weights[1] + blue * weights[2])


def _scaled_luma(weighted: tf.Tensor) -> tf.Tensor:
    """Divides sums by the weights' total, 2**16, and rounds them; exact in float32."""
    return tf.floor((weighted + 32768.0) * (1.0 / 65536.0))


def _blend(degenerate: tf.Tensor, values: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Returns degenerate + factor * (values - degenerate), Pillow's blend before clipping."""
    return degenerate + tf.cast(factor, tf.float32) * (values - degenerate)


def _as_rows(image: tf.Tensor) -> tf.Tensor:
    """Returns the image as [H, W * C]: long rows vectorise, three channels do not."""
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _with_shape_of(image: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    values = tf.reshape(values, tf.shape(image))
    values.set_shape(image.shape)
    return values
