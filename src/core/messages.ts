/**
 * What the two VM processes of a pair say to each other. Payload bytes (pages, device state,
 * output) travel beside the `epoch-part` message and are opaque to the core.
 */

export type PeerMessage =
  Hello | Welcome | Refuse | EpochPart | Ack | Nack | Heartbeat | PairedHint | Handover | Release;

/** Owner -> standby, first on every session. */
export interface Hello {
  readonly type: 'hello';
  readonly vmUuid: string;
  readonly host: string;
  /** Where the sender's host can be dialled. */
  readonly address: string;
  readonly incarnation: string;
  readonly generation: number;
}

/** Standby -> owner: has read the record, found the sender to be its owner, and waits for pages. */
export interface Welcome {
  readonly type: 'welcome';
  readonly host: string;
  readonly incarnation: string;
}

export interface Refuse {
  readonly type: 'refuse';
  readonly reason: 'stale' | 'busy' | 'arbiter' | 'mismatch';
}

/**
 * One part of an epoch; parts arrive in order 0 .. partCount-1. `base` is true for the first epoch
 * of a sync, which builds on an empty image rather than on its predecessor.
 */
export interface EpochPart {
  readonly type: 'epoch-part';
  readonly generation: number;
  readonly epoch: number;
  readonly part: number;
  readonly partCount: number;
  readonly base: boolean;
  /** True in the epoch whose image holds all of memory: the pair may rest on it. */
  readonly complete: boolean;
  /** The owner has released all output up to this epoch. */
  readonly releasedThrough: number;
}

/** Standby -> owner: `epoch` is durable here (DESIGN rule 4). */
export interface Ack {
  readonly type: 'ack';
  readonly generation: number;
  readonly epoch: number;
  readonly incarnation: string;
}

/** Standby -> owner: what arrived was gapped or bad and was dropped whole; send from `epoch` on. */
export interface Nack {
  readonly type: 'nack';
  readonly generation: number;
  readonly epoch: number;
}

export interface Heartbeat {
  readonly type: 'heartbeat';
  readonly sequence: number;
  readonly releasedThrough: number;
}

/** Owner -> standby: the record has changed, read it. Only a hint: the record decides. */
export interface PairedHint {
  readonly type: 'paired-hint';
  readonly generation: number;
}

/** Owner -> standby: the VM stands still at `epoch`, which you acked; take over now. */
export interface Handover {
  readonly type: 'handover';
  readonly epoch: number;
}

/** Owner -> standby: no longer needed (unprotected or stopped); read the record and go. */
export interface Release {
  readonly type: 'release';
}
