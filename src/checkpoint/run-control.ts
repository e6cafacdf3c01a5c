/**
 * Whether the VM runs. Several parties may hold it still at once (a capture, a full gate, the
 * core); it runs when none of them does.
 */
import type { Machine } from '../machine/machine.js';

export type HoldReason = 'core' | 'capture' | 'gate';

export class RunControl {
  private readonly machine: Machine;
  private readonly holds = new Set<HoldReason>(['core']);
  private running = false;
  private pausing: Promise<void> | null = null;
  private stopped = false;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Settles once the VM stands still; it does so until the reason is released. */
  async hold(reason: HoldReason): Promise<void> {
    this.holds.add(reason);
    if (this.running) {
      this.running = false;
      this.pausing = this.machine.pause();
    }
    await this.pausing;
  }

  release(reason: HoldReason): void {
    this.holds.delete(reason);
    if (this.holds.size > 0 || this.running || this.stopped) return;
    const pausing = this.pausing ?? Promise.resolve();
    // A pause still on its way must have settled before the machine may be resumed.
    void pausing.then(() => {
      if (this.holds.size > 0 || this.running || this.stopped) return;
      this.running = true;
      this.pausing = null;
      this.machine.resume();
    });
  }

  /** The capture is over; `goesOn`: the machine has let the VM go on by itself. */
  captured(goesOn: boolean): void {
    if (goesOn && !this.stopped) {
      this.running = true;
      this.pausing = null;
      const [other] = [...this.holds].filter((reason) => reason !== 'capture');
      if (other) void this.hold(other);
    }
    this.release('capture');
  }

  /** Stops the VM for good. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.running = false;
    await this.machine.stop();
  }
}
