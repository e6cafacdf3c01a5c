/** Ethernet frames on a byte stream, as QEMU has them: 4-byte big-endian length, then the frame. */
import type { Socket } from 'node:net';
import { NetworkError } from './network-error.js';

export const STREAM_FRAME_BYTES_MAX = 64 << 10;
const LENGTH_BYTES = 4;

/** Writes one frame, unless more than `queueBytesMax` would then wait; says whether it did. */
export function writeFrame(socket: Socket, frame: Uint8Array, queueBytesMax: number): boolean {
  const bytes = LENGTH_BYTES + frame.length;
  if (socket.writableLength + bytes > queueBytesMax || frame.length > STREAM_FRAME_BYTES_MAX)
    return false;
  const framed = Buffer.allocUnsafe(bytes);
  framed.writeUInt32BE(frame.length, 0);
  framed.set(frame, LENGTH_BYTES);
  socket.write(framed);
  return true;
}

/** Cuts a stream into frames. Holds one incomplete frame at most. */
export class StreamFrameReader {
  private readonly onFrame: (frame: Uint8Array) => void;
  private pending: Buffer = Buffer.alloc(0);

  constructor(onFrame: (frame: Uint8Array) => void) {
    this.onFrame = onFrame;
  }

  /** Throws `NetworkError` when a length is impossible; the stream is then of no more use. */
  feed(chunk: Buffer): void {
    const bytes = this.pending.length > 0 ? Buffer.concat([this.pending, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = bytes.readUInt32BE(at);
      if (length === 0 || length > STREAM_FRAME_BYTES_MAX)
        throw new NetworkError('BAD_FRAME', `a stream claims a frame of ${length} bytes`);
      const end = at + LENGTH_BYTES + length;
      if (end > bytes.length) break;
      // A copy: the receiver may keep it, and must not keep the whole chunk with it.
      this.onFrame(new Uint8Array(bytes.subarray(at + LENGTH_BYTES, end)));
      at = end;
    }
    this.pending = Buffer.from(bytes.subarray(at));
  }
}
