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
/** What one of the two slots has room for; the other takes all of memory. */
const SMALL_SLOT_PAGES = 4_096;
/**
 * After so many epochs that would fit the small slot, the memory that a dirty storm left in the
 * large one is given back. Sooner, the storms to come would find it in the hands of two garbage
 * collectors still.
 */
const QUIET_EPOCHS = 1_000;

export class EncoderError extends MirrorError {}

export class Encoder {
  private readonly worker: Worker;
  private readonly pageCount: number;
  private readonly small: Slot;
  private readonly large: Slot;
  /** Epochs since one did not fit the small slot. */
  private quietEpochs = QUIET_EPOCHS;
  private readonly waiting = new Map<number, Waiting>();
  private nextId = 1;
  private failure: Error | null = null;

  static async create(pageCount: number): Promise<Encoder> {
    const worker = new Worker(new URL('./encode-worker.js', import.meta.url), {
      workerData: { pageCount },
    });
    const encoder = new Encoder(worker, pageCount);
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

  private constructor(worker: Worker, pageCount: number) {
    this.worker = worker;
    this.pageCount = pageCount;
    this.small = { buffer: makeSlot(Math.min(pageCount, SMALL_SLOT_PAGES)), busy: false };
    this.large = { buffer: makeSlot(pageCount), busy: false };
    worker.on('message', (message: EncodeResult | EncodedPart) => {
      if ('part' in message) this.keep(message);
      else this.settle(message);
    });
    worker.on('error', (error) => this.fail(error instanceof Error ? error : new Error('worker')));
    worker.unref();
  }

  /**
   * A buffer for a capture of at least so many pages, or null while those that there are wait to be
   * encoded. In a dirty storm one has to do: a second one could take as much as the guest.
   */
  takeSlot(pagesMin: number): CaptureBuffer | null {
    const { small, large } = this;
    const fits = pagesMin <= small.buffer.pageIndices.length;
    const slot = fits && !small.busy ? small : large;
    if (slot.busy) return null;
    slot.busy = true;
    slot.buffer.pageCount = 0;
    return slot.buffer;
  }

  /** Nothing was captured into it. */
  putBack(buffer: CaptureBuffer): void {
    this.slotOf(buffer).busy = false;
  }

  encode(
    buffer: CaptureBuffer,
    generation: number,
    epoch: number,
    reset: boolean,
    onPart: PartListener,
  ): Promise<EncodedEpoch> {
    const slot = this.slotOf(buffer);
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

  private slotOf(buffer: CaptureBuffer): Slot {
    const slot = [this.small, this.large].find((candidate) => candidate.buffer === buffer);
    if (!slot?.busy) throw new EncoderError('BAD_SLOT', 'not a slot that was taken');
    return slot;
  }

  private giveBack(slot: Slot, pageCount: number): void {
    slot.busy = false;
    if (pageCount > SMALL_SLOT_PAGES) this.quietEpochs = 0;
    else this.quietEpochs += 1;
    if (this.quietEpochs === QUIET_EPOCHS && !this.large.busy)
      this.large.buffer = makeSlot(this.pageCount);
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

/** Memory that is never written is never taken. */
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
