/**
 * Serial input by its place in the stream, so that it goes into the VM exactly once through
 * takeovers: the owner says how far it is safe, and the one writer sends again what is not.
 */

const NO_BYTES = new Uint8Array(0);

/** How far the VM has taken serial input, and up to where it is safe. */
export interface InputState {
  readonly applied: number;
  readonly acked: number;
}

/** The owner's side. What went into the VM is acknowledged with the epoch that holds it. */
export class SerialInput {
  /** Bytes that go into the VM now. */
  onInput: ((bytes: Uint8Array) => void) | null = null;
  /** Input up to this place is safe and need not be kept by the writer. */
  onAcked: ((offset: number) => void) | null = null;
  /** How much of what went in has not reached the guest's device yet. */
  waitingBytes: () => number = () => 0;
  private readonly unackedBytesMax: number;
  private applied: number;
  private acked: number;

  constructor(startOffset = 0, unackedBytesMax: number = 64 << 10) {
    this.applied = startOffset;
    this.acked = startOffset;
    this.unackedBytesMax = unackedBytesMax;
  }

  get appliedOffset(): number {
    return this.applied;
  }

  /** Up to where a capture taken now holds the input. */
  get reachedOffset(): number {
    return this.applied - this.waitingBytes();
  }

  get ackedOffset(): number {
    return this.acked;
  }

  /**
   * Takes what is new of `bytes` and fits; returns the place from which to send on. Bytes past a
   * gap are refused.
   */
  offer(offset: number, bytes: Uint8Array): number {
    if (offset > this.applied) return this.applied;
    const skip = Math.min(bytes.length, this.applied - offset);
    const room = this.unackedBytesMax - (this.applied - this.acked);
    const fresh = bytes.subarray(skip, skip + Math.max(0, room));
    if (fresh.length > 0) {
      this.applied += fresh.length;
      this.onInput?.(fresh);
    }
    return this.applied;
  }

  acknowledge(offset: number): void {
    if (offset > this.applied) throw new Error('acknowledged input that never came');
    if (offset <= this.acked) return;
    this.acked = offset;
    this.onAcked?.(offset);
  }

  /** Goes on where the last owner's committed epoch stood. */
  restart(offset: number): void {
    this.applied = offset;
    this.acked = offset;
  }
}

/** The writer's side: keeps what is not acknowledged yet. */
export class InputQueue {
  private readonly bytesMax: number;
  private offset: number;
  private bytes: Uint8Array = NO_BYTES;

  constructor(startOffset = 0, bytesMax: number = 64 << 10) {
    this.offset = startOffset;
    this.bytesMax = bytesMax;
  }

  get isEmpty(): boolean {
    return this.bytes.length === 0;
  }

  /** Takes as much of `bytes` as fits, and returns how much that is. */
  push(bytes: Uint8Array): number {
    const taken = bytes.subarray(0, this.bytesMax - this.bytes.length);
    const joined = new Uint8Array(this.bytes.length + taken.length);
    joined.set(this.bytes);
    joined.set(taken, this.bytes.length);
    this.bytes = joined;
    return taken.length;
  }

  /** What to send to an owner that has input up to `from`. */
  pending(from: number): { offset: number; bytes: Uint8Array } {
    const skip = Math.min(this.bytes.length, Math.max(0, from - this.offset));
    return { offset: this.offset + skip, bytes: this.bytes.subarray(skip) };
  }

  acknowledge(offset: number): void {
    const { bytes } = this.pending(offset);
    this.offset += this.bytes.length - bytes.length;
    this.bytes = bytes;
  }
}
