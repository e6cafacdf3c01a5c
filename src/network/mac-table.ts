/** Which port a MAC was last seen on. Bounded, and forgets what it has not seen for long. */

const BYTES = 6;
const GROUP_BIT = 1;

export interface MacTableOptions {
  readonly entriesMax: number;
  readonly ageMsMax: number;
}

/** A MAC in a frame as a number: 48 bits are safe. */
export function macAt(frame: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 0; i < BYTES; i++) value = value * 256 + (frame[at + i] ?? 0);
  return value;
}

/** Broadcast or multicast. */
export function isGroup(frame: Uint8Array, at: number): boolean {
  return ((frame[at] ?? 0) & GROUP_BIT) !== 0;
}

export class MacTable<Port> {
  private readonly options: MacTableOptions;
  /** In the order of last sight, oldest first. */
  private readonly entries = new Map<number, { port: Port; seenAtMs: number }>();

  constructor(options: MacTableOptions) {
    this.options = options;
  }

  get size(): number {
    return this.entries.size;
  }

  learn(mac: number, port: Port, nowMs: number): void {
    this.entries.delete(mac);
    this.entries.set(mac, { port, seenAtMs: nowMs });
    if (this.entries.size <= this.options.entriesMax) return;
    for (const oldest of this.entries.keys()) {
      this.entries.delete(oldest);
      return;
    }
  }

  find(mac: number, nowMs: number): Port | null {
    const entry = this.entries.get(mac);
    if (!entry) return null;
    if (nowMs - entry.seenAtMs <= this.options.ageMsMax) return entry.port;
    this.entries.delete(mac);
    return null;
  }

  forget(port: Port): void {
    for (const [mac, entry] of this.entries) if (entry.port === port) this.entries.delete(mac);
  }
}
