/**
 * A shared device of a simulated world, byte by byte: copies that are being written look torn, and
 * stay so when their writer dies. The real steps of `disk-paxos.ts` work on it.
 */
import type { ArbiterReply } from '../../src/core/events.js';
import type { VmRecord } from '../../src/core/record.js';
import { changeByBallots, readByBallots } from '../../src/pool/disk-paxos.js';
import type { DiskResult, DiskStep } from '../../src/pool/disk-paxos.js';
import {
  chooseCopy,
  COPY_BYTES,
  decodeCopy,
  encodeCopy,
  type CopyRead,
  type SlotBlock,
  type SlotRead,
} from '../../src/pool/slot.js';
import type { ArbiterEffect, SimArbiter } from './arbiter.js';
import type { Member } from './member.js';
import type { World } from './world.js';

const HOSTS = ['a', 'b'];
const LANES = 3;
const SLOTS = HOSTS.length * LANES;
const SECTOR_BYTES = 512;
const LANE_REST_MS = 3;

/** The code under test: as it is, or with a bug planted. */
export interface DeviceCode {
  readonly changeByBallots: typeof changeByBallots;
  readonly readByBallots: typeof readByBallots;
  readonly chooseCopy: typeof chooseCopy;
  readonly decodeCopy: typeof decodeCopy;
}

const REAL: DeviceCode = { changeByBallots, readByBallots, chooseCopy, decodeCopy };

type Told = (reply: ArbiterReply) => void;
type Write = Extract<DiskStep, { do: 'write' }>;

export class SimDevice {
  private readonly world: World;
  private readonly arbiter: SimArbiter;
  private readonly era: number;
  private readonly code: DeviceCode;
  private readonly slots: Buffer[][] = Array.from({ length: SLOTS }, () => [
    Buffer.alloc(COPY_BYTES),
    Buffer.alloc(COPY_BYTES),
  ]);
  private readonly decoded = new WeakMap<Buffer, CopyRead>();
  private readonly heldLanes = new Set<number>();
  private decidedRecords: VmRecord[] = [];

  constructor(world: World, code: DeviceCode = REAL) {
    this.world = world;
    this.arbiter = world.arbiter;
    this.era = world.arbiter.era;
    this.code = code;
  }

  /** A process takes a lane of its host, and the steps, until it is told or dies. */
  carryOut(member: Member, effect: ArbiterEffect, told: Told): void {
    const { world } = this;
    if (!member.alive) return;
    const first = HOSTS.indexOf(member.host) * LANES;
    const self = [first, first + 1, first + 2].find((slot) => !this.heldLanes.has(slot));
    if (self === undefined)
      return world.schedule.at(LANE_REST_MS, () => this.carryOut(member, effect, told));
    this.heldLanes.add(self);
    const operation = new Operation(member, self, this.stepsOf(self, effect), told);
    operation.newestBefore = this.arbiter.record?.revision ?? 0;
    const gone = (): void => this.release(operation);
    world.whenAwake(member, () => this.advance(operation, []), gone);
  }

  private release({ self }: Operation): void {
    this.heldLanes.delete(self);
  }

  private stepsOf(self: number, effect: ArbiterEffect): Operation['steps'] {
    const party = { self, slotCount: SLOTS, places: [0] };
    const { changeByBallots: change, readByBallots: read } = this.code;
    if (effect.type === 'arbiter-read') return read(party, 'u');
    return change(party, 'u', effect.expectRevision, effect.proposal);
  }

  private advance(operation: Operation, result: DiskResult): void {
    const next = operation.steps.next(result);
    if (next.done === true) {
      this.release(operation);
      this.judge(operation, next.value);
      return operation.told(next.value);
    }
    this.world.sleepPerhaps(operation.member, next.value);
    this.later(operation, () => this.take(operation, next.value));
  }

  /** A process may freeze or die between any two steps, and the device may be out of reach. */
  private later(operation: Operation, work: () => void): void {
    const { world } = this;
    const { member } = operation;
    const gone = (): void => this.release(operation);
    const goOn = (): void => (world.reachesArbiter(member) ? work() : gone());
    world.requestsOut += 1;
    world.schedule.at(world.storageMs(), () => {
      world.requestsOut -= 1;
      world.whenAwake(member, goOn, gone);
    });
  }

