// Pictures: from a file to the pixels that are in it, from a mask to a PNG file. Not here: networks, the page.

/**
 * The pixels of a picture file, RGBA: upright as its EXIF says, and in the numbers that it holds. No colour profile is
 * applied, since crispseg applies none in Python either. An Error, in words, if the browser cannot read it.
 */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" });
  } catch {
    throw new Error(`${file.name || "This"} is no picture that this browser can read. PNG, JPEG, WebP and BMP are.`);
  }
  const { width, height } = bitmap, context = canvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error(`${width}×${height} pixels are more than this browser can draw.`);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  let clear = 0;
  for (let i = 3; i < rgba.length; i += 4) clear += rgba[i] < 255;
  return { rgba, width, height, clear };
}

/** Whether this browser gives the pixels of a canvas as they are; some change them, so that pages cannot tell users apart. */
export function pixelsAreTrue() {
  const context = canvas(16, 16).getContext("2d", { willReadFrequently: true });
  const given = new ImageData(16, 16);
  for (let i = 0; i < given.data.length; i++) given.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  context.putImageData(given, 0, 0);
  const found = context.getImageData(0, 0, 16, 16).data;
  return given.data.every((value, i) => value === found[i]);
}

/** A mask as a PNG file of class indices that looks like the classes' colours: as `crispseg predict` writes them. */
export async function png(mask, width, height, palette) {
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 3], 8); // 8 bits, a palette
  const colours = new Uint8Array(768);
  palette.forEach((colour, i) => colours.set(colour, 3 * i));
  const rows = new Uint8Array(height * (width + 1)); // each row begins with its filter, 0
  for (let y = 0; y < height; y++) rows.set(mask.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const data = new Uint8Array(await packed.arrayBuffer());
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([signature, chunk("IHDR", header), chunk("PLTE", colours), chunk("IDAT", data), chunk("IEND", new Uint8Array())],
    { type: "image/png" });
}

function chunk(name, data) {
  const whole = new Uint8Array(12 + data.length), view = new DataView(whole.buffer);
  view.setUint32(0, data.length);
  whole.set(new TextEncoder().encode(name), 4);
  whole.set(data, 8);
  view.setUint32(8 + data.length, checksum(whole.subarray(4, 8 + data.length)));
  return whole;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function checksum(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
