/**
 * What goes into a state machine of the core, and what comes out. `step(event, nowMs)` takes one
 * event and returns effects, to be carried out in order by the driver (a VM process, or the
 * simulator).
 *
 * `nowMs` is any monotonic clock. It serves liveness only; no safety argument uses it.
 */
import type { HostNote, Proposal, VmRecord } from './record.js';
import type { PeerMessage } from './messages.js';

export interface CoreConfig {
  readonly vm: string;
  readonly vmUuid: string;
  readonly host: string;
  /** Where this host's daemon listens; a peer that takes over dials it. */
  readonly address: string;
  /** Random id of this process start. */
  readonly incarnation: string;
  /** Silence or a lack of progress that counts as loss of the peer, in `ms`. */
  readonly detectMs: number;
  /** A sent epoch that stays unacknowledged for this long is a failure too, in `ms`. */
  readonly ackMsMax: number;
  readonly redialMs: number;
  readonly arbiterRetryMs: number;
  /** Epochs captured and not yet acknowledged, at most. */
  readonly unackedEpochsMax: number;
  readonly onPeerLoss: 'solo' | 'stall';
  /** No third vote: the record is on the owner's host. */
  readonly recordAtOwner: boolean;
}

export type SessionId = number;

export type Event =
  /** Time passed; sent at the latest when the last `wakeAt` is due. */
  | { readonly type: 'tick' }
  /** The record may have changed behind this process's back: look at it now. */
  | { readonly type: 'look' }
  /** The machine is booted or promoted and stands paused, ready to run. */
  | { readonly type: 'machine-ready' }
  /** The pacer wants an epoch now; ignored when one may not be cut. */
  | { readonly type: 'epoch-due' }
  /**
   * A `capture` effect is done and the VM runs again. `complete`: the sync has now covered all of
   * memory. `ready`: the rest fits one final capture.
   */
  | {
      readonly type: 'captured';
      readonly epoch: number;
      readonly complete: boolean;
      readonly ready: boolean;
    }
  | { readonly type: 'capture-failed'; readonly epoch: number; readonly reason: string }
  /** The gate holds as much as it may; the VM stands still until `gate-drained`. */
  | { readonly type: 'gate-full' }
  | { readonly type: 'gate-drained' }
  | { readonly type: 'powered-off' }
  | { readonly type: 'machine-failed'; readonly reason: string }
  /** A dial succeeded (owner) or the daemon handed over a connection (standby). */
  | { readonly type: 'session-up'; readonly session: SessionId }
  | { readonly type: 'session-down'; readonly session: SessionId }
  | { readonly type: 'dial-failed' }
  | { readonly type: 'message'; readonly session: SessionId; readonly message: PeerMessage }
  /** A `verify` effect is done: the epoch decoded whole and its root hash matched, or not. */
  | { readonly type: 'verified'; readonly epoch: number; readonly ok: boolean }
  | { readonly type: 'arbiter-reply'; readonly request: number; readonly reply: ArbiterReply }
  | { readonly type: 'note-saved'; readonly request: number }
  /** Answer to `probe-image`: whether that incarnation's process is still alive on its host. */
  | { readonly type: 'image-alive'; readonly alive: boolean | 'unknown' }
  | { readonly type: 'command'; readonly command: Command };

export type ArbiterReply =
  /** A read, or a CAS that won: the record as it now stands. */
  | { readonly outcome: 'ok'; readonly record: VmRecord | null }
  /** A CAS that lost: the record as it stands. */
  | { readonly outcome: 'conflict'; readonly record: VmRecord | null }
  /** No answer to believe: the request may have been carried out or not, or may yet be. */
  | { readonly outcome: 'unknown' };

export type Command =
  /** Keep the VM mirrored to `peer` (an address) from now on. */
  | { readonly type: 'protect'; readonly peer: string }
  | { readonly type: 'unprotect' }
  | { readonly type: 'stop' }
  /** Planned switch-over to the standby. */
  | { readonly type: 'handover' }
  /** A person says that the arbiter lost its memory and that this side owns the VM. */
  | { readonly type: 'reseed' }
  /** The same, said to a standby whose owner is gone for good: it takes over. */
  | { readonly type: 'force' };

