/**
 * A slot on a shared device: one place that one writer at a time writes and all read. It is kept
 * twice, each copy with a checksum, and a write replaces first the copy that is not the newest,
 * then the other. So a torn write loses nothing that was there before, and a copy that goes bad
 * later loses nothing at all.
 */
import { createHash } from 'node:crypto';
import { MirrorError } from '../core/errors.js';
import type { VmRecord } from '../core/record.js';

/** A multiple of every logical block size that devices have. */
export const COPY_BYTES = 4096;

const MAGIC = Buffer.from('MSL1');
const SUM_BYTES = 32;
const HEAD_BYTES = MAGIC.length + 4 + SUM_BYTES;
const ZEROS = Buffer.alloc(COPY_BYTES);

/** A record with the ballot that first proposed it, which tells apart who won. */
export interface Decided {
  readonly record: VmRecord;
  readonly ballot: number;
}

/** What a writer says of the revision that is being decided. See `disk-paxos.ts`. */
export interface SlotBlock {
  readonly revision: number;
  /** The highest ballot that the writer has begun. */
  readonly ballot: number;
  /** The ballot in which it accepted `value`; 0: in none. */
  readonly accepted: number;
  readonly value: Decided | null;
  /** The record of the revision before; `null` before the first. */
  readonly standing: Decided | null;
  /** Ballots that proposed the records before `standing`, newest first. */
  readonly past: readonly number[];
}

export interface SlotCopy {
  readonly sequence: number;
  readonly block: SlotBlock;
}

export type CopyRead = SlotCopy | 'empty' | 'bad';

export interface SlotRead {
  readonly block: SlotBlock | null;
  readonly sequence: number;
  /** Which copy a writer has to replace first. */
  readonly replaceFirst: 0 | 1;
}

/** `where`: the device and the slot, so that what strayed here from elsewhere is not believed. */
export function encodeCopy(copy: SlotCopy, where: string): Buffer {
  const body = Buffer.from(JSON.stringify(copy));
  if (HEAD_BYTES + body.length > COPY_BYTES)
    throw new MirrorError('BAD_PROPOSAL', 'the record is too large for a slot on the device');
  const bytes = Buffer.alloc(COPY_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(body.length, MAGIC.length);
  checksum(body, where).copy(bytes, MAGIC.length + 4);
  body.copy(bytes, HEAD_BYTES);
  return bytes;
}

export function decodeCopy(bytes: Buffer, where: string): CopyRead {
  if (bytes.equals(ZEROS)) return 'empty';
  const length = bytes.readUInt32LE(MAGIC.length);
  const sound = bytes.subarray(0, MAGIC.length).equals(MAGIC) && length <= COPY_BYTES - HEAD_BYTES;
  if (!sound) return 'bad';
  const body = bytes.subarray(HEAD_BYTES, HEAD_BYTES + length);
  if (!checksum(body, where).equals(bytes.subarray(MAGIC.length + 4, HEAD_BYTES))) return 'bad';
  return JSON.parse(body.toString()) as SlotCopy;
}

/** `null`: nothing here is whole, which no single torn write can leave behind. */
export function chooseCopy(first: CopyRead, second: CopyRead): SlotRead | null {
  const [one, other] = [sequenceOf(first), sequenceOf(second)];
  const newest = one >= other ? first : second;
  if (typeof newest === 'object')
    return { ...newest, replaceFirst: one > other ? 1 : 0 };
  // The very first write goes to the first copy: only that one can be torn with nothing beside it.
  return second === 'empty' ? { block: null, sequence: 0, replaceFirst: 0 } : null;
}

const sequenceOf = (copy: CopyRead): number => (typeof copy === 'object' ? copy.sequence : 0);

function checksum(body: Buffer, where: string): Buffer {
  return createHash('sha256').update(`${where}\n`).update(body).digest();
}
