/** What the daemon and a VM process say to each other over their IPC channel. */
import type { ArbiterReply, CoreStatus } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import type { AcceleratorSetting } from '../machine/qemu/qemu-choice.js';
import type { MemoryRoom } from './memory-room.js';
import type { VmConfig } from './vm-config.js';
import type { ProvenPeer } from './vm-dial.js';

export interface HostIdentity {
  readonly name: string;
  /** Where peers dial this host's daemon. */
  readonly address: string;
  /** The same for processes of this machine. */
  readonly local: string;
  readonly stateDir: string;
  readonly arbiter: string;
  readonly detectMs: number;
  /** Plain connections beyond loopback are allowed. */
  readonly insecure: boolean;
  /** For QEMU machines. */
  readonly accelerator: AcceleratorSetting;
  /** Only in these may a VM of another host have its disks here. */
  readonly diskFolders: readonly string[];
}

export interface InitMessage {
  readonly type: 'init';
  readonly role: 'primary' | 'secondary';
  readonly host: HostIdentity;
  readonly vmName: string;
  readonly vmUuid: string;
  /** Primary only: what to boot. */
  readonly vm: VmConfig | null;
  readonly start: 'create' | 'cold-boot';
  /** A person's word that the owner named by the record of this generation is gone. */
  readonly forcedOver?: number;
  readonly peer: string | null;
  readonly auditEvery: number;
  /** What this host has for it; `null`: nobody knows. */
  readonly room: MemoryRoom | null;
}

export type DaemonToVm =
  | InitMessage
  /**
   * Comes with the socket; `rest` (base64) was read from it already. `peer`: whom to expect there,
   * in a TLS handshake that is yet to come; `null`: a plain connection.
   */
  | {
      readonly type: 'session';
      readonly rest: string;
      readonly peer: ProvenPeer;
    }
  | {
      readonly type: 'request';
      readonly id: number;
      readonly method: string;
      readonly params: Record<string, unknown>;
    }
  | { readonly type: 'record-reply'; readonly id: number; readonly reply: ArbiterReply }
  /** The record has changed behind its back: look at it now. */
  | { readonly type: 'look' };

export type VmToDaemon =
  /** Where there is no arbiter: the daemon keeps the record. `change` null: only to read. */
  | {
      readonly type: 'record';
      readonly id: number;
      readonly peer: string | null;
      readonly forced: boolean;
      readonly change: { readonly expectRevision: number; readonly proposal: Proposal } | null;
    }
  | { readonly type: 'ready'; readonly incarnation: string }
  | {
      readonly type: 'state';
      readonly status: CoreStatus;
      readonly vm: VmConfig | null;
      /** Whom this process dials, once it is the owner. */
      readonly peerAddress: string | null;
    }
  | { readonly type: 'warning'; readonly code: string; readonly text: string }
  | {
      readonly type: 'reply';
      readonly id: number;
      readonly result?: unknown;
      readonly error?: { code: string; message: string };
    }
  | {
      readonly type: 'exit-state';
      readonly state: string;
      readonly reason: string;
      /** Of the error that kept the VM from being there at all. */
      readonly code?: string;
    };
