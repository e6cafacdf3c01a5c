/** The last bytes of the VM's serial output by their place in the stream, for consoles. */

export const SERIAL_RING_BYTES = 1 << 20;

export interface SerialRead {
  /** Place of the first of `bytes`; later than asked for if what lay before is lost. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** Bytes between the place asked for and `offset` are not here (any more). */
  readonly gap: boolean;
}

export class SerialRing {
  private readonly ring: Uint8Array;
  private first = 0;
  private next = 0;

  constructor(capacityBytes: number = SERIAL_RING_BYTES) {
    this.ring = new Uint8Array(capacityBytes);
  }

  /** Place of the oldest byte held. */
  get start(): number {
    return this.first;
  }

  /** Place of the byte that comes next. */
  get end(): number {
    return this.next;
  }

  /** Bytes already here are skipped; bytes past `end` leave a gap, and all before it is dropped. */
  append(offset: number, bytes: Uint8Array): void {
    if (offset > this.next) {
      this.first = offset;
      this.next = offset;
    }
    const capacity = this.ring.length;
    let fresh = bytes.subarray(Math.min(bytes.length, this.next - offset));
    if (fresh.length > capacity) {
      this.next += fresh.length - capacity;
      fresh = fresh.subarray(fresh.length - capacity);
    }
    const at = this.next % capacity;
    const head = fresh.subarray(0, capacity - at);
    this.ring.set(head, at);
    this.ring.set(fresh.subarray(head.length), 0);
    this.next += fresh.length;
    this.first = Math.max(this.first, this.next - capacity);
  }

  /** A copy of the bytes from `from` on, at most `bytesMax` of them. */
  read(from: number, bytesMax: number = this.ring.length): SerialRead {
    if (from > this.next) return { offset: this.next, bytes: new Uint8Array(0), gap: true };
    const offset = Math.max(from, this.first);
    const bytes = new Uint8Array(Math.min(bytesMax, this.next - offset));
    const at = offset % this.ring.length;
    const head = this.ring.subarray(at, Math.min(this.ring.length, at + bytes.length));
    bytes.set(head, 0);
    bytes.set(this.ring.subarray(0, bytes.length - head.length), head.length);
    return { offset, bytes, gap: offset !== from };
  }

  reset(): void {
    this.first = 0;
    this.next = 0;
  }
}
