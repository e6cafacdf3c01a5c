/**
 * A daemon's part where there is no arbiter: it asks the other host for its VM processes and for
 * itself, and answers what that asks.
 */
import type { Socket } from 'node:net';
import type { ArbiterReply } from '../core/events.js';
import type { OwnerState } from '../core/pair-record.js';
import type { VmRecord } from '../core/record.js';
import type { Arbiter } from '../pool/arbiter.js';
import { wordOf, type Line } from '../wire/line-exchange.js';
import type { Security } from '../wire/security.js';
import type { Peer } from '../wire/trust-store.js';
import type { HostConfig } from './host-config.js';
import { answerPair, parseRequest } from './pair-link.js';
import { PairRecords, type PairCaller } from './pair-records.js';
import type { VmChild } from './vm-child.js';
import type { VmToDaemon } from './vm-protocol.js';
import type { VmRegistry } from './vm-registry.js';

const REQUEST_MS_MAX = 5_000;

type RecordQuestion = Extract<VmToDaemon, { type: 'record' }>;

/** What this needs of the daemon. */
export interface PairHome {
  readonly config: HostConfig;
  readonly security: Security;
  readonly registry: VmRegistry;
  readonly say: (text: string) => void;
  /** Their processes that live. */
  readonly living: () => VmChild[];
}

export class PairDaemon {
  /** For the daemon's own questions. */
  readonly arbiter: Arbiter;
  private readonly home: PairHome;
  private readonly records: PairRecords;

  constructor(home: PairHome) {
    this.home = home;
    const { name: host, stateDir, detectMs } = home.config;
    this.records = new PairRecords({
      ...{ host, stateDir, security: home.security, onFault: home.say, askMs: detectMs / 2 },
      ownerOf: (record) => this.ownerOf(record),
      onYield: ({ vm, vmUuid, owner }, aside) => {
        home.say(`${vm}: host ${owner} was forced to take over: this side stops, see ${aside}`);
        for (const child of this.processesOf(vmUuid)) child.look();
      },
    });
    this.arbiter = {
      read: (vmUuid) => this.records.read(vmUuid, this.caller(vmUuid)),
      cas: (vmUuid, revision, wish) =>
        this.records.cas(vmUuid, revision, wish, this.caller(vmUuid)),
      close: () => {},
    };
  }

  /** An id that was made just now. */
  isNew(vmUuid: string): void {
    this.records.isNew(vmUuid);
  }

  /** On a person's word that the other host, at `peer`, is gone. */
  readForced(vmUuid: string, peer: string | null): Promise<ArbiterReply> {
    return this.records.read(vmUuid, { peer, forced: true });
  }

  /** Who owns a VM that `peer` says is its own; this host may not know of it yet. */
  readAt(vmUuid: string, { addresses }: Peer): Promise<ArbiterReply> {
    const known = this.mirrorAt(vmUuid);
    const peer = known ?? addresses.at(0) ?? null;
    return this.records.read(vmUuid, { peer, forced: false });
  }

  /** A VM process of this host asks. */
  recordFor(vmUuid: string, { peer, forced, change }: RecordQuestion): Promise<ArbiterReply> {
    const caller: PairCaller = { peer: peer ?? this.mirrorAt(vmUuid), forced };
    if (!change) return this.records.read(vmUuid, caller);
    return this.records.cas(vmUuid, change.expectRevision, change.proposal, caller);
  }

  /** The other host asks, without TLS. */
  answerPlainly(socket: Socket, vmUuid: string): Promise<void> {
    return answerPair(socket, REQUEST_MS_MAX, (asked) => this.records.serve(vmUuid, asked, null));
  }

  /** A host that has proven who it is asks. */
  answer({ name }: Peer, line: Line): Promise<object> {
    const vmUuid = wordOf(line, 'vmUuid');
    const address = this.mirrorAt(vmUuid) ?? '';
    const mirroredTo = this.home.security.trust.byAddress(address)?.name ?? null;
    return this.records.serve(vmUuid, parseRequest(line), { name, mirroredTo });
  }

  private ownerOf({ vmUuid, ownerIncarnation }: VmRecord): OwnerState {
    const living = this.processesOf(vmUuid);
    const owner = living.find(({ incarnation }) => incarnation === ownerIncarnation);
    if (owner) return owner.status?.yields === true ? 'yields' : 'serves';
    // One that has not said its name yet may be the one.
    return living.some(({ incarnation }) => incarnation === '') ? 'unknown' : 'gone';
  }

  private processesOf(vmUuid: string): VmChild[] {
    return this.home.living().filter(({ init }) => init.vmUuid === vmUuid);
  }

  private caller(vmUuid: string): PairCaller {
    return { peer: this.mirrorAt(vmUuid), forced: false };
  }

  /** Where the VM is mirrored to from here, as its process says, or as it was last known. */
  private mirrorAt(vmUuid: string): string | null {
    const living = this.processesOf(vmUuid).find(({ peerAddress }) => peerAddress !== null);
    if (living) return living.peerAddress;
    const known = this.home.registry.load(() => {}).find((vm) => vm.vmUuid === vmUuid);
    return known?.peer ?? null;
  }
}
