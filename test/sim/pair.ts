/**
 * Two hosts of a simulated world without an arbiter: the copy of the record on each host's disk,
 * and what the daemons ask each other. The real decisions of `pair-record.ts` are made on them.
 */
import type { ArbiterReply } from '../../src/core/events.js';
import * as pairRecord from '../../src/core/pair-record.js';
import type {
  OwnerState,
  PairAnswer,
  PairRequest,
  RecordCopy,
} from '../../src/core/pair-record.js';
import type { VmRecord } from '../../src/core/record.js';
import type { ArbiterEffect } from './arbiter.js';
import type { Member } from './member.js';
import type { World } from './world.js';

const ANSWER_MS_MAX = 30;

export type PairCode = typeof pairRecord;

type Told = (reply: ArbiterReply) => void;
/** What becomes of a copy, and what is to be said once it is on the disk. */
type Decision<T> = (mine: RecordCopy | null) => { copy: RecordCopy | null; say: T };

export class SimPair {
  private readonly world: World;
  private readonly code: PairCode;
  private copies = new Map<string, RecordCopy>();
  /** Work of a host's daemon that waits for its turn, by host. */
  private readonly waiting = new Map<string, (() => void)[]>();

  constructor(world: World, code: PairCode = pairRecord) {
    this.world = world;
    this.code = code;
  }

  copyOf(host: string): RecordCopy | null {
    return this.copies.get(host) ?? null;
  }

  /** Both hosts believe to hold it: a person forced one while the other could not be asked. */
  get isSplit(): boolean {
    return ['a', 'b'].every((host) => this.copyOf(host)?.hold === 'holds');
  }

  /** The record as somebody would say who sees both disks. */
  get record(): VmRecord | null {
    const rank = { holds: 2, gave: 1, seen: 0 };
    const [best] = [...this.copies.values()].sort((one, other) => {
      const held = rank[other.hold] - rank[one.hold];
      if (held !== 0) return held;
      return pairRecord.outranks(one.record, other.record) ? -1 : 1;
    });
    return best?.record ?? null;
  }

  forget(): void {
    this.copies = new Map();
  }

  /** What was under way is lost with the power. */
  crash(host: string): void {
    this.waiting.delete(host);
  }

  carryOut(member: Member, effect: ArbiterEffect, answer: Told): void {
    const { host } = member;
    if (effect.type === 'arbiter-read') return this.read(host, answer);
    const { expectRevision, proposal } = effect;
    const mine = this.copyOf(host);
    const fresh = mine === null && expectRevision === 0;
    if (fresh || mine?.hold === 'holds')
      return this.inTurn<ArbiterReply>(
        host,
        (now) => {
          const { copy, reply } = this.code.changedHere(now, expectRevision, proposal);
          return { copy, say: reply };
        },
        answer,
      );
    const change = { expectRevision, proposal };
    this.ask(host, { host, copy: mine, change }, (theirs) => {
      const decide = (now: RecordCopy | null): pairRecord.Change =>
        theirs
          ? this.code.taken(this.code.met(now, theirs.copy, host), theirs.reply, host)
          : this.code.forcedHere(now, expectRevision, proposal);
      this.inTurn<ArbiterReply>(
        host,
        (now) => {
          const { copy, reply } = decide(now);
          return { copy, say: reply };
        },
        answer,
      );
    });
  }

  /** A daemon that knows of the VM and has no process of it. */
  look(host: string): void {
    if (this.copyOf(host)) this.read(host, () => {});
  }

  private read(host: string, answer: Told): void {
    this.ask(host, { host, copy: this.copyOf(host), change: null }, (theirs) =>
      this.inTurn<ArbiterReply>(
        host,
        (now) => {
          const copy = this.code.met(now, theirs?.copy ?? null, host);
          return { copy, say: this.code.told(copy, theirs) };
        },
        answer,
      ),
    );
  }

  /** The other daemon is asked; requests and answers are delayed, lost and doubled. */
  private ask(
    from: string,
    request: PairRequest,
    heard: (answer: PairAnswer | null) => void,
  ): void {
    const { world } = this;
    const to = from === 'a' ? 'b' : 'a';
    const { boots } = world.host(from);
    let done = false;
    const settle = (answer: PairAnswer | null): void => {
      if (done || world.host(from).boots !== boots) return;
      done = true;
      heard(answer);
    };
    world.schedule.at(ANSWER_MS_MAX, () => settle(null));
    const copies = world.prng.chance(world.weather.double) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1)
      this.travel(from, to, () =>
        this.serve(to, request, (answer) => this.travel(to, from, () => settle(answer))),
      );
  }

  private travel(from: string, to: string, arrive: () => void): void {
    const { world } = this;
    if (world.prng.chance(world.weather.loss)) return;
    const slowMs = world.prng.chance(world.weather.slow) ? world.prng.below(200) : 0;
    world.schedule.at(1 + slowMs, () => {
      const passes = !world.cut.has(`${from}>${to}`) && world.host(to).up;
      if (passes) arrive();
    });
  }

  private serve(host: string, request: PairRequest, answer: (answer: PairAnswer) => void): void {
    this.inTurn<PairAnswer>(
      host,
      (mine) => {
        const known = this.code.met(mine, request.copy, host);
        const owner = this.ownerOn(host, known);
        const { copy, reply } = this.code.handedOver(known, request, owner);
        return { copy, say: { copy, reply } };
      },
      answer,
    );
  }

  private ownerOn(host: string, copy: RecordCopy | null): OwnerState {
    const { members } = this.world;
    const owner = members.find((m) => m.incarnation === copy?.record.ownerIncarnation);
    if (!owner || owner.host !== host) return 'gone';
    return owner.core.status().yields === true ? 'yields' : 'serves';
  }

  /** One after the other on each host; on its disk before anything is said. */
  private inTurn<T>(host: string, decide: Decision<T>, say: (said: T) => void): void {
    const { boots } = this.world.host(host);
    const queue = this.waiting.get(host) ?? [];
    const work = (): void => {
      const { copy, say: said } = decide(this.copyOf(host));
      const done = (): void => {
        if (this.world.host(host).boots !== boots) return;
        say(said);
        queue.shift();
        queue[0]?.();
      };
      if (copy === null || copy === this.copyOf(host)) return this.world.schedule.at(0, done);
      this.store(host, boots, copy, done);
    };
    this.waiting.set(host, queue);
    if (queue.push(work) === 1) work();
  }

  private store(host: string, boots: number, copy: RecordCopy, done: () => void): void {
    const { world } = this;
    world.schedule.at(1 + world.prng.below(3), () => {
      // The power may fail before or after the disk has it.
      const failed = world.host(host).boots !== boots;
      if (failed && world.prng.chance(50)) return;
      const before = this.copyOf(host);
      if (failed && before && !pairRecord.outranks(copy.record, before.record)) return;
      this.copies.set(host, copy);
      world.arbiter.stands(this.record);
      done();
    });
  }
}
