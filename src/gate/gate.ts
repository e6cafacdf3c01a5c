/**
 * Output commit: closed, what the VM sends is held by the epoch that made it until that epoch is
 * released; open, it leaves at once. A new gate is closed.
 */
import { MirrorError } from '../core/errors.js';
import { encodeOutput, FRAME_BYTES_MAX, type NicFrame } from './output.js';
import type { OutputLog } from './output-log.js';
import { SerialInput } from './serial-input.js';
import { SerialLog } from './serial-log.js';
import { SERIAL_RING_BYTES, type SerialRing } from './serial-ring.js';

/** The output of an epoch travels in one message beside pages: past this, the VM waits. */
const UNCUT_BYTES_MAX = 1 << 20;
/** Bytes that a VM may still send after it was told to wait; frames past that are dropped. */
const OVERSHOOT_BYTES_MAX = 512 << 10;

export interface GateOptions {
  /** Held bytes at which `onFull` is called. */
  readonly bytesMax: number;
  /** The VM must stand still until `onDrained`. */
  onFull(): void;
  onDrained(): void;
}

interface HeldEpoch {
  readonly epoch: number;
  readonly frames: readonly NicFrame[];
  readonly serialEnd: number;
  readonly inputOffset: number;
}

export class GateError extends MirrorError {}

export class Gate {
  onFrame: ((nicIndex: number, frame: Uint8Array) => void) | null = null;
  onSerial: ((offset: number, bytes: Uint8Array) => void) | null = null;
  /** What has left already: a new standby gets all of it that is kept. */
  history: SerialRing | null = null;
  readonly input = new SerialInput();
  /** Frames lost because the VM went on sending into a full gate. */
  framesDropped = 0;
  private readonly options: GateOptions;
  private state: 'closed' | 'open' | 'disposed' = 'closed';
  private full = false;
  private held: HeldEpoch[] = [];
  private heldFramesBytes = 0;
  private uncut: NicFrame[] = [];
  private uncutFramesBytes = 0;
  private serial = new SerialLog();
  private releasedSerial = 0;
  private cutSerial = 0;
  private lastCut = -1;

  constructor(options: GateOptions) {
    this.options = options;
  }

  get isOpen(): boolean {
    return this.state === 'open';
  }

  get heldBytes(): number {
    return this.heldFramesBytes + this.uncutFramesBytes + this.serial.end - this.releasedSerial;
  }

  /** Place in the serial stream of the next byte that the VM writes. */
  get serialOffset(): number {
    return this.serial.end;
  }

  /** `frame` is kept: it must not change. */
  nicOut(nicIndex: number, frame: Uint8Array): void {
    if (this.state === 'disposed') return;
    if (this.state === 'open') {
      this.onFrame?.(nicIndex, frame);
      return;
    }
    const room =
      this.heldBytes + frame.length <= this.options.bytesMax + OVERSHOOT_BYTES_MAX &&
      this.uncutBytes + frame.length <= UNCUT_BYTES_MAX + OVERSHOOT_BYTES_MAX;
    if (!room || frame.length > FRAME_BYTES_MAX) {
      this.framesDropped += 1;
      return;
    }
    this.uncut.push({ nic: nicIndex, bytes: frame });
    this.uncutFramesBytes += frame.length;
    this.watchBounds();
  }

  serialOut(bytes: Uint8Array): void {
    if (this.state === 'disposed') return;
    this.serial.append(bytes);
    if (this.state === 'open') this.releaseSerial(this.serial.end);
    this.watchBounds();
  }

  close(): void {
    if (this.state === 'open') this.state = 'closed';
  }

  /** All that is held leaves, oldest first, and all to come leaves at once. */
  open(): void {
    if (this.state !== 'closed') return;
    this.release(Number.MAX_SAFE_INTEGER);
    const frames = this.uncut;
    this.uncut = [];
    this.uncutFramesBytes = 0;
    this.state = 'open';
    for (const frame of frames) this.onFrame?.(frame.nic, frame.bytes);
    this.releaseSerial(this.serial.end);
    this.input.acknowledge(this.input.appliedOffset);
    this.watchBounds();
  }

