/**
 * The encoder of a primary, in a worker thread. Captures go into slots of shared memory; a slot is
 * free again as soon as its epoch is encoded, so captures wait for the encoder and never pile up.
 */
import { Worker } from 'node:worker_threads';
import { MirrorError } from '../core/errors.js';
import type { CaptureBuffer } from '../machine/machine.js';
import type { EncodedEpoch, PartListener } from '../page/page-encoder.js';

export interface EncodeJob {
  readonly id: number;
  readonly reset: boolean;
  readonly generation: number;
  readonly epoch: number;
  readonly indices: SharedArrayBuffer;
  readonly bytes: SharedArrayBuffer;
  readonly pageCount: number;
  readonly deviceState: Uint8Array;
}

export interface EncodeResult {
  readonly id: number;
  readonly encoded: EncodedEpoch | null;
}

/** A part on its way, before its epoch is encoded whole. */
export interface EncodedPart {
  readonly id: number;
  readonly part: Uint8Array;
  readonly index: number;
  readonly partCount: number;
}

interface Slot {
  buffer: SlotBuffer;
  busy: boolean;
  /** An epoch of more than `SLOT_PAGES_KEPT` pages has been in it. */
  grown: boolean;
}

interface SlotBuffer extends CaptureBuffer {
  readonly sharedIndices: SharedArrayBuffer;
  readonly sharedBytes: SharedArrayBuffer;
}

interface Waiting {
  resolve(encoded: EncodedEpoch): void;
  reject(error: Error): void;
  readonly parts: Uint8Array[];
  readonly onPart: PartListener;
  readonly timer: NodeJS.Timeout;
}

const PAGE_BYTES = 4096;
const ENCODE_MS_MAX = 10_000;
/**
 * A slot that a dirty storm made larger than this is replaced after the next quieter epoch: one
 * replaced at every epoch of a storm would leave its memory to two garbage collectors.
 */
const SLOT_PAGES_KEPT = 4_096;

export class EncoderError extends MirrorError {}

export class Encoder {
  private readonly worker: Worker;
  private readonly pageCount: number;
  private readonly slots: Slot[];
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 1;
  private failure: Error | null = null;

  static async create(pageCount: number, slots: number): Promise<Encoder> {
    const worker = new Worker(new URL('./encode-worker.js', import.meta.url), {
      workerData: { pageCount },
    });
    const encoder = new Encoder(worker, pageCount, slots);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new EncoderError('ENCODER_STUCK', 'the encode worker did not start')),
        ENCODE_MS_MAX,
      );
      encoder.waiting.set(0, {
        resolve: () => resolve(),
        ...{ reject, timer, parts: [], onPart: () => {} },
      });
    });
    return encoder;
  }

  private constructor(worker: Worker, pageCount: number, slots: number) {
    this.worker = worker;
    this.pageCount = pageCount;
    this.slots = Array.from({ length: slots }, () => ({
      buffer: makeSlot(pageCount),
      busy: false,
      grown: false,
    }));
    worker.on('message', (message: EncodeResult | EncodedPart) => {
      if ('part' in message) this.keep(message);
      else this.settle(message);
    });
    worker.on('error', (error) => this.fail(error instanceof Error ? error : new Error('worker')));
    worker.unref();
  }

  /**
   * A buffer for one capture, or null while all of them wait to be encoded. In a dirty storm one
   * has to do: a second one could take as much as the guest.
   */
  takeSlot(): CaptureBuffer | null {
    if (this.slots.some(({ busy, grown }) => busy && grown)) return null;
    const slot = this.slots.find((candidate) => !candidate.busy);
    if (!slot) return null;
    slot.busy = true;
    slot.buffer.pageCount = 0;
    return slot.buffer;
  }

  encode(
    buffer: CaptureBuffer,
    generation: number,
    epoch: number,
    reset: boolean,
    onPart: PartListener,
  ): Promise<EncodedEpoch> {
    const slot = this.slots.find((candidate) => candidate.buffer === buffer);
    if (!slot?.busy) throw new EncoderError('BAD_SLOT', 'not a slot that was taken');
    if (this.failure) return Promise.reject(this.failure);
    const id = this.nextId;
    this.nextId += 1;
    const { sharedIndices, sharedBytes, pageCount, deviceState } = slot.buffer;
    const job: EncodeJob = {
      ...{ id, reset, generation, epoch, pageCount, deviceState },
      indices: sharedIndices,
      bytes: sharedBytes,
    };
    const done = new Promise<EncodedEpoch>((resolve, reject) => {
      const late = new EncoderError('ENCODER_STUCK', `epoch ${epoch} was not encoded in time`);
      const timer = setTimeout(() => this.fail(late), ENCODE_MS_MAX);
      this.waiting.set(id, { resolve, reject, timer, parts: [], onPart });
      this.worker.postMessage(job);
    });
    return done.finally(() => this.giveBack(slot, pageCount));
  }

  async close(): Promise<void> {
    this.fail(new EncoderError('ENCODER_CLOSED', 'the encoder was closed'));
    await this.worker.terminate();
  }

  private giveBack(slot: Slot, pageCount: number): void {
    const large = pageCount > SLOT_PAGES_KEPT;
    if (slot.grown && !large) slot.buffer = makeSlot(this.pageCount);
    slot.grown = large;
    slot.busy = false;
  }

  private keep({ id, part, index, partCount }: EncodedPart): void {
    const waiting = this.waiting.get(id);
    waiting?.parts.push(part);
    waiting?.onPart(part, index, partCount);
  }

  private settle(result: EncodeResult): void {
    const waiting = this.waiting.get(result.id);
    if (!waiting) return;
    this.waiting.delete(result.id);
    clearTimeout(waiting.timer);
    waiting.resolve({ ...(result.encoded as EncodedEpoch), parts: waiting.parts });
  }

  private fail(error: Error): void {
    this.failure ??= error;
    for (const [id, waiting] of this.waiting) {
      this.waiting.delete(id);
      clearTimeout(waiting.timer);
      waiting.reject(error);
    }
  }
}

/** Room for every page; memory that is never written is never taken. */
function makeSlot(pageCount: number): SlotBuffer {
  const sharedIndices = new SharedArrayBuffer(pageCount * 4);
  const sharedBytes = new SharedArrayBuffer(pageCount * PAGE_BYTES);
  return {
    sharedIndices,
    sharedBytes,
    pageIndices: new Uint32Array(sharedIndices),
    pageBytes: new Uint8Array(sharedBytes),
    pageCount: 0,
    deviceState: new Uint8Array(0),
  };
}
