/**
 * The standby's copy of output that the owner may not have released yet. At a promotion it is
 * released again from here: a network tolerates a frame twice, and serial bytes go by their place.
 */
import { decodeOutput, type EpochOutput, type NicFrame } from './output.js';
import { SerialRing } from './serial-ring.js';

const FRAMES_BYTES_MAX = 64 << 20;

export interface KeptOutput {
  readonly frames: readonly NicFrame[];
  readonly serialOffset: number;
  readonly serial: Uint8Array;
  /** Where the serial stream goes on. */
  readonly nextSerialOffset: number;
  readonly inputOffset: number;
}

interface KeptEpoch {
  readonly epoch: number;
  readonly frames: readonly NicFrame[];
  readonly framesBytes: number;
  readonly serialEnd: number;
}

export class OutputLog {
  /** All committed serial output, released or not, as far back as the ring goes. */
  readonly serial = new SerialRing();
  /** Frames given up because the owner's gate fell behind by more than the bound. */
  framesDropped = 0;
  private kept: KeptEpoch[] = [];
  private keptBytes = 0;
  private releasedSerialOffset = 0;
  private lastEpoch = -1;
  private input = 0;

  /** Throws `OutputError` unless `output` can be committed. */
  static check(output: Uint8Array): void {
    decodeOutput(output);
  }

  get heldBytes(): number {
    return this.keptBytes;
  }

  /** `output` is kept: it must not change. */
  commit(epoch: number, output: Uint8Array): void {
    if (epoch <= this.lastEpoch)
      throw new Error(`output of epoch ${epoch} after ${this.lastEpoch}`);
    const decoded = decodeOutput(output);
    if (this.lastEpoch === -1) this.releasedSerialOffset = decoded.serialOffset;
    this.lastEpoch = epoch;
    this.serial.append(decoded.serialOffset, decoded.serial);
    this.input = decoded.inputOffset;
    this.keep(epoch, decoded);
  }

  /** The owner has released all output up to `epoch`. */
  releasedThrough(epoch: number): void {
    let count = 0;
    for (const entry of this.kept) {
      if (entry.epoch > epoch) break;
      this.keptBytes -= entry.framesBytes;
      this.releasedSerialOffset = entry.serialEnd;
      count += 1;
    }
    if (count > 0) this.kept.splice(0, count);
  }

  /** Everything kept, to be released now; the log is then empty. */
  drain(): KeptOutput {
    const frames = this.kept.flatMap((entry) => entry.frames);
    const { offset, bytes } = this.serial.read(this.releasedSerialOffset);
    this.kept = [];
    this.keptBytes = 0;
    this.releasedSerialOffset = this.serial.end;
    return {
      frames,
      serialOffset: offset,
      serial: bytes,
      nextSerialOffset: this.serial.end,
      inputOffset: this.input,
    };
  }

  /** A new sync starts. */
  reset(): void {
    this.serial.reset();
    this.kept = [];
    this.keptBytes = 0;
    this.releasedSerialOffset = 0;
    this.lastEpoch = -1;
    this.input = 0;
  }

  private keep(epoch: number, output: EpochOutput): void {
    const framesBytes = output.frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
    const serialEnd = output.serialOffset + output.serial.length;
    this.kept.push({ epoch, frames: output.frames, framesBytes, serialEnd });
    this.keptBytes += framesBytes;
    for (let i = 0; this.keptBytes > FRAMES_BYTES_MAX && i < this.kept.length; i++) {
      const entry = this.kept[i];
      this.keptBytes -= entry.framesBytes;
      this.framesDropped += entry.frames.length;
      this.kept[i] = { ...entry, frames: [], framesBytes: 0 };
    }
  }
}
