/** Serial output that is not both released and cut into an epoch yet, by its place. */

const CAPACITY_MIN = 4 << 10;
/** An emptied buffer larger than this is given back. */
const CAPACITY_KEPT_MAX = 64 << 10;

export class SerialLog {
  private buffer = new Uint8Array(CAPACITY_MIN);
  /** Index in `buffer` of the byte at place `first`. */
  private at = 0;
  private length = 0;
  private first: number;

  constructor(startOffset = 0) {
    this.first = startOffset;
  }

  /** Place of the oldest byte held; `end` if there is none. */
  get start(): number {
    return this.first;
  }

  get end(): number {
    return this.first + this.length;
  }

  append(bytes: Uint8Array): void {
    if (this.at + this.length + bytes.length > this.buffer.length) this.makeRoom(bytes.length);
    this.buffer.set(bytes, this.at + this.length);
    this.length += bytes.length;
  }

  /** A copy of the bytes from `from` (or from `start`, if that is later) to `to`. */
  slice(from: number, to: number): { offset: number; bytes: Uint8Array } {
    const offset = Math.max(from, this.first);
    const begin = this.at + offset - this.first;
    const end = this.at + Math.min(to, this.end) - this.first;
    return { offset, bytes: this.buffer.slice(begin, Math.max(begin, end)) };
  }

  dropBefore(offset: number): void {
    const count = Math.min(this.length, Math.max(0, offset - this.first));
    this.at += count;
    this.first += count;
    this.length -= count;
    if (this.length > 0) return;
    this.at = 0;
    if (this.buffer.length > CAPACITY_KEPT_MAX) this.buffer = new Uint8Array(CAPACITY_MIN);
  }

  /** Moves what is held to the front, of a larger buffer if it takes more than half of this one. */
  private makeRoom(bytes: number): void {
    const held = this.buffer.subarray(this.at, this.at + this.length);
    let capacity = this.buffer.length;
    while (capacity < 2 * (held.length + bytes)) capacity *= 2;
    if (capacity === this.buffer.length) this.buffer.copyWithin(0, this.at, this.at + this.length);
    else {
      this.buffer = new Uint8Array(capacity);
      this.buffer.set(held);
    }
    this.at = 0;
  }
}
