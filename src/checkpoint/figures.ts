/** What the epoch loop measures: pauses, commits, bytes; the figures of `mirror status`. */
import type { CaptureResult } from '../machine/machine.js';

const SAMPLES_MAX = 512;

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** The last samples of one figure, in a ring. */
export class Samples {
  private readonly ring = new Float64Array(SAMPLES_MAX);
  private count = 0;

  add(value: number): void {
    this.ring[this.count % SAMPLES_MAX] = value;
    this.count += 1;
  }

  clear(): void {
    this.count = 0;
  }

  /** The newest sample, 0 if there is none. */
  get last(): number {
    return this.count === 0 ? 0 : this.ring[(this.count - 1) % SAMPLES_MAX];
  }

  percentiles(): Percentiles {
    const held = Math.min(this.count, SAMPLES_MAX);
    if (held === 0) return { p50: 0, p99: 0, max: 0 };
    const sorted = this.ring.slice(0, held).sort();
    const at = (share: number): number => sorted[Math.min(held - 1, Math.floor(held * share))];
    return { p50: at(0.5), p99: at(0.99), max: sorted[held - 1] };
  }
}

export class EpochFigures {
  readonly pauseMs = new Samples();
  readonly findMs = new Samples();
  readonly copyMs = new Samples();
  readonly commitMs = new Samples();
  dirtyPages = 0;
  bytesPerEpoch = 0;
  /** Bytes on the wire for each dirty byte, of the last epoch. */
  ratio = 0;
  missedPages = 0;
  auditedEpochs = 0;
  private readonly capturedAtMs = new Map<number, number>();
  private syncEpoch: number | null = null;

  captured(epoch: number, result: CaptureResult): void {
    this.findMs.add(result.findMs);
    this.copyMs.add(result.copyMs);
    this.dirtyPages = result.dirtyPageCount;
    this.capturedAtMs.set(epoch, Number(process.hrtime.bigint()) / 1e6);
    if (result.missedPageCount !== null) {
      this.auditedEpochs += 1;
      this.missedPages += result.missedPageCount;
    }
  }

  encoded(dirtyBytes: number, wireBytes: number): void {
    this.bytesPerEpoch = wireBytes;
    this.ratio = dirtyBytes === 0 ? 0 : wireBytes / dirtyBytes;
  }

  /** All epochs up to `epoch` have been acknowledged. */
  committed(epoch: number): void {
    const nowMs = Number(process.hrtime.bigint()) / 1e6;
    for (const [captured, atMs] of this.capturedAtMs) {
      if (captured > epoch) continue;
      this.commitMs.add(nowMs - atMs);
      this.capturedAtMs.delete(captured);
    }
    if (this.syncEpoch !== null && epoch >= this.syncEpoch) this.forgetSync();
  }

  /** This epoch is the last of a sync. */
  syncEnds(epoch: number): void {
    this.syncEpoch = epoch;
  }

  /** Its large epochs say nothing of those to come. */
  private forgetSync(): void {
    this.syncEpoch = null;
    for (const samples of [this.pauseMs, this.findMs, this.copyMs, this.commitMs])
      samples.clear();
  }

  /** A lost session: what is in flight will not be acknowledged. */
  restart(): void {
    this.capturedAtMs.clear();
  }
}
