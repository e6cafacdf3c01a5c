/**
 * The epoch loop of the primary. One epoch, top to bottom, is `runEpoch`: pause, capture, cut the
 * gate, resume, encode, send. What follows an acknowledgement (release of output) is the core's
 * decision.
 */
import type { Gate } from '../gate/gate.js';
import { CaptureOverflow } from '../machine/capture-overflow.js';
import type { CaptureBuffer, CaptureResult, Machine, PageRange } from '../machine/machine.js';
import type { Encoder } from './encoder.js';
import { EpochFigures } from './figures.js';
import type { RunControl } from './run-control.js';
import { Sweep } from './sweep.js';

/** What the core asks for with a `capture` effect. */
export interface EpochOrder {
  readonly generation: number;
  readonly epoch: number;
  /** First epoch of a sync: the secondary's image is empty. */
  readonly base: boolean;
  /** Last epoch of a sync: must cover what is left of memory. */
  readonly final: boolean;
  /** Leave the VM paused afterwards. */
  readonly hold: boolean;
}

/** What the parts of an epoch have in common. */
export interface EpochHead {
  readonly epoch: number;
  readonly generation: number;
  readonly base: boolean;
  readonly complete: boolean;
  /** The VM's output since the epoch before. */
  readonly output: Uint8Array;
}

export interface EncodedPart extends EpochHead {
  /** Encoded pages and device state; the last part carries the hashes. */
  readonly pages: Uint8Array;
  readonly part: number;
  readonly partCount: number;
}

export interface EpochListener {
  /** The VM has been captured and runs again (unless held). */
  captured(epoch: number, sweep: { complete: boolean; ready: boolean }): void;
  /** One more part of an epoch is encoded and may be sent. */
  encoded(part: EncodedPart): void;
  failed(epoch: number, error: Error): void;
  /** An audit found pages that were not told as dirty; they are captured, this time. */
  missed(epoch: number, pageCount: number): void;
}

const SLOT_WAIT_MS_MAX = 5_000;
const ROOTS_KEPT = 1_024;

export class EpochLoop {
  readonly figures = new EpochFigures();
  /** Encoded epochs not yet acknowledged; bounded by the core's `unackedEpochsMax`. */
  readonly retained = new Map<number, readonly EncodedPart[]>();
  /** Memory roots of the last encoded epochs, for proofs that a standby's image is equal. */
  readonly roots = new Map<number, bigint>();
  private readonly sweep: Sweep;
  private readonly machine: Machine;
  private readonly gate: Gate;
  private readonly encoder: Encoder;
  private readonly listener: EpochListener;
  private readonly control: RunControl;
  private queue: Promise<void> = Promise.resolve();
  private lastPageCount = 0;

  constructor(
    machine: Machine,
    control: RunControl,
    gate: Gate,
    encoder: Encoder,
    listener: EpochListener,
  ) {
    this.machine = machine;
    this.control = control;
    this.gate = gate;
    this.encoder = encoder;
    this.listener = listener;
    this.sweep = new Sweep(machine.info.pageCount);
    machine.onStill = (ms) => this.figures.pauseMs.add(ms);
  }

  /** Epochs are cut one after the other, in the order in which they were asked for. */
  order(order: EpochOrder): void {
    this.queue = this.queue.then(async () => {
      try {
        await this.runEpoch(order);
      } catch (error) {
        // The gate has its output, and is closed if that matters: the VM may go on.
        if (!order.hold) this.control.release('capture');
        this.listener.failed(
          order.epoch,
          error instanceof Error ? error : new Error(String(error)),
        );
      }
    });
  }

  /** Resolves when every epoch ordered so far has been encoded. */
  idle(): Promise<void> {
    return this.queue;
  }

  forgetThrough(epoch: number): void {
    for (const kept of this.retained.keys()) if (kept <= epoch) this.retained.delete(kept);
  }

  private async runEpoch(order: EpochOrder): Promise<void> {
    if (order.base) this.startSync();
    const slot = await this.freeSlot(this.lastPageCount);
    const range = this.sweep.next(order.final);
    await this.control.hold('capture');
    const output = this.gate.cut(order.epoch, order.base);
    const { into, result } = await this.capture(slot, range, !order.hold);
    if (!order.hold) this.control.captured(result.goesOn);
    this.sweep.advance(range);
    this.figures.captured(order.epoch, result);
    if (result.missedPageCount) this.listener.missed(order.epoch, result.missedPageCount);
    if (order.final) this.figures.syncEnds(order.epoch);
    this.listener.captured(order.epoch, {
      complete: this.sweep.complete,
      ready: this.sweep.restFitsOneEpoch,
    });
    await this.encode(order, into, output);
  }

  /** If the pages do not fit the slot, the VM waits for the one that they fit. */
  private async capture(
    slot: CaptureBuffer,
    range: PageRange | null,
    andGoOn: boolean,
  ): Promise<{ into: CaptureBuffer; result: CaptureResult }> {
    let into = slot;
    try {
      return { into, result: await this.machine.capture(into, range, andGoOn) };
    } catch (error) {
      this.encoder.putBack(into);
      if (!(error instanceof CaptureOverflow)) throw error;
      into = await this.freeSlot(error.pageCount);
      return { into, result: await this.machine.capture(into, range, andGoOn) };
    } finally {
      this.lastPageCount = into.pageCount;
    }
  }

  private startSync(): void {
    this.sweep.restart();
    this.retained.clear();
  }

  private async encode(order: EpochOrder, slot: CaptureBuffer, output: Uint8Array): Promise<void> {
    const { generation, epoch, base } = order;
    const complete = this.sweep.complete;
    const head: EpochHead = { epoch, generation, base, complete, output };
    const parts: EncodedPart[] = [];
    this.retained.set(epoch, parts);
    const onPart = (pages: Uint8Array, part: number, partCount: number): void => {
      const encodedPart = { ...head, pages, part, partCount };
      parts.push(encodedPart);
      this.listener.encoded(encodedPart);
    };
    const encoded = await this.encoder.encode(slot, generation, epoch, base, onPart);
    this.roots.set(epoch, encoded.memoryRoot);
    this.roots.delete(epoch - ROOTS_KEPT);
    this.figures.encoded(encoded.dirtyBytes, encoded.wireBytes);
  }

  /** A slot is free as soon as the worker has encoded the epoch that used it. */
  private async freeSlot(pagesMin: number): Promise<CaptureBuffer> {
    const endAt = Date.now() + SLOT_WAIT_MS_MAX;
    for (;;) {
      const slot = this.encoder.takeSlot(pagesMin);
      if (slot) return slot;
      if (Date.now() > endAt) throw new Error('no capture slot became free: the encoder is stuck');
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}
