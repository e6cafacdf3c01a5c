/**
 * One part of an encoded epoch: up to 256 pages, self-contained. Nothing in it is believed
 * unchecked.
 */
import { compressSync, uncompressSync } from 'lz4-napi';
import { Packr, Unpackr } from 'msgpackr';
import { MirrorError } from '../core/errors.js';
import { Kind, PAGE_BYTES, PAGES_PER_PART } from './page-kernels.js';

/** Shorter ones are not compressed. */
const BODY_BYTES_MIN = 64;
const SAMPLE_BYTES = 16 << 10;
const SAMPLE_PIECES = 8;
const SAMPLE_RATIO_MAX = 0.98;
const BODY_BYTES_MAX = PAGES_PER_PART * PAGE_BYTES;

export class DecodeError extends MirrorError {
  constructor(what: string, cause?: unknown) {
    super('BAD_CHECKPOINT', `checkpoint part refused: ${what}`, { cause });
  }
}

/** What only the last part of an epoch says. */
export interface EpochEnd {
  readonly generation: number;
  readonly epoch: number;
  readonly deviceBytes: number;
  readonly memoryRoot: bigint;
  readonly epochHash: bigint;
}

export interface Part {
  /** Page numbers; device-state blocks follow the last page of memory. */
  readonly indices: Uint32Array;
  readonly kinds: Uint8Array;
  readonly lengths: Uint16Array;
  readonly body: Uint8Array;
  readonly end: EpochEnd | null;
}

/** No structures are kept from one part to the next, and no part is ever incomplete. */
const LIMITS = { maxSharedStructures: 0, maxOwnStructures: 0, maxIncompleteBufferSize: 0 } as const;
const packer = new Packr({ ...LIMITS, useRecords: false });
const unpacker = new Unpackr({ ...LIMITS, useRecords: false, int64AsType: 'bigint' });

export function encodePart(part: Part): Uint8Array {
  const compressed = promises(part.body) ? compressSync(asBuffer(part.body)) : null;
  const worth = compressed !== null && compressed.length < part.body.length;
  const { end } = part;
  const packed = packer.pack([
    worth ? 1 : 0,
    part.body.length,
    bytesOf(part.indices),
    part.kinds,
    bytesOf(part.lengths),
    worth ? compressed : part.body,
    end
      ? [end.generation, end.epoch, end.deviceBytes, word(end.memoryRoot), word(end.epochHash)]
      : null,
  ]);
  // The packer reuses its buffer.
  return new Uint8Array(packed);
}

/** Whether compressing it is worth the time, by a sample: random bytes would take the longest. */
function promises(body: Uint8Array): boolean {
  if (body.length <= SAMPLE_BYTES * 4) return body.length > BODY_BYTES_MIN;
  const sample = Buffer.allocUnsafe(SAMPLE_BYTES);
  const pieceBytes = SAMPLE_BYTES / SAMPLE_PIECES;
  const step = Math.floor(body.length / SAMPLE_PIECES);
  for (let i = 0; i < SAMPLE_PIECES; i += 1)
    sample.set(body.subarray(i * step, i * step + pieceBytes), i * pieceBytes);
  return compressSync(sample).length < SAMPLE_BYTES * SAMPLE_RATIO_MAX;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function decodePart(bytes: Uint8Array, indexEnd: number): Part {
  const fields = unpackFields(bytes);
  const [compressed, bodyBytes, indexBytes, kinds, lengthBytes, packedBody, end] = fields;
  if (!isCount(bodyBytes, BODY_BYTES_MAX)) throw new DecodeError('body larger than a part can be');
  const count = kinds instanceof Uint8Array ? kinds.length : -1;
  if (!(kinds instanceof Uint8Array) || count > PAGES_PER_PART)
    throw new DecodeError('too many pages');
  if (!isBytes(indexBytes, count * 4) || !isBytes(lengthBytes, count * 2))
    throw new DecodeError('lists of different lengths');
  if (!(packedBody instanceof Uint8Array)) throw new DecodeError('no body');
  const indices = new Uint32Array(copied(indexBytes));
  const lengths = new Uint16Array(copied(lengthBytes));
  checkPages(indices, kinds, lengths, bodyBytes, indexEnd);
  const body = compressed === 1 ? inflate(packedBody, bodyBytes) : packedBody;
  if (body.length !== bodyBytes) throw new DecodeError('body of another length than stated');
  return { indices, kinds, lengths, body, end: decodeEnd(end) };
}

function unpackFields(bytes: Uint8Array): unknown[] {
  let fields: unknown;
  try {
    fields = unpacker.unpack(bytes);
  } catch (error) {
    throw new DecodeError('not msgpack', error);
  }
  if (!Array.isArray(fields) || fields.length !== 7) throw new DecodeError('not a part');
  return fields as unknown[];
}

function checkPages(
  indices: Uint32Array,
  kinds: Uint8Array,
  lengths: Uint16Array,
  bodyBytes: number,
  indexEnd: number,
): void {
  let sum = 0;
  for (let i = 0; i < indices.length; i += 1) {
    if (indices[i] >= indexEnd || (i > 0 && indices[i] <= indices[i - 1]))
      throw new DecodeError('page numbers out of range or order');
    const length = lengths[i];
    const fits =
      (kinds[i] === Kind.zero && length === 0) ||
      (kinds[i] === Kind.whole && length === PAGE_BYTES) ||
      (kinds[i] === Kind.delta && length <= PAGE_BYTES);
    if (!fits) throw new DecodeError('a page of no known kind or length');
    sum += length;
  }
  if (sum !== bodyBytes) throw new DecodeError('pages do not add up to the body');
}

/** The size that an lz4 block claims is checked before any of it is believed. */
function inflate(packed: Uint8Array, expectedBytes: number): Uint8Array {
  if (packed.length < 4) throw new DecodeError('lz4 block without a size');
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const claimed = view.getUint32(0, true);
  if (claimed !== expectedBytes)
    throw new DecodeError(`lz4 block claims ${claimed} bytes, ${expectedBytes} expected`);
  try {
    return uncompressSync(asBuffer(packed));
  } catch (error) {
    throw new DecodeError('bad lz4 block', error);
  }
}

function decodeEnd(end: unknown): EpochEnd | null {
  if (end === null) return null;
  if (!Array.isArray(end) || end.length !== 5) throw new DecodeError('bad end of epoch');
  const [generation, epoch, deviceBytes, root, hash] = end as unknown[];
  const most = Number.MAX_SAFE_INTEGER;
  if (!isCount(generation, most) || !isCount(epoch, most) || !isCount(deviceBytes, 64 << 20))
    throw new DecodeError('bad numbers at the end of an epoch');
  return { generation, epoch, deviceBytes, memoryRoot: unword(root), epochHash: unword(hash) };
}

/** A Buffer's own `slice` shares its memory, which may lie anywhere in a pool. */
function copied(bytes: Uint8Array): ArrayBuffer {
  return Uint8Array.from(bytes).buffer;
}

function isCount(value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most;
}

function isBytes(value: unknown, length: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length === length;
}

function bytesOf(list: Uint32Array | Uint16Array): Uint8Array {
  return new Uint8Array(list.buffer, list.byteOffset, list.byteLength);
}

function word(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

function unword(value: unknown): bigint {
  if (!isBytes(value, 8)) throw new DecodeError('a hash is not 8 bytes');
  return new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0, true);
}
