// From a decoded image to the network's input, as evaluation in Python does it: the same window,
// TensorFlow's resize (half-pixel centres, no antialiasing), rounding to whole grey levels.

const CUBIC = -0.5; // Keys' parameter
const CUBIC_STEPS = 1024; // TensorFlow looks the cubic's weights up in a table of so many steps
// How many pixels in a row are blended, and whether those at the border stand for what lies beyond.
const KERNELS = {
  bilinear: { count: 2, weigh: (share) => [1 - share, share], repeatsBorder: true },
  bicubic: { count: 4, weigh: cubicWeights, repeatsBorder: false },
};
const LUMINANCE = [9797 / 32768, 19234 / 32768, 3737 / 32768]; // libpng's, for 0.299, 0.587, 0.114
const GRAYSCALE = [0.2989, 0.587, 0.114]; // of tf.image.rgb_to_grayscale

/** The part of an image that is used: {x, y, width, height} in pixels. */
export function evaluationWindow(width, height, preparation) {
  if (preparation.crop === "none") return { x: 0, y: 0, width, height };
  const { image_size: size, crop_padding: padding } = preparation;
  const shorter = Math.min(width, height);
  const side = Math.max(1, Math.floor((size * shorter) / (size + padding)));
  return {
    x: Math.floor((width - side + 1) / 2),
    y: Math.floor((height - side + 1) / 2),
    width: side,
    height: side,
  };
}

/**
 * Turns the window of an image into the network's input.
 *
 * Takes what `decode` returns; returns a Float32Array (size, size, channels), values 0 to 255.
 */
export function prepare({ width, height, rgba, isPng }, preparation) {
  const { image_size: size, channels, interpolation } = preparation;
  const decoded = preparation.decoded_channels ?? channels;
  const pixels = decoded === 1 ? decodedGray(rgba, isPng) : withoutAlpha(rgba);
  const resized = resize(pixels, width, height, decoded, size, interpolation);
  return Float32Array.from(toChannels(resized, decoded, channels));
}

function withoutAlpha(rgba) {
  const rgb = new Uint8ClampedArray((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}

/** What a decoder makes of colours when it is asked for grey; libpng rounds down. */
function decodedGray(rgba, isPng) {
  const gray = new Uint8ClampedArray(rgba.length / 4);
  const [r, g, b] = LUMINANCE;
  for (let to = 0, from = 0; to < gray.length; to += 1, from += 4) {
    const value = r * rgba[from] + g * rgba[from + 1] + b * rgba[from + 2];
    gray[to] = isPng ? Math.floor(value) : value;
  }
  return gray;
}

/** uint8 (height, width, channels) to uint8 (size, size, channels). */
export function resize(pixels, width, height, channels, size, interpolation) {
  const rows = makeTaps(height, size, KERNELS[interpolation]);
  const columns = makeTaps(width, size, KERNELS[interpolation]);
  const stride = width * channels;
  const row = new Float32Array(stride);
  const resized = new Uint8ClampedArray(size * size * channels); // rounds half to even, as Python
  let place = 0;
  for (let y = 0; y < size; y += 1) {
    blendRows(row, pixels, rows, y);
    for (let x = 0; x < size; x += 1) {
      for (let channel = 0; channel < channels; channel += 1) {
        let sum = 0;
        for (let tap = x * columns.count; tap < (x + 1) * columns.count; tap += 1) {
          sum += columns.weights[tap] * row[columns.indices[tap] * channels + channel];
        }
        resized[place] = sum;
        place += 1;
      }
    }
  }
  return resized;
}

function blendRows(row, pixels, rows, y) {
  row.fill(0);
  for (let tap = y * rows.count; tap < (y + 1) * rows.count; tap += 1) {
    const weight = rows.weights[tap];
    const start = rows.indices[tap] * row.length;
    for (let place = 0; place < row.length; place += 1) {
      row[place] += weight * pixels[start + place];
    }
  }
}

/** For each output pixel the input pixels it is blended from, with their weights. */
function makeTaps(inputs, outputs, { count, weigh, repeatsBorder }) {
  const scale = Math.fround(inputs / outputs);
  const indices = new Int32Array(outputs * count);
  const weights = new Float32Array(outputs * count);
  for (let index = 0; index < outputs; index += 1) {
    const place = Math.fround(Math.fround((index + 0.5) * scale) - 0.5); // TensorFlow's precision
    const left = Math.floor(place);
    const first = left - (count / 2 - 1);
    const beyond = (tap) => first + tap < 0 || first + tap >= inputs;
    const wanted = weigh(place - left).map((w, tap) => (repeatsBorder || !beyond(tap) ? w : 0));
    const sum = wanted.reduce((total, weight) => total + weight);
    wanted.forEach((weight, tap) => {
      indices[index * count + tap] = Math.min(Math.max(first + tap, 0), inputs - 1);
      weights[index * count + tap] = weight / sum;
    });
  }
  return { count, indices, weights };
}

/** Weights of the four pixels around a place, `share` of the way from the second to the third. */
function cubicWeights(share) {
  const x = Math.round(share * CUBIC_STEPS) / CUBIC_STEPS;
  return [cubicFar(1 + x), cubicNear(x), cubicNear(1 - x), cubicFar(2 - x)];
}

/** Keys' cubic at a distance of at most 1. */
function cubicNear(x) {
  return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
}

/** Keys' cubic at a distance of 1 to 2. */
function cubicFar(x) {
  return ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC;
}

/** Grey images to three equal channels, colour images to their luminance. */
function toChannels(pixels, from, to) {
  if (from === to) return pixels;
  const count = pixels.length / from;
  const result = new Uint8ClampedArray(count * to);
  for (let index = 0; index < count; index += 1) {
    if (to === 3) {
      result.fill(pixels[index], 3 * index, 3 * index + 3);
    } else {
      const [r, g, b] = GRAYSCALE.map((weight, c) => weight * pixels[3 * index + c]);
      result[index] = Math.floor(((r + g + b) / 255) * 255.5); // as tf.image.convert_image_dtype
    }
  }
  return result;
}
