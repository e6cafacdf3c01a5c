/** Heartbeats and silence on one session. Only liveness rests on it. */
import type { Effect, SessionId } from './events.js';

const BEATS_PER_DETECTION = 4;

export class PeerWatch {
  readonly session: SessionId;
  private readonly detectMs: number;
  private heardAtMs: number;
  private nextBeatMs: number;
  private sequence = 0;

  constructor(session: SessionId, detectMs: number, nowMs: number) {
    this.session = session;
    this.detectMs = detectMs;
    this.heardAtMs = nowMs;
    this.nextBeatMs = nowMs;
  }

  heard(nowMs: number): void {
    this.heardAtMs = nowMs;
  }

  silent(nowMs: number): boolean {
    return nowMs - this.heardAtMs > this.detectMs;
  }

  beat(nowMs: number, releasedThrough: number): Effect[] {
    if (nowMs < this.nextBeatMs) return [];
    this.nextBeatMs = nowMs + this.detectMs / BEATS_PER_DETECTION;
    this.sequence += 1;
    const message = { type: 'heartbeat', sequence: this.sequence, releasedThrough } as const;
    return [{ type: 'send', session: this.session, message }];
  }

  get wakeAtMs(): number {
    return Math.min(this.nextBeatMs, this.heardAtMs + this.detectMs + 1);
  }
}