export type Effect =
  | { readonly type: 'wake-at'; readonly atMs: number }
  /**
   * Load the VM from its files; answered by `machine-ready`. `memoryLost` is reported to the user.
   */
  | { readonly type: 'boot'; readonly memoryLost: boolean }
  | { readonly type: 'run' }
  | { readonly type: 'pause' }
  /** Keep the image of a VM that is about to be killed, for a person to look at. */
  | { readonly type: 'keep-aside'; readonly generation: number }
  /** Stop the VM for good, drop what the gate holds. */
  | { readonly type: 'kill-machine' }
  /** Close the gate: output made from now on belongs to the epoch that the next capture cuts. */
  | { readonly type: 'gate-close' }
  /** Open the gate: all that is held and all to come leaves at once (solo owner). */
  | { readonly type: 'gate-open' }
  /** Output of all epochs up to `epoch` leaves the gate. */
  | { readonly type: 'gate-release'; readonly epoch: number }
  /**
   * Pause, capture, resume (unless `hold`), then report `captured`, encode, and send the parts on
   * `session` under `generation`. `base`: the first epoch of a sync.
   */
  | {
      readonly type: 'capture';
      readonly session: SessionId;
      readonly generation: number;
      readonly epoch: number;
      readonly base: boolean;
      /** This epoch must cover all that is left of memory. The gate has been closed before. */
      readonly final: boolean;
      /** Leave the VM paused after the capture (stop, power-off, handover). */
      readonly hold: boolean;
    }
  /** Send the retained parts of `epoch` again. */
  | { readonly type: 'resend'; readonly session: SessionId; readonly epoch: number }
  /** The retained parts up to `epoch` are no longer needed. */
  | { readonly type: 'forget'; readonly epoch: number }
  | { readonly type: 'dial'; readonly peer: string }
  /**
   * Ask the daemon of a host (this one or the peer's) whether a process with this incarnation
   * lives; answered by `image-alive`.
   */
  | { readonly type: 'probe-image'; readonly host: string; readonly incarnation: string }
  | { readonly type: 'hang-up'; readonly session: SessionId }
  | { readonly type: 'send'; readonly session: SessionId; readonly message: PeerMessage }
  /** Standby: keep the payload that came with this part, without touching the image. */
  | { readonly type: 'stage'; readonly epoch: number; readonly part: number }
  /** Standby: decode all staged parts and check the root hash; answered by `verified`. */
  | { readonly type: 'verify'; readonly epoch: number }
  /**
   * Standby: the verified epoch becomes the image; its output is kept until known to be released.
   */
  | { readonly type: 'commit'; readonly epoch: number }
  /** Standby: drop what is staged; the image stays as it was. */
  | { readonly type: 'drop-staged' }
  /** Standby: output up to `epoch` has left the owner's gate and need not be kept. */
  | { readonly type: 'output-released'; readonly epoch: number }
  /**
   * Standby won the takeover: make the machine from the committed image at `epoch`, release its
   * kept output, announce its NICs; answered by `machine-ready`.
   */
  | { readonly type: 'promote'; readonly epoch: number; readonly generation: number }
  | { readonly type: 'arbiter-read'; readonly request: number }
  | {
      readonly type: 'arbiter-cas';
      readonly request: number;
      /** 0: the record must not exist. */
      readonly expectRevision: number;
      readonly proposal: Proposal;
    }
  /** Make the note durable; answered by `note-saved`. */
  | { readonly type: 'save-note'; readonly request: number; readonly note: HostNote }
  /** Outcome of a command, for whoever gave it. */
  | { readonly type: 'answer'; readonly command: Command['type']; readonly error: string | null }
  /** Something that an operator should know. */
  | { readonly type: 'warn'; readonly code: string; readonly text: string }
  /** This process has no more to do: it exits with this last state. */
  | { readonly type: 'exit'; readonly state: 'stopped' | 'superseded' | 'released' | 'failed' };

/** What `status` shows of a VM process. */
export interface CoreStatus {
  readonly role: 'primary' | 'secondary';
  readonly state:
    | 'starting'
    | 'syncing'
    | 'protected'
    | 'solo'
    | 'standby'
    | 'taking-over'
    | 'waiting-arbiter'
    | 'superseded'
    | 'stopped'
    | 'failed';
  readonly generation: number;
  /** Last epoch captured (primary) or seen (secondary). */
  readonly epoch: number;
  /** Last epoch acknowledged (primary) or durable (secondary). */
  readonly committedEpoch: number;
  readonly owner: string;
  readonly peer: string;
  /** An owner that would rather have its standby go on: no output leaves it any more. */
  readonly yields?: boolean;
}

export interface Core {
  step(event: Event, nowMs: number): Effect[];
  status(): CoreStatus;
}
