/**
 * How long the VM stood still, by QEMU's own word: its STOP and RESUME events say when to the
 * microsecond, but by a clock that may be set meanwhile; ours checks it.
 */
import type { QmpEvent } from './qmp-client.js';

/** Events come this much apart from when they happened, at most. */
const APART_MS_MAX = 50;
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

export class StillWatch {
  onStill: ((ms: number) => void) | null = null;
  /** All pauses together, in `ms`. */
  totalMs = 0;
  private stopped: { readonly atMs: number; readonly heardAtMs: number } | null = null;

  heard({ event, atMs }: QmpEvent): void {
    if (event === 'STOP') this.stopped = { atMs, heardAtMs: nowMs() };
    else if (event === 'RESUME') this.resumed(atMs);
  }

  private resumed(atMs: number): void {
    const { stopped } = this;
    this.stopped = null;
    if (!stopped) return;
    const told = atMs - stopped.atMs;
    const seen = nowMs() - stopped.heardAtMs;
    const ms = Math.abs(told - seen) < APART_MS_MAX ? told : seen;
    this.totalMs += ms;
    this.onStill?.(ms);
  }
}
