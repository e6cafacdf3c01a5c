/**
 * How a record is changed on a raw device that can do no more than read and write blocks: Disk
 * Paxos with one disk. The same steps run on real devices (`device-arbiter.ts`) and in the
 * simulator.
 *
 * Each revision of a record is one decision. Whoever wants to decide it begins a ballot in its own
 * slot, then reads all slots: a higher ballot there, or a later revision, and it begins again. A
 * value that anybody may have accepted is taken up, else its own is put; it accepts that in its
 * slot and reads all slots once more. If nobody has begun a higher ballot by then, nobody will ever
 * decide otherwise, for whoever begins one later reads this slot first. Then its slot goes on to
 * the next revision, with what was decided. No step rests on time: a writer may sleep between any
 * two, or die there and have its slot used by another process of its host.
 *
 * Source: Gafni and Lamport, Disk Paxos, Distributed Computing 16 (2003).
 */
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import { mayFollow, type Proposal, type VmRecord } from '../core/record.js';
import type { Decided, SlotBlock } from './slot.js';

/** Of how many revisions back it is still known who proposed them. */
const PAST_MAX = 64;

export type DiskStep =
  /** All slots of a place, each as it was at some moment since this step began. */
  | { readonly do: 'read'; readonly place: number }
  /** The own slot; it is durable before this step ends. */
  | { readonly do: 'write'; readonly place: number; readonly block: SlotBlock }
  /** Let others go ahead for a while. */
  | { readonly do: 'rest'; readonly round: number };

/** Of `read`: by slot; `null` where nobody has written. */
export type DiskResult = readonly (SlotBlock | null)[];

export interface DiskParty {
  /** The own slot: nobody else writes it while these steps run. */
  readonly self: number;
  readonly slotCount: number;
  /** Where the VM's record can be, in the order in which everybody looks for this VM. */
  readonly places: readonly number[];
}

type Steps<T> = Generator<DiskStep, T, DiskResult>;

interface Wish {
  readonly expectRevision: number;
  readonly record: VmRecord;
  /** The ballots in which it was put, at the place that is looked at. */
  readonly ballots: Set<number>;
}

/** What the slots of a place say, taken together. */
interface View {
  /** The revision that is to be decided next. */
  readonly revision: number;
  readonly standing: Decided | null;
  readonly past: readonly number[];
  readonly ballotMax: number;
  /** What was accepted in the highest ballot: it may have been decided. */
  readonly accepted: Decided | null;
}

export function* readByBallots(party: DiskParty, vmUuid: string): Steps<ArbiterReply> {
  const view = yield* find(party, vmUuid, null);
  return { outcome: 'ok', record: view?.standing?.record ?? null };
}

export function* changeByBallots(
  party: DiskParty,
  vmUuid: string,
  expectRevision: number,
  proposal: Proposal,
): Steps<ArbiterReply> {
  const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
  const wish: Wish = { expectRevision, record, ballots: new Set() };
  const view = yield* find(party, vmUuid, wish);
  if (!view) throw new MirrorError('TOO_MANY_RECORDS', 'the device has no place for another VM');
  const proposedBy = ballotOf(view, record.revision);
  if (proposedBy === null && wish.ballots.size > 0) return { outcome: 'unknown' };
  if (proposedBy !== null && wish.ballots.has(proposedBy)) return { outcome: 'ok', record };
  return { outcome: 'conflict', record: view.standing?.record ?? null };
}

/**
 * The place of this VM. Everybody passes the same places in the same order, and a place only when
 * another VM has it for good: so no VM ever has two.
 */
function* find(party: DiskParty, vmUuid: string, wish: Wish | null): Steps<View | null> {
  for (const place of party.places) {
    wish?.ballots.clear();
    const view = yield* settle(party, place, wish);
    if (!view.standing || view.standing.record.vmUuid === vmUuid) return view;
  }
  return null;
}