  /**
   * What was sent since the last cut now belongs to `epoch`; returned as it travels with it. The
   * first epoch of a sync (`base`) carries the serial history too, as far back as it is kept.
   */
  cut(epoch: number, base = false): Uint8Array {
    if (epoch <= this.lastCut)
      throw new GateError('GATE_EPOCH', `epoch ${epoch} cut after ${this.lastCut}`);
    this.lastCut = epoch;
    const serialEnd = this.serial.end;
    const { offset, bytes } = base
      ? this.allSerial()
      : this.serial.slice(this.cutSerial, serialEnd);
    const inputOffset = this.input.reachedOffset;
    const frames = this.uncut;
    if (this.state === 'closed') {
      this.held.push({ epoch, frames, serialEnd, inputOffset });
      this.heldFramesBytes += this.uncutFramesBytes;
    } else this.input.acknowledge(inputOffset);
    this.uncut = [];
    this.uncutFramesBytes = 0;
    this.cutSerial = serialEnd;
    this.serial.dropBefore(Math.min(this.releasedSerial, this.cutSerial));
    this.watchBounds();
    return encodeOutput({ frames, serialOffset: offset, serial: bytes, inputOffset });
  }

  private allSerial(): { offset: number; bytes: Uint8Array } {
    const { history, serial } = this;
    if (!history || history.end < serial.start) return serial.slice(this.cutSerial, serial.end);
    const old = history.read(history.start);
    const fresh = serial.slice(history.end, serial.end);
    return { offset: old.offset, bytes: Buffer.concat([old.bytes, fresh.bytes]) };
  }

  /** The output of all epochs up to `epoch` leaves. */
  release(epoch: number): void {
    if (this.state === 'disposed') return;
    for (let next = this.held[0]; next && next.epoch <= epoch; next = this.held[0]) {
      this.held.shift();
      for (const frame of next.frames) {
        this.heldFramesBytes -= frame.bytes.length;
        this.onFrame?.(frame.nic, frame.bytes);
      }
      this.releaseSerial(next.serialEnd);
      this.input.acknowledge(next.inputOffset);
    }
    this.watchBounds();
  }

  /**
   * Goes on from where the last owner may have stopped: what it might not have released leaves with
   * the next release or opening, at once if the gate is open. Only for a gate without output yet.
   */
  adopt(log: OutputLog): void {
    if (this.lastCut !== -1 || this.serial.end !== 0 || this.uncut.length > 0)
      throw new GateError('GATE_USED', 'the gate has output of its own already');
    const { frames, serialOffset, serial, nextSerialOffset, inputOffset } = log.drain();
    this.serial = new SerialLog(serialOffset);
    this.releasedSerial = serialOffset;
    this.cutSerial = nextSerialOffset;
    this.serial.append(serial);
    this.input.restart(inputOffset);
    this.held.push({ epoch: -1, frames, serialEnd: nextSerialOffset, inputOffset });
    this.heldFramesBytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
    if (this.state === 'open') this.release(-1);
  }

  /** Drops what is held; nothing leaves any more. */
  dispose(): void {
    this.state = 'disposed';
    this.held = [];
    this.uncut = [];
    this.heldFramesBytes = 0;
    this.uncutFramesBytes = 0;
    this.releasedSerial = this.serial.end;
    this.serial.dropBefore(this.serial.end);
  }

  private get uncutBytes(): number {
    return this.uncutFramesBytes + this.serial.end - Math.max(this.cutSerial, this.releasedSerial);
  }

  private releaseSerial(to: number): void {
    if (to > this.releasedSerial) {
      const { offset, bytes } = this.serial.slice(this.releasedSerial, to);
      this.releasedSerial = to;
      this.onSerial?.(offset, bytes);
    }
    // Of what was released but not cut, a later standby learns as much as its ring holds.
    const keepFrom = Math.max(this.cutSerial, this.serial.end - SERIAL_RING_BYTES);
    this.serial.dropBefore(Math.min(this.releasedSerial, keepFrom));
  }

  private watchBounds(): void {
    const { bytesMax } = this.options;
    if (!this.full && (this.heldBytes > bytesMax || this.uncutBytes > UNCUT_BYTES_MAX)) {
      this.full = true;
      this.options.onFull();
    } else if (
      this.full &&
      this.heldBytes <= bytesMax / 2 &&
      this.uncutBytes <= UNCUT_BYTES_MAX / 2
    ) {
      this.full = false;
      this.options.onDrained();
    }
  }
}
