/**
 * One frame on the wire: a 32-byte header and its payload. Nothing of a payload is believed, and no
 * memory taken for it, before the header has been checked; nothing in it is read before its hash.
 *
 *     u16 magic, u8 version, u8 type, u32 payload length, u64 generation, u64 epoch,
 *     u64 XXH64(payload)
 *
 * All little-endian.
 */
import xxhash, { type XXHashAPI } from 'xxhash-wasm';
import { MirrorError } from '../core/errors.js';

export const FRAME_VERSION = 1;
export const FRAME_HEADER_BYTES = 32;
export const FRAME_PAYLOAD_BYTES_MAX = 4 << 20;
const MAGIC = 0x4d52;

/** Codes: FRAME_ MAGIC, VERSION, TYPE, TOO_LONG, NUMBER, HASH, TRUNCATED, MESSAGE. */
export class FrameError extends MirrorError {}

export interface FrameHeader {
  readonly type: number;
  readonly payloadBytes: number;
  readonly generation: number;
  readonly epoch: number;
  readonly hash: bigint;
}

/** What a header says of the sender's place in the VM's history; zeros where it does not apply. */
export interface FramePlace {
  readonly generation: number;
  readonly epoch: number;
}

export class FrameCodec {
  private readonly xxh: XXHashAPI;

  constructor(xxh: XXHashAPI) {
    this.xxh = xxh;
  }

  /** The header of a frame whose payload is `pieces`, one after the other. */
  encodeHeader(type: number, place: FramePlace, pieces: readonly Uint8Array[]): Buffer {
    const payloadBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX)
      throw new FrameError('FRAME_TOO_LONG', `${payloadBytes} bytes of payload are too many`);
    const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
    header.writeUInt16LE(MAGIC, 0);
    header.writeUInt8(FRAME_VERSION, 2);
    header.writeUInt8(type, 3);
    header.writeUInt32LE(payloadBytes, 4);
    header.writeBigUInt64LE(BigInt(place.generation), 8);
    header.writeBigUInt64LE(BigInt(place.epoch), 16);
    header.writeBigUInt64LE(this.hash(pieces), 24);
    return header;
  }

  /** A whole frame in one buffer. */
  encode(type: number, place: FramePlace, payload: Uint8Array): Buffer {
    return Buffer.concat([this.encodeHeader(type, place, [payload]), payload]);
  }

  decodeHeader(bytes: Buffer): FrameHeader {
    if (bytes.length < FRAME_HEADER_BYTES)
      throw new FrameError('FRAME_TRUNCATED', 'frame header is cut short');
    const magic = bytes.readUInt16LE(0);
    if (magic !== MAGIC) throw new FrameError('FRAME_MAGIC', `not a frame: magic ${magic}`);
    const version = bytes.readUInt8(2);
    if (version !== FRAME_VERSION)
      throw new FrameError('FRAME_VERSION', `frame version ${version} is not spoken here`);
    const payloadBytes = bytes.readUInt32LE(4);
    if (payloadBytes > FRAME_PAYLOAD_BYTES_MAX)
      throw new FrameError('FRAME_TOO_LONG', `frame claims ${payloadBytes} bytes of payload`);
    return {
      type: bytes.readUInt8(3),
      payloadBytes,
      generation: readCount(bytes, 8, 'generation'),
      epoch: readCount(bytes, 16, 'epoch'),
      hash: bytes.readBigUInt64LE(24),
    };
  }

  /** Throws unless `payload` is what `header` was made for. */
  verify(header: FrameHeader, payload: Uint8Array): void {
    if (payload.length !== header.payloadBytes)
      throw new FrameError('FRAME_TRUNCATED', 'frame payload is cut short');
    if (this.hash([payload]) !== header.hash)
      throw new FrameError('FRAME_HASH', 'frame payload was damaged on the way');
  }

  private hash(pieces: readonly Uint8Array[]): bigint {
    const [only] = pieces;
    if (pieces.length === 1 && only) return this.xxh.h64Raw(only);
    const state = this.xxh.create64();
    for (const piece of pieces) state.update(piece);
    return state.digest();
  }
}

function readCount(bytes: Buffer, at: number, what: string): number {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new FrameError('FRAME_NUMBER', `frame ${what} is out of range`);
  return Number(value);
}

export async function loadFrameCodec(): Promise<FrameCodec> {
  return new FrameCodec(await xxhash());
}
