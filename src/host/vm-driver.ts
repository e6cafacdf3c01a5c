/**
 * Carries out what the protocol core decides for one VM, in order, and tells it what happens. Owns
 * the core and the timers; the machine side, the standby side and the links are objects of their
 * own.
 */
import type { Core, CoreStatus, Effect, Event } from '../core/events.js';

type EffectOf<T extends Effect['type']> = Extract<Effect, { type: T }>;

/** One method for each kind of effect, so that none can be forgotten. */
export type EffectHandlers = {
  readonly [T in Effect['type']]: (effect: EffectOf<T>) => void;
};

const EVENTS_QUEUED_MAX = 100_000;

export class VmDriver {
  private readonly core: Core;
  private readonly handlers: EffectHandlers;
  private readonly onStatus: (status: CoreStatus) => void;
  private readonly queue: { event: Event; payload: Uint8Array | null }[] = [];
  /** Bytes that came with the event whose effects are being carried out. */
  payload: Uint8Array | null = null;
  event: Event | null = null;
  private stepping = false;
  private ended = false;
  private wake: NodeJS.Timeout | null = null;
  private lastState = '';

  constructor(core: Core, handlers: EffectHandlers, onStatus: (status: CoreStatus) => void) {
    this.core = core;
    this.handlers = handlers;
    this.onStatus = onStatus;
  }

  status(): CoreStatus {
    return this.core.status();
  }

  /** Events that arise while effects are carried out wait until all of these are done. */
  dispatch(event: Event, payload: Uint8Array | null = null): void {
    if (this.ended) return;
    if (this.queue.length >= EVENTS_QUEUED_MAX) throw new Error('event queue overflow');
    this.queue.push({ event, payload });
    if (this.stepping) return;
    this.stepping = true;
    try {
      for (let next = this.queue.shift(); next; next = this.queue.shift()) {
        this.payload = next.payload;
        this.event = next.event;
        this.stepOnce(next.event);
      }
    } finally {
      this.stepping = false;
    }
  }

  wakeAt(atMs: number): void {
    if (this.wake) clearTimeout(this.wake);
    const waitMs = Math.max(0, atMs - monotonicMs());
    this.wake = setTimeout(() => this.dispatch({ type: 'tick' }), Math.ceil(waitMs));
  }

  end(): void {
    this.ended = true;
    if (this.wake) clearTimeout(this.wake);
  }

  private stepOnce(event: Event): void {
    for (const effect of this.core.step(event, monotonicMs())) this.perform(effect);
    const status = this.core.status();
    const { role, state: now, generation, peer, yields = false } = status;
    const state = `${role} ${now} ${generation} ${peer} ${yields}`;
    if (state === this.lastState) return;
    this.lastState = state;
    this.onStatus(status);
  }

  private perform<T extends Effect['type']>(effect: EffectOf<T>): void {
    const handle = this.handlers[effect.type] as (effect: EffectOf<T>) => void;
    handle(effect);
  }
}

export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}
