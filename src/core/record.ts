/**
 * The record: the one durable fact about a mirrored VM, held by the arbiter and changed by
 * compare-and-swap on `revision` alone. Everything else in the system is a cache of it or a hint.
 */

export type Mode = 'paired' | 'solo' | 'stopped';

export interface DiskLegs {
  readonly [diskId: string]: readonly string[];
}

export interface VmRecord {
  readonly vm: string;
  /** Random id given by `start`; tells apart two VMs that bore the same name. */
  readonly vmUuid: string;
  /** Raised by the arbiter at every change. */
  readonly revision: number;
  /** The fencing token: raised by every change that a host makes. */
  readonly generation: number;
  readonly mode: Mode;
  readonly owner: string;
  /** Random id of one process start. */
  readonly ownerIncarnation: string;
  /** The secondary host; empty unless `mode` is `paired`. */
  readonly peer: string;
  readonly peerIncarnation: string;
  /** The epoch that the peer held when the pair was made: it may take over from there on. */
  readonly baseEpoch: number;
  readonly diskLegs: DiskLegs;
  /** The last generation that a person forced where no arbiter could say who goes on. */
  readonly forcedAt?: number;
}

/** A record that a host proposes; the arbiter gives it its revision. */
export type Proposal = Omit<VmRecord, 'revision'>;

/**
 * What every arbiter checks of a change, and why it can be lost: revisions start anew when a person
 * reseeds a forgetful arbiter, generations never do.
 */
export function mayFollow(
  current: VmRecord | null,
  expectRevision: number,
  proposal: Proposal,
): boolean {
  const { revision = 0, generation = 0 } = current ?? {};
  return revision === expectRevision && proposal.generation > generation;
}

/**
 * What a host remembers durably about a VM across restarts. A record older than `generationSeen`
 * (or absent) proves that the arbiter lost its memory, and is refused.
 */
export interface HostNote {
  readonly vmUuid: string;
  readonly generationSeen: number;
  /** The highest generation that this host ever proposed; durable before the CAS is sent. */
  readonly generationAttempted: number;
}
