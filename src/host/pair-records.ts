/**
 * The records of VMs where two hosts have no arbiter: each host's daemon keeps what it has in a
 * file, and asks the other's. What is decided is in `core/pair-record.ts`.
 */
import type { ArbiterReply } from '../core/events.js';
import {
  changedHere,
  forcedHere,
  handedOver,
  met,
  taken,
  told,
  type Change,
  type OwnerState,
  type PairAnswer,
  type PairRequest,
  type RecordCopy,
} from '../core/pair-record.js';
import type { Proposal, VmRecord } from '../core/record.js';
import type { Security } from '../wire/security.js';
import { checkAsker, type PairAsker } from './pair-authority.js';
import { askPair } from './pair-link.js';
import { PairStore } from './pair-store.js';
import { describe } from './vm-process-error.js';

export interface PairOptions {
  readonly host: string;
  readonly stateDir: string;
  /** How long the other host may take to answer. */
  readonly askMs: number;
  /** Whether the process that the record names is on this host, and what it does. */
  readonly ownerOf: (record: VmRecord) => OwnerState;
  readonly onFault: (text: string) => void;
  /** How the other host is dialled. */
  readonly security: Security;
  /** This host held the record and has yielded to one that was forced. */
  readonly onYield: (record: VmRecord, aside: string) => void;
}

/** Who asks, as far as it matters. */
export interface PairCaller {
  /** Address of the other host. */
  readonly peer: string | null;
  /** On a person's word that the other host is gone. */
  readonly forced: boolean;
}

interface Decided<T> {
  readonly copy: RecordCopy | null;
  readonly say: T;
}

export class PairRecords {
  private readonly options: PairOptions;
  private readonly store: PairStore;
  private readonly turn = new Map<string, Promise<unknown>>();
  /** Ids that were made here just now: nobody else can know of them. */
  private readonly fresh = new Set<string>();
  private faultSaid = '';

  constructor(options: PairOptions) {
    this.options = options;
    this.store = new PairStore(options.stateDir);
  }

  isNew(vmUuid: string): void {
    this.fresh.add(vmUuid);
  }

  /** Never rejects: what cannot be told is `unknown`. */
  read(vmUuid: string, caller: PairCaller): Promise<ArbiterReply> {
    return this.safely(async () => {
      const { host } = this.options;
      const mine = await this.store.load(vmUuid);
      if (mine === null && this.fresh.has(vmUuid)) return { outcome: 'ok', record: null };
      const theirs = await this.ask(vmUuid, caller, { host, copy: mine, change: null });
      return this.inTurn<ArbiterReply>(vmUuid, (now) => {
        const copy = met(now, theirs?.copy ?? null, host);
        if (caller.forced && !theirs && copy)
          return { copy, say: { outcome: 'ok', record: copy.record } };
        const unmade = copy === null && caller.peer === null;
        return { copy, say: unmade ? { outcome: 'ok', record: null } : told(copy, theirs) };
      });
    });
  }

  cas(
    vmUuid: string,
    expectRevision: number,
    proposal: Proposal,
    caller: PairCaller,
  ): Promise<ArbiterReply> {
    return this.safely(async () => {
      const { host } = this.options;
      const mine = await this.store.load(vmUuid);
      const here = mine?.hold === 'holds' || (mine === null && expectRevision === 0);
      if (here)
        return this.change(vmUuid, (now) => changedHere(now, expectRevision, proposal));
      const change = { expectRevision, proposal };
      const theirs = await this.ask(vmUuid, caller, { host, copy: mine, change });
      return this.change(vmUuid, (now) => {
        if (!theirs) return forcedHere(now, expectRevision, proposal);
        return taken(met(now, theirs.copy, host), theirs.reply, host);
      });
    });
  }

  /** The other host asks. `asker`: who that is, proven; `null`: it asks in plain. */
  serve(vmUuid: string, request: PairRequest, asker: PairAsker | null): Promise<PairAnswer> {
    const { host, ownerOf } = this.options;
    return this.inTurn(vmUuid, (mine) => {
      if (asker) checkAsker(host, vmUuid, mine, request, asker);
      const known = met(mine, request.copy, host);
      const owner = known ? ownerOf(known.record) : 'unknown';
      const { copy, reply } = handedOver(known, request, owner);
      return { copy, say: { copy, reply } };
    });
  }

  private async ask(
    vmUuid: string,
    { peer }: PairCaller,
    request: PairRequest,
  ): Promise<PairAnswer | null> {
    const { security, askMs: deadlineMs } = this.options;
    if (peer === null) return null;
    return askPair(security, { address: peer, vmUuid, request, deadlineMs });
  }

  private change(vmUuid: string, decide: (now: RecordCopy | null) => Change) {
    return this.inTurn<ArbiterReply>(vmUuid, (now) => {
      const { copy, reply } = decide(now);
      return { copy, say: reply };
    });
  }

  /** One after the other for each VM; on the disk before anybody hears of it. */
  private inTurn<T>(vmUuid: string, decide: (mine: RecordCopy | null) => Decided<T>): Promise<T> {
    const work = async (): Promise<T> => {
      const mine = await this.store.load(vmUuid);
      const { copy, say } = decide(mine);
      if (copy && JSON.stringify(copy) !== JSON.stringify(mine)) await this.put(vmUuid, mine, copy);
      return say;
    };
    const before = this.turn.get(vmUuid) ?? Promise.resolve();
    const running = before.then(work, work);
    const settled = running
      .catch(() => {})
      .then(() => {
        if (this.turn.get(vmUuid) === settled) this.turn.delete(vmUuid);
      });
    this.turn.set(vmUuid, settled);
    return running;
  }

  private async put(vmUuid: string, mine: RecordCopy | null, copy: RecordCopy): Promise<void> {
    const yields = mine?.hold === 'holds' && copy.hold === 'seen';
    const aside = yields ? await this.store.keepAside(mine) : null;
    await this.store.save(vmUuid, copy);
    this.fresh.delete(vmUuid);
    if (aside !== null) this.options.onYield(copy.record, aside);
  }

  private async safely(work: () => Promise<ArbiterReply>): Promise<ArbiterReply> {
    try {
      return await work();
    } catch (error) {
      this.say(describe(error).message);
      return { outcome: 'unknown' };
    }
  }

  /** What is asked again and again fails in the same way again and again. */
  private say(fault: string): void {
    if (fault !== this.faultSaid) this.options.onFault(fault);
    this.faultSaid = fault;
  }
}
