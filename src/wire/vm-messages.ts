/**
 * All messages between the two VM processes of a pair: those of the core, and those with which the
 * owner describes the VM and hands over the files that it boots from.
 */
import type { PeerMessage } from '../core/messages.js';

export type VmMessage =
  PeerMessage | Offer | NeedFiles | FilePart | OfferOk | OfferRefused | SerialIn | SerialInState;

export interface OfferedFile {
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
}

/** Owner -> standby, before `hello`: what the VM is. */
export interface Offer {
  readonly type: 'offer';
  readonly specJson: string;
  readonly files: readonly OfferedFile[];
  /** Where the owner's host can be reached. */
  readonly address: string;
}

/** Standby -> owner: the files of the offer that are not here yet. */
export interface NeedFiles {
  readonly type: 'need-files';
  readonly sha256: readonly string[];
}

/** Owner -> standby: bytes of a file from `offset` on, in the payload. */
export interface FilePart {
  readonly type: 'file-part';
  readonly sha256: string;
  readonly offset: number;
  readonly last: boolean;
}

/** Standby -> owner: serial input that a console gave here, in the payload, by its place. */
export interface SerialIn {
  readonly type: 'serial-in';
  readonly offset: number;
}

/** Owner -> standby, in answer: what has gone into the VM, and what need not be kept. */
export interface SerialInState {
  readonly type: 'serial-in-state';
  readonly applied: number;
  readonly acked: number;
}

/** Standby -> owner: the machine can be made. */
export interface OfferOk {
  readonly type: 'offer-ok';
}

/** Standby -> owner, before it hangs up: why this host cannot stand by. */
export interface OfferRefused {
  readonly type: 'offer-refused';
  readonly reason: string;
}
