// Reads the maps that lie in the page: base64, gzip, bytes of equal place together.
"use strict";
const Volume = (() => {
  const TYPES = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

  const supported = () => typeof DecompressionStream === "function";

  async function bytes(name) {
    const text = document.getElementById(`blob-${name}`).textContent;
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function read(name, type) {
    const planes = await bytes(name);
    const Kind = TYPES[type];
    const width = Kind.BYTES_PER_ELEMENT;
    const count = planes.length / width;
    const joined = new Uint8Array(planes.length);
    for (let b = 0; b < width; b++) {
      for (let i = 0, from = b * count; i < count; i++) joined[i * width + b] = planes[from + i];
    }
    return new Kind(joined.buffer);
  }

  // Position in the mask of every voxel of the grid, -1 outside; x is fastest.
  async function positions(shape, expected) {
    const bits = await read("mask", "uint8");
    const found = new Int32Array(shape[0] * shape[1] * shape[2]).fill(-1);
    let next = 0;
    for (let v = 0; v < found.length; v++) {
      if ((bits[v >> 3] >> (v & 7)) & 1) found[v] = next++;
    }
    if (next !== expected) throw new Error(`the mask has ${next} voxels, not ${expected}`);
    return found;
  }

  // A map's values by side: one array, or three of p (positive, negative, two-sided).
  async function load(entry) {
    const parts = await Promise.all(entry.blobs.map((name) => read(name, entry.dtype)));
    if (!entry.counts) return parts;
    return parts.map((k) => Float32Array.from(k, (n) => n / entry.permutations));
  }

  function colours(digits) {
    const table = new Uint8Array(digits.length / 2);
    for (let i = 0; i < table.length; i++) table[i] = parseInt(digits.substr(2 * i, 2), 16);
    return table;
  }

  // Which voxels pass, as NumPy compares float32 maps with a number.
  function passing(entry, parts, z, t, side, out) {
    const first = side !== "negative";
    const second = side !== "positive";
    if (entry.kind === "p") {
      const limit = Math.fround(t * (1 + 1e-6));
      const [up, down, both] = parts;
      if (side === "two-sided") {
        for (let v = 0; v < out.length; v++) out[v] = both[v] <= limit ? 1 : 0;
      } else {
        for (let v = 0; v < out.length; v++) {
          out[v] = (first && up[v] <= limit && z[v] > 0) || (second && down[v] <= limit && z[v] < 0) ? 1 : 0;
        }
      }
    } else {
      const limit = Math.fround(t);
      const values = parts[0];
      const plain = entry.kind === "plain";
      for (let v = 0; v < out.length; v++) {
        out[v] = plain ? (values[v] >= limit ? 1 : 0)
          : (first && values[v] >= limit) || (second && -values[v] >= limit) ? 1 : 0;
      }
    }
    let count = 0;
    for (let v = 0; v < out.length; v++) count += out[v];
    return count;
  }

  return { supported, read, positions, load, colours, passing };
})();
