/** A VM process's way to the record where there is no arbiter: its host's daemon keeps it. */
import type { ArbiterReply } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import type { Arbiter } from '../pool/arbiter.js';
import type { VmToDaemon } from './vm-protocol.js';

const WAITING_MAX = 64;

export interface DaemonArbiterOptions {
  readonly deadlineMs: number;
  /** Address of the other host, as it is known now. */
  readonly peer: () => string | null;
  readonly forced: boolean;
  readonly tell: (message: VmToDaemon) => void;
}

export class DaemonArbiter implements Arbiter {
  private readonly options: DaemonArbiterOptions;
  private readonly waiting = new Map<number, (reply: ArbiterReply) => void>();
  private nextId = 1;
  private closed = false;

  constructor(options: DaemonArbiterOptions) {
    this.options = options;
  }

  read(): Promise<ArbiterReply> {
    return this.ask(null);
  }

  cas(_vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    return this.ask({ expectRevision, proposal });
  }

  answered(id: number, reply: ArbiterReply): void {
    this.waiting.get(id)?.(reply);
  }

  close(): void {
    this.closed = true;
    for (const settle of this.waiting.values()) settle({ outcome: 'unknown' });
  }

  private ask(change: { expectRevision: number; proposal: Proposal } | null) {
    return new Promise<ArbiterReply>((resolve) => {
      if (this.closed || this.waiting.size >= WAITING_MAX) return resolve({ outcome: 'unknown' });
      const id = this.nextId;
      this.nextId += 1;
      const settle = (reply: ArbiterReply): void => {
        clearTimeout(timer);
        this.waiting.delete(id);
        resolve(reply);
      };
      const timer = setTimeout(() => settle({ outcome: 'unknown' }), this.options.deadlineMs);
      this.waiting.set(id, settle);
      const { peer, forced, tell } = this.options;
      tell({ type: 'record', id, peer: peer(), forced, change });
    });
  }
}