  private take(operation: Operation, step: DiskStep): void {
    if (step.do === 'write') return this.write(operation, step);
    if (step.do === 'read') return this.advance(operation, this.read(operation));
    this.world.schedule.at(this.world.prng.below(4 * step.round), () =>
      this.later(operation, () => this.advance(operation, [])),
    );
  }

  private read(operation: Operation): DiskResult {
    const slots = this.slots.map((_, slot) => this.slotAt(slot));
    operation.own = slots[operation.self] ?? operation.own;
    if (slots.includes(null)) this.world.oracle.violations.push('a slot is lost in both copies');
    return slots.map((slot) => slot?.block ?? null);
  }

  private slotAt(slot: number): SlotRead | null {
    const copies = this.slots[slot].map((bytes) => {
      const known = this.decoded.get(bytes) ?? this.code.decodeCopy(bytes, String(slot));
      this.decoded.set(bytes, known);
      return known;
    });
    return this.code.chooseCopy(copies[0], copies[1]);
  }

  private write(operation: Operation, { block }: Write): void {
    const { self, own } = operation;
    const sequence = own.sequence + 1;
    const bytes = encodeCopy({ sequence, block }, String(self));
    const first = own.replaceFirst;
    this.writeCopy(operation, first, bytes, () => {
      this.decide(self, block);
      this.later(operation, () =>
        this.writeCopy(operation, 1 - first, bytes, () => {
          operation.own = { ...own, sequence, replaceFirst: 0 };
          this.later(operation, () => this.advance(operation, []));
        }),
      );
    });
  }

  /** What a writer that dies in between leaves behind, nobody can say. */
  private writeCopy(operation: Operation, which: number, bytes: Buffer, done: () => void): void {
    const { prng, schedule } = this.world;
    const slot = this.slots[operation.self];
    const before = slot[which];
    slot[which] = torn(before, bytes, 1 + prng.below(COPY_BYTES / SECTOR_BYTES - 1));
    schedule.at(1, () => {
      const { alive } = operation.member;
      const [ended, never] = [alive || prng.chance(30), prng.chance(30)];
      if (ended) slot[which] = bytes;
      else if (never) slot[which] = before;
      if (alive) done();
      else this.release(operation);
    });
  }

  /**
   * From here on nobody can decide otherwise, if no higher ballot has begun. Two decisions of one
   * revision are what must never be.
   */
  private decide(self: number, { revision, ballot, accepted, value }: SlotBlock): void {
    if (accepted === 0 || accepted !== ballot || !value) return;
    const others = this.slots.map((_, slot) => (slot === self ? null : this.slotAt(slot)?.block));
    const isAhead = (other: SlotBlock | null | undefined): boolean =>
      !!other &&
      (other.revision > revision || (other.revision === revision && other.ballot > ballot));
    if (others.some(isAhead)) return;
    const known = this.decidedRecords[revision];
    if (known && JSON.stringify(known) !== JSON.stringify(value.record))
      this.world.oracle.violations.push(`revision ${revision} was decided twice`);
    if (known) return;
    this.decidedRecords[revision] = value.record;
    if (this.era === this.arbiter.era) this.arbiter.decided(value.record);
  }

  /** No answer is older than what stood when it was asked for, and none was never decided. */
  private judge(operation: Operation, reply: ArbiterReply): void {
    if (reply.outcome === 'unknown' || this.era !== this.arbiter.era) return;
    const { violations } = this.world.oracle;
    const revision = reply.record?.revision ?? 0;
    if (revision < operation.newestBefore && reply.outcome === 'ok')
      violations.push(`the device told revision ${revision} after ${operation.newestBefore}`);
    const decided = this.decidedRecords[revision];
    if (reply.record && JSON.stringify(decided) !== JSON.stringify(reply.record))
      violations.push(`the device told a revision ${revision} that was not decided`);
  }
}

class Operation {
  readonly member: Member;
  readonly self: number;
  readonly steps: Generator<DiskStep, ArbiterReply, DiskResult>;
  readonly told: Told;
  own: SlotRead = { block: null, sequence: 0, replaceFirst: 0 };
  newestBefore = 0;

  constructor(member: Member, self: number, steps: Operation['steps'], told: Told) {
    this.member = member;
    this.self = self;
    this.steps = steps;
    this.told = told;
  }
}

/** The first sectors are new, the others are not. */
function torn(before: Buffer, after: Buffer, sectors: number): Buffer {
  const mixed = Buffer.from(before);
  after.copy(mixed, 0, 0, sectors * SECTOR_BYTES);
  return mixed;
}