/** Goes on until nothing is undecided at this place and the wish has won, or cannot any more. */
function* settle(party: DiskParty, place: number, wish: Wish | null): Steps<View> {
  for (let round = 0; ; round += 1) {
    if (round > 0) yield { do: 'rest', round };
    const slots = yield { do: 'read', place };
    const view = viewOf(slots);
    const put = fits(view, wish) ? wish : null;
    if (!view.accepted && !put) return view;
    const next = yield* ballot(party, place, slots, put);
    if (next && !fits(next, wish)) return next;
  }
}

/** One ballot; what follows from its decision, or `null` if others have gone ahead. */
function* ballot(
  { self, slotCount }: DiskParty,
  place: number,
  slots: DiskResult,
  wish: Wish | null,
): Steps<View | null> {
  const { revision, standing, past, ballotMax } = viewOf(slots);
  const mine = slots[self]?.revision === revision ? slots[self] : null;
  const number = ballotAbove(ballotMax, self, slotCount);
  const { accepted = 0, value = null } = mine ?? {};
  const begun: SlotBlock = { revision, ballot: number, accepted, value, standing, past };
  yield { do: 'write', place, block: begun };
  const seen = viewOf(yield { do: 'read', place });
  if (seen.revision > revision || seen.ballotMax > number) return null;
  const decided = seen.accepted ?? (wish && { record: wish.record, ballot: number });
  if (!decided) return null;
  if (decided.ballot === number) wish?.ballots.add(number);
  yield { do: 'write', place, block: { ...begun, accepted: number, value: decided } };
  const after = viewOf(yield { do: 'read', place });
  if (after.revision > revision || after.ballotMax > number) return null;
  const block = followUp(begun, decided);
  yield { do: 'write', place, block };
  return { ...block, ballotMax: 0, accepted: null };
}

/** What a slot says once its revision is decided. */
function followUp({ revision, standing, past }: SlotBlock, decided: Decided): SlotBlock {
  const known = standing ? [standing.ballot, ...past].slice(0, PAST_MAX) : [];
  const nothing = { ballot: 0, accepted: 0, value: null };
  return { revision: revision + 1, ...nothing, standing: decided, past: known };
}

function fits({ revision, standing }: View, wish: Wish | null): boolean {
  if (!wish || revision !== wish.record.revision) return false;
  const { record: current = null } = standing ?? {};
  if (current && current.vmUuid !== wish.record.vmUuid) return false;
  return mayFollow(current, wish.expectRevision, wish.record);
}

/** A slot of a later revision knows how all earlier ones were decided: those say nothing more. */
function viewOf(slots: DiskResult): View {
  const written = slots.filter((slot) => slot !== null);
  const revision = Math.max(1, ...written.map((slot) => slot.revision));
  const current = written.filter((slot) => slot.revision === revision);
  const { standing = null, past = [] } = current.at(0) ?? {};
  if (current.some((slot) => slot.standing?.ballot !== standing?.ballot))
    throw new MirrorError('BAD_RECORD', 'slots of the device contradict each other');
  const highest = current.reduce<SlotBlock | null>(
    (best, slot) => (slot.accepted > (best?.accepted ?? 0) ? slot : best),
    null,
  );
  const ballotMax = Math.max(0, ...current.map((slot) => slot.ballot));
  return { revision, standing, past, ballotMax, accepted: highest?.value ?? null };
}

/** No two slots ever have a ballot in common, nor does one slot have the same ballot twice. */
function ballotAbove(highest: number, self: number, slotCount: number): number {
  return (Math.floor(highest / slotCount) + 1) * slotCount + self + 1;
}

/** The ballot that proposed what was decided for `revision`; `null` if that is not known. */
function ballotOf({ revision, standing, past }: View, wanted: number): number | null {
  if (wanted >= revision) return null;
  if (wanted === revision - 1) return standing?.ballot ?? null;
  return past[revision - 2 - wanted] ?? null;
}
