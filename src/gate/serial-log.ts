/** Serial output that is not both released and cut into an epoch yet, by its place in the stream. */

interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class SerialLog {
  private pieces: Piece[] = [];
  private next: number;

  constructor(startOffset = 0) {
    this.next = startOffset;
  }

  get end(): number {
    return this.next;
  }

  /** Place of the oldest byte held; `end` if there is none. */
  get start(): number {
    return this.pieces[0]?.offset ?? this.next;
  }

  /** `bytes` is kept: it must not change. */
  append(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.pieces.push({ offset: this.next, bytes });
    this.next += bytes.length;
  }

  /** The bytes from `from` (or from `start`, if that is later) to `to`. */
  slice(from: number, to: number): { offset: number; bytes: Uint8Array } {
    const offset = Math.min(Math.max(from, this.start), Math.max(to, this.start));
    const bytes = new Uint8Array(Math.max(0, to - offset));
    for (const piece of this.pieces) {
      const begin = Math.max(0, offset - piece.offset);
      const end = Math.min(piece.bytes.length, to - piece.offset);
      if (begin < end) bytes.set(piece.bytes.subarray(begin, end), piece.offset + begin - offset);
    }
    return { offset, bytes };
  }

  /** Forgets whole pieces that lie before `offset`. */
  dropBefore(offset: number): void {
    let count = 0;
    while (count < this.pieces.length) {
      const piece = this.pieces[count];
      if (piece.offset + piece.bytes.length > offset) break;
      count += 1;
    }
    if (count > 0) this.pieces.splice(0, count);
  }
}
