// From a file's bytes to the pixels that are stored in it, as TensorFlow decodes them:
// without rotation by an orientation tag and without colour management.

import { evaluationWindow } from "./preparation.js";

export class NotAnImage extends Error {}

const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const JPEG_SIGNATURE = [0xff, 0xd8, 0xff];

/**
 * Decodes the part of an image file that the network looks at.
 *
 * Returns {width, height, rgba, isPng, transparent}: of that part, 4 bytes a pixel; transparent
 * if some pixel is not opaque (a canvas rounds the colours of such pixels).
 */
export async function decode(file, preparation) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(withoutHints(bytes)), {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    throw new NotAnImage(error.message);
  }
  const { x, y, width, height } = evaluationWindow(bitmap.width, bitmap.height, preparation);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, -x, -y);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const isPng = startsWith(bytes, PNG_SIGNATURE);
  return { width, height, rgba, isPng, transparent: hasTransparency(rgba) };
}

/** The file's bytes in pieces, less what would have a browser change pixels. */
export function withoutHints(bytes) {
  if (startsWith(bytes, JPEG_SIGNATURE)) return jpegWithoutHints(bytes);
  if (startsWith(bytes, PNG_SIGNATURE)) return pngWithoutHints(bytes);
  return [bytes];
}

function startsWith(bytes, signature) {
  return signature.every((byte, index) => bytes[index] === byte);
}

/** Leaves out the segments APP1 (Exif: orientation) and APP2 (colour profile). */
function jpegWithoutHints(bytes) {
  const kept = [bytes.subarray(0, 2)];
  let start = 2;
  while (start + 4 <= bytes.length && bytes[start] === 0xff) {
    const marker = bytes[start + 1];
    if (marker === 0xda) break; // start of scan: pixels from here on
    const end = start + 2 + 256 * bytes[start + 2] + bytes[start + 3];
    if (marker !== 0xe1 && marker !== 0xe2) kept.push(bytes.subarray(start, end));
    start = end;
  }
  kept.push(bytes.subarray(start));
  return kept;
}

/** Leaves out ancillary chunks: orientation, colour profile, gamma, animation, transparent colour. */
function pngWithoutHints(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kept = [bytes.subarray(0, PNG_SIGNATURE.length)];
  let start = PNG_SIGNATURE.length;
  while (start + 12 <= bytes.length) {
    const end = start + 12 + view.getUint32(start); // length, type, data, checksum
    const isCritical = (bytes[start + 4] & 0x20) === 0; // the type starts with a capital
    if (isCritical) kept.push(bytes.subarray(start, end));
    start = end;
  }
  return kept;
}

function hasTransparency(rgba) {
  for (let place = 3; place < rgba.length; place += 4) {
    if (rgba[place] !== 255) return true;
  }
  return false;
}
