/**
 * The record of a VM where two hosts have no arbiter (`arbiter: none`). It is held by one of them,
 * the owner's, in a file; the other has at most a copy. It changes hands only when its holder gives
 * it away, which is durable before anybody is told, or when a person forces it.
 *
 * Forced means that two may hold it until the hosts meet again. Then the one forced last stays: the
 * order is that of `outranks`, and where both were forced it settles that too.
 */
import { sameAs } from './arbiter-client.js';
import type { ArbiterReply } from './events.js';
import { mayFollow, type Proposal, type VmRecord } from './record.js';

export interface RecordCopy {
  /** `gave`: to the record's owner, who may not have heard of it; `seen`: as the holder told it. */
  readonly hold: 'holds' | 'gave' | 'seen';
  readonly record: VmRecord;
}

/** What one host asks the other; what the asker has comes along, so that both know. */
export interface PairRequest {
  readonly host: string;
  readonly copy: RecordCopy | null;
  /** `null`: only to read. */
  readonly change: { readonly expectRevision: number; readonly proposal: Proposal } | null;
}

export interface PairAnswer {
  readonly copy: RecordCopy | null;
  readonly reply: ArbiterReply;
}

/** How the owner's daemon finds the process that the record names. */
export type OwnerState = 'serves' | 'yields' | 'gone' | 'unknown';

const UNKNOWN: ArbiterReply = { outcome: 'unknown' };

/** Of two records that were both held, the one that stays. */
export function outranks(one: VmRecord, other: VmRecord): boolean {
  const [forced, otherForced] = [one.forcedAt ?? 0, other.forcedAt ?? 0];
  if (forced !== otherForced) return forced > otherForced;
  if (one.generation !== other.generation) return one.generation > other.generation;
  return one.owner < other.owner;
}

/** What this host has, once it has heard what the other has. */
export function met(
  mine: RecordCopy | null,
  theirs: RecordCopy | null,
  host: string,
): RecordCopy | null {
  if (!theirs) return mine;
  const seen: RecordCopy = { hold: 'seen', record: theirs.record };
  if (mine?.hold === 'holds')
    return theirs.hold === 'holds' ? settled(mine, theirs.record, seen) : mine;
  const newer = !mine || outranks(theirs.record, mine.record);
  if (theirs.hold === 'holds') return newer ? seen : mine;
  const given = theirs.hold === 'gave' && theirs.record.owner === host;
  return given && newer ? { hold: 'holds', record: theirs.record } : mine;
}

/**
 * Both hold it. Generations only rise, for every host refuses a lower one: so the one that stays
 * first goes above the other's, and only then the other yields.
 */
function settled(mine: RecordCopy, theirs: VmRecord, seen: RecordCopy): RecordCopy {
  const { record } = mine;
  if (outranks(theirs, record)) return theirs.generation > record.generation ? seen : mine;
  if (record.generation > theirs.generation) return mine;
  const raised = { revision: record.revision + 1, generation: theirs.generation + 1 };
  return { hold: 'holds', record: { ...record, ...raised } };
}

/** What a process of this host is told. `theirs`: what the other host answered, if it did. */
export function told(mine: RecordCopy | null, theirs: PairAnswer | null): ArbiterReply {
  if (mine?.hold === 'holds') return { outcome: 'ok', record: mine.record };
  if (!theirs) return UNKNOWN;
  if (theirs.copy?.hold === 'holds') return { outcome: 'ok', record: theirs.copy.record };
  // Known to either, held by none: only a person can say what became of it.
  return mine || theirs.copy ? UNKNOWN : { outcome: 'ok', record: null };
}

export interface Change {
  readonly copy: RecordCopy | null;
  readonly reply: ArbiterReply;
}

/** A change of the record that this host holds, or that nobody has yet. */
export function changedHere(
  mine: RecordCopy | null,
  expectRevision: number,
  proposal: Proposal,
): Change {
  const { record: current = null } = mine ?? {};
  if (!mayFollow(current, expectRevision, proposal))
    return { copy: mine, reply: { outcome: 'conflict', record: current } };
  const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
  return { copy: { hold: 'holds', record }, reply: { outcome: 'ok', record } };
}

/**
 * The other host asks for the record that this one holds. It gets it if the VM's process here is
 * gone or lets go, and the record names the asker's process as the standby; if the VM is stopped;
 * or on a person's word.
 */
export function handedOver(
  mine: RecordCopy | null,
  { host, change }: PairRequest,
  owner: OwnerState,
): Change {
  if (!mine || !change) return { copy: mine, reply: UNKNOWN };
  const { expectRevision, proposal } = change;
  const given = mine.hold === 'gave' && sameAs(proposal, mine.record);
  if (given) return { copy: mine, reply: { outcome: 'ok', record: mine.record } };
  if (mine.hold !== 'holds' || proposal.owner !== host) return { copy: mine, reply: UNKNOWN };
  if (!mayFollow(mine.record, expectRevision, proposal))
    return { copy: mine, reply: { outcome: 'conflict', record: mine.record } };
  if (!mayHandOver(mine.record, proposal, owner)) return { copy: mine, reply: UNKNOWN };
  const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
  return { copy: { hold: 'gave', record }, reply: { outcome: 'ok', record } };
}

function mayHandOver(record: VmRecord, proposal: Proposal, owner: OwnerState): boolean {
  if (isForced(proposal) || record.mode === 'stopped') return true;
  const { peer, peerIncarnation, mode } = record;
  const standby = peer === proposal.owner && peerIncarnation === proposal.ownerIncarnation;
  return mode === 'paired' && standby && (owner === 'gone' || owner === 'yields');
}

/** What came of asking for the record: it is held here before any process hears of it. */
export function taken(mine: RecordCopy | null, reply: ArbiterReply, host: string): Change {
  if (reply.outcome === 'unknown' || !reply.record) return { copy: mine, reply: UNKNOWN };
  const { record } = reply;
  if (reply.outcome === 'conflict') {
    const older = mine !== null && !outranks(record, mine.record);
    return { copy: older ? mine : { hold: 'seen', record }, reply };
  }
  if (mine?.hold === 'holds' && mine.record.revision === record.revision)
    return { copy: mine, reply };
  if (record.owner !== host || (mine && !outranks(record, mine.record)))
    return { copy: mine, reply: UNKNOWN };
  return { copy: { hold: 'holds', record }, reply };
}

/** A person's word, while the other host cannot be asked. */
export function forcedHere(
  mine: RecordCopy | null,
  expectRevision: number,
  proposal: Proposal,
): Change {
  const lower = mine !== null && proposal.generation <= mine.record.generation;
  if (lower || !isForced(proposal)) return { copy: mine, reply: UNKNOWN };
  const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
  return { copy: { hold: 'holds', record }, reply: { outcome: 'ok', record } };
}

/** The change itself is the forced one; later ones carry the mark on. */
export function isForced({ forcedAt, generation }: Proposal): boolean {
  return forcedAt === generation;
}
