/** Payload of an `epoch-part`: part 0 starts with the epoch's output, the rest is encoded pages. */

const LENGTH_BYTES = 4;

export function joinPart(part: number, output: Uint8Array, pages: Uint8Array): Uint8Array {
  if (part !== 0) return pages;
  const joined = new Uint8Array(LENGTH_BYTES + output.length + pages.length);
  new DataView(joined.buffer).setUint32(0, output.length, true);
  joined.set(output, LENGTH_BYTES);
  joined.set(pages, LENGTH_BYTES + output.length);
  return joined;
}

export function splitPart(
  part: number,
  payload: Uint8Array,
): { output: Uint8Array | null; pages: Uint8Array } {
  if (part !== 0) return { output: null, pages: payload };
  if (payload.length < LENGTH_BYTES) throw new Error('epoch part shorter than its header');
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const outputBytes = view.getUint32(0, true);
  if (outputBytes > payload.length - LENGTH_BYTES)
    throw new Error(`epoch part claims ${outputBytes} bytes of output and holds fewer`);
  const pagesAt = LENGTH_BYTES + outputBytes;
  // The output outlives the receive buffer, so it is copied; pages are decoded at once.
  return {
    output: Uint8Array.from(payload.subarray(LENGTH_BYTES, pagesAt)),
    pages: payload.subarray(pagesAt),
  };
}
