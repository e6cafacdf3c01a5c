/**
 * Looks for VMs that the record gives to this host while no process here has them: an owner's
 * process that died when no standby was left, or one that won a takeover and died before it could
 * say so. They are booted anew from their files, as loss of memory.
 */
import type { ArbiterReply } from '../core/events.js';
import type { VmChild } from './vm-child.js';
import type { KnownVm } from './vm-registry.js';

const REST_MS_MAX = 60_000;

export interface OrphanWatchOptions {
  readonly host: string;
  readonly everyMs: number;
  readonly known: () => readonly KnownVm[];
  readonly living: (vmUuid: string) => readonly VmChild[];
  readonly read: (vmUuid: string) => Promise<ArbiterReply>;
  readonly adopt: (vm: KnownVm) => void;
}

export class OrphanWatch {
  private readonly options: OrphanWatchOptions;
  private readonly timer: NodeJS.Timeout;
  /** Per VM: not before then, and how long to rest next time. */
  private readonly rests = new Map<string, { untilMs: number; nextMs: number }>();
  private looking = false;

  constructor(options: OrphanWatchOptions) {
    this.options = options;
    this.timer = setInterval(() => void this.look(), options.everyMs);
    this.timer.unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private async look(): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    try {
      for (const vm of this.options.known()) await this.lookAt(vm);
    } finally {
      this.looking = false;
    }
  }

  private async lookAt(vm: KnownVm): Promise<void> {
    const { vmUuid } = vm;
    if (this.isServed(vmUuid, null) || this.isResting(vmUuid)) return;
    const reply = await this.options.read(vmUuid);
    if (reply.outcome !== 'ok' || !reply.record) return;
    const { owner, ownerIncarnation, mode } = reply.record;
    if (owner !== this.options.host || mode === 'stopped') return;
    if (this.isServed(vmUuid, ownerIncarnation)) return;
    this.rest(vmUuid);
    this.options.adopt(vm);
  }

  /** A process that has not said its name yet may be the owner. */
  private isServed(vmUuid: string, owner: string | null): boolean {
    return this.options
      .living(vmUuid)
      .some(
        ({ init, status, incarnation }) =>
          init.role === 'primary' ||
          status?.role === 'primary' ||
          incarnation === '' ||
          incarnation === owner,
      );
  }

  private isResting(vmUuid: string): boolean {
    const rest = this.rests.get(vmUuid);
    return rest !== undefined && performance.now() < rest.untilMs;
  }

  /** One that cannot be booted is tried less and less often. */
  private rest(vmUuid: string): void {
    const restMs = this.rests.get(vmUuid)?.nextMs ?? this.options.everyMs;
    const nextMs = Math.min(REST_MS_MAX, restMs * 2);
    this.rests.set(vmUuid, { untilMs: performance.now() + restMs, nextMs });
  }
}
