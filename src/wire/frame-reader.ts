/** Cuts a byte stream into frames, whatever its chunks. Takes memory for one frame. */
import { FRAME_HEADER_BYTES, type FrameCodec, type FrameHeader } from './frame.js';

/** Checks a header on its own, before anything is kept for it; throws to refuse. */
export type HeaderCheck = (header: FrameHeader) => void;

export class FrameReader {
  private readonly codec: FrameCodec;
  private readonly check: HeaderCheck;
  private readonly headerBytes = Buffer.alloc(FRAME_HEADER_BYTES);
  private headerFilled = 0;
  private header: FrameHeader | null = null;
  private payload: Buffer | null = null;
  private payloadFilled = 0;
  private chunk: Buffer = Buffer.alloc(0);
  private at = 0;

  constructor(codec: FrameCodec, check: HeaderCheck) {
    this.codec = codec;
    this.check = check;
  }

  /** True between two frames. */
  get idle(): boolean {
    return this.headerFilled === 0 && this.at === this.chunk.length;
  }

  /** Gives the next bytes; call `next` until it returns `null` before giving more. */
  feed(chunk: Buffer): void {
    if (this.at !== this.chunk.length) throw new Error('the last chunk was not read to its end');
    this.chunk = chunk;
    this.at = 0;
  }

  /** The next whole, verified frame, or `null` when more bytes are needed. Throws `FrameError`. */
  next(): { header: FrameHeader; payload: Buffer } | null {
    const header = this.header ?? this.readHeader();
    if (header === null) return null;
    const payload = this.readPayload(header.payloadBytes);
    if (payload === null) return null;
    this.codec.verify(header, payload);
    this.header = null;
    this.headerFilled = 0;
    return { header, payload };
  }

  private readHeader(): FrameHeader | null {
    const count = Math.min(FRAME_HEADER_BYTES - this.headerFilled, this.chunk.length - this.at);
    this.chunk.copy(this.headerBytes, this.headerFilled, this.at, this.at + count);
    this.headerFilled += count;
    this.at += count;
    if (this.headerFilled < FRAME_HEADER_BYTES) return null;
    const header = this.codec.decodeHeader(this.headerBytes);
    this.check(header);
    this.header = header;
    return header;
  }

  /** A payload that lies whole in the chunk is not copied. */
  private readPayload(byteCount: number): Buffer | null {
    const left = this.chunk.length - this.at;
    if (this.payload === null && left >= byteCount) {
      const whole = this.chunk.subarray(this.at, this.at + byteCount);
      this.at += byteCount;
      return whole;
    }
    this.payload ??= Buffer.allocUnsafeSlow(byteCount);
    const count = Math.min(byteCount - this.payloadFilled, left);
    this.chunk.copy(this.payload, this.payloadFilled, this.at, this.at + count);
    this.payloadFilled += count;
    this.at += count;
    if (this.payloadFilled < byteCount) return null;
    const { payload } = this;
    this.payload = null;
    this.payloadFilled = 0;
    return payload;
  }
}
