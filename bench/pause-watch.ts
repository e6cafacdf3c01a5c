/** How long a VM stood still, by QEMU's own clock: from each STOP that it told to its RESUME. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { QMP_EVENTS, type QmpEvent } from '../src/machine/qemu/qmp-client.js';

/** Of all the QEMUs of this process: one that runs, at a time. */
export class PauseWatch {
  private pausesMs: number[] = [];
  private stoppedAtMs: number | null = null;
  private readonly heard = (message: unknown): void => this.hear(message as QmpEvent);

  constructor() {
    subscribe(QMP_EVENTS, this.heard);
  }

  /** Those that have ended since the last time. */
  take(): number[] {
    const taken = this.pausesMs;
    this.pausesMs = [];
    return taken;
  }

  close(): void {
    unsubscribe(QMP_EVENTS, this.heard);
  }

  private hear({ event, atMs }: QmpEvent): void {
    if (event === 'STOP') this.stoppedAtMs = atMs;
    if (event !== 'RESUME' || this.stoppedAtMs === null) return;
    this.pausesMs.push(atMs - this.stoppedAtMs);
    this.stoppedAtMs = null;
  }
}
