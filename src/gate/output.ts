/**
 * What a VM sent to the world in one epoch, as bytes that travel with the epoch. Little-endian:
 *
 *     u8 version, u64 input offset, u64 serial offset, u32 serial length, u32 frame count,
 *     then each frame {u8 nic, u32 length, bytes}, then the serial bytes
 */
import { MirrorError } from '../core/errors.js';

export const FRAME_BYTES_MAX = 64 << 10;
export const OUTPUT_BYTES_MAX = 4 << 20;
const VERSION = 1;
const HEAD_BYTES = 25;
const FRAME_HEAD_BYTES = 5;
/** Far enough from where sums of offsets and lengths stop being exact. */
const OFFSET_MAX = 1n << 52n;

export interface NicFrame {
  readonly nic: number;
  readonly bytes: Uint8Array;
}

export interface EpochOutput {
  readonly frames: readonly NicFrame[];
  /** Place in the serial stream of the first byte of `serial`. */
  readonly serialOffset: number;
  readonly serial: Uint8Array;
  /** Serial input up to here has gone into the VM. */
  readonly inputOffset: number;
}

export class OutputError extends MirrorError {}

export function encodeOutput(output: EpochOutput): Uint8Array {
  const { frames, serial } = output;
  const framesBytes = frames.reduce((sum, frame) => sum + FRAME_HEAD_BYTES + frame.bytes.length, 0);
  const bytes = new Uint8Array(HEAD_BYTES + framesBytes + serial.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setBigUint64(1, BigInt(output.inputOffset), true);
  view.setBigUint64(9, BigInt(output.serialOffset), true);
  view.setUint32(17, serial.length, true);
  view.setUint32(21, frames.length, true);
  let at = HEAD_BYTES;
  for (const frame of frames) {
    view.setUint8(at, frame.nic);
    view.setUint32(at + 1, frame.bytes.length, true);
    bytes.set(frame.bytes, at + FRAME_HEAD_BYTES);
    at += FRAME_HEAD_BYTES + frame.bytes.length;
  }
  bytes.set(serial, at);
  return bytes;
}

/** Frames and serial bytes are views of `bytes`. Throws `OutputError` unless all is sound. */
export function decodeOutput(bytes: Uint8Array): EpochOutput {
  if (bytes.length < HEAD_BYTES) throw bad('is cut short');
  if (bytes.length > OUTPUT_BYTES_MAX) throw bad('is too long');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint8(0) !== VERSION) throw bad('has an unknown version');
  const inputOffset = readOffset(view, 1);
  const serialOffset = readOffset(view, 9);
  const serialBytes = view.getUint32(17, true);
  const frameCount = view.getUint32(21, true);
  if (HEAD_BYTES + serialBytes + frameCount * FRAME_HEAD_BYTES > bytes.length)
    throw bad('claims more than it holds');
  const frames: NicFrame[] = [];
  let at = HEAD_BYTES;
  const framesEnd = bytes.length - serialBytes;
  for (let i = 0; i < frameCount; i++) {
    if (at + FRAME_HEAD_BYTES > framesEnd) throw bad('has a frame cut short');
    const length = view.getUint32(at + 1, true);
    const start = at + FRAME_HEAD_BYTES;
    if (length > FRAME_BYTES_MAX || start + length > framesEnd) throw bad('has a frame too long');
    frames.push({ nic: view.getUint8(at), bytes: bytes.subarray(start, start + length) });
    at = start + length;
  }
  if (at !== framesEnd) throw bad('has bytes of nothing');
  return { frames, serialOffset, serial: bytes.subarray(framesEnd), inputOffset };
}

function readOffset(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > OFFSET_MAX) throw bad('has an offset out of range');
  return Number(value);
}

function bad(what: string): OutputError {
  return new OutputError('OUTPUT_BAD', `the output of an epoch ${what}`);
}
