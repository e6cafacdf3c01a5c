/**
 * A seeded world around the real core: two hosts, an arbiter, and a network that delays, loses,
 * doubles and corrupts; hosts crash, freeze and come back. Time is virtual.
 */
import type { ArbiterReply, Core, CoreConfig, Effect, Event } from '../../src/core/events.js';
import { createPrimary, createSecondary } from '../../src/core/member.js';
import type { PeerMessage } from '../../src/core/messages.js';
import type { HostNote, Proposal, VmRecord } from '../../src/core/record.js';
import { Oracle } from './oracle.js';
import { Prng } from './prng.js';

export const DETECT_MS = 100;

export interface CoreFactory {
  createPrimary: typeof createPrimary;
  createSecondary: typeof createSecondary;
}

interface Epoch {
  readonly state: readonly number[];
  readonly partCount: number;
}

interface Link {
  readonly id: number;
  readonly ends: [Member, Member];
  up: boolean;
}

/** One VM process. */
export class Member {
  readonly core: Core;
  readonly host: string;
  readonly incarnation: string;
  alive = true;
  frozenUntilMs = 0;
  wakeAtMs = 0;
  /** Outputs made so far: the VM's whole state. */
  state: number[] = [];
  running = false;
  gateOpen = false;
  releasedCount = 0;
  readonly cuts = new Map<number, Epoch>();
  image: readonly number[] = [];
  staged: { epoch: number; bad: boolean; state: readonly number[] } | null = null;
  sweep = 0;
  /** A cold boot, reported as loss of memory, begins a new history. */
  life = 0;

  constructor(core: Core, host: string, incarnation: string) {
    this.core = core;
    this.host = host;
    this.incarnation = incarnation;
  }
}

interface Task {
  readonly atMs: number;
  readonly order: number;
  run(): void;
}

export class World {
  readonly oracle = new Oracle();
  readonly prng: Prng;
  nowMs = 0;
  faults = true;
  takeovers = 0;
  members: Member[] = [];
  /** What reaches nothing: `a`, `b` or `arbiter`, one way each, as "from>to". */
  readonly cut = new Set<string>();
  private readonly make: CoreFactory;
  private readonly tasks: Task[] = [];
  private readonly links = new Map<number, Link>();
  private readonly notes = new Map<string, HostNote>();
  private record: VmRecord | null = null;
  private nextId = 1;
  private readonly hostDownUntilMs = new Map<string, number>();

  constructor(seed: number, make: CoreFactory = { createPrimary, createSecondary }) {
    this.prng = new Prng(seed);
    this.make = make;
  }

  begin(): void {
    const member = this.spawn('a', 'create');
    this.dispatch(member, { type: 'tick' });
    this.every(4, () => this.pace());
  }

  runUntil(endMs: number, stop: () => boolean = () => false): boolean {
    while (this.nowMs < endMs) {
      const task = this.takeNext();
      if (!task) break;
      if (task.atMs > endMs) {
        this.tasks.push(task);
        break;
      }
      this.nowMs = task.atMs;
      task.run();
      if (stop()) return true;
    }
    return false;
  }

  at(delayMs: number, run: () => void): void {
    this.tasks.push({ atMs: this.nowMs + delayMs, order: this.nextId++, run });
  }

  every(ms: number, run: () => void): void {
    this.at(ms, () => {
      run();
      this.every(ms, run);
    });
  }

  owner(): Member | undefined {
    return this.members.find((m) => m.alive && m.core.status().state === 'protected');
  }

  crash(member: Member): void {
    if (!member.alive) return;
    member.alive = false;
    for (const link of this.links.values()) if (link.ends.includes(member)) this.drop(link);
    this.at(40, () => this.hostUp(member.host) && this.recover(member.host));
  }

  crashHost(host: string, downMs: number): void {
    for (const member of this.members) if (member.host === host) this.crash(member);
    this.hostDownUntilMs.set(host, this.nowMs + downMs);
    // The daemon comes back and looks at the record, as an owner whose VM process died.
    this.at(downMs + 1, () => this.recover(host));
  }

  private recover(host: string): void {
    // A daemon knows its living children: only an owner that is really gone is booted again.
    const primary = (m: Member): boolean =>
      m.core.status().role === 'primary' || m.incarnation === this.record?.ownerIncarnation;
    if (this.members.some((m) => m.alive && m.host === host && primary(m))) return;
    if (this.record?.owner !== host) return;
    this.dispatch(this.spawn(host, 'cold-boot'), { type: 'tick' });
  }

  private takeNext(): Task | undefined {
    let best = 0;
    for (let i = 1; i < this.tasks.length; i += 1) {
      const [one, other] = [this.tasks[i], this.tasks[best]];
      if (one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order)) best = i;
    }
    return this.tasks.splice(best, 1)[0];
  }

  private spawn(host: string, start: 'create' | 'cold-boot' | 'standby'): Member {
    const incarnation = `${host}${this.nextId++}`;
    const config: CoreConfig = {
      ...{ vm: 'vm', vmUuid: 'u', host, address: host, incarnation, detectMs: DETECT_MS },
      ...{ ackMsMax: 3 * DETECT_MS, redialMs: 50, arbiterRetryMs: 25, unackedEpochsMax: 2 },
      onPeerLoss: 'solo',
    };
    const note = this.notes.get(host) ?? null;
    const peer = host === 'a' ? 'b' : 'a';
    const core =
      start === 'standby'
        ? this.make.createSecondary(config, note)
        : this.make.createPrimary(config, note, { start, peer });
    const member = new Member(core, host, incarnation);
    this.members.push(member);
    this.members = this.members.filter((m) => m.alive);
    return member;
  }

  private pace(): void {
    for (const member of this.members) {
      if (!member.alive || this.nowMs < member.frozenUntilMs) continue;
      if (member.running) this.output(member);
      if (member.core.status().role === 'primary') this.dispatch(member, { type: 'epoch-due' });
    }
  }

  private output(member: Member): void {
    member.state.push(this.prng.next());
    if (member.gateOpen) this.release(member, member.state.length);
  }

  private release(member: Member, count: number): void {
    for (; member.releasedCount < count; member.releasedCount += 1)
      this.oracle.released(member.life, member.releasedCount, member.state[member.releasedCount]);
  }

  dispatch(member: Member, event: Event): void {
    if (!member.alive) return;
    if (this.nowMs < member.frozenUntilMs)
      return this.at(member.frozenUntilMs - this.nowMs + 1, () => this.dispatch(member, event));
    for (const effect of member.core.step(event, this.nowMs)) this.perform(member, effect, event);
  }

  private later(member: Member, delayMs: number, event: Event): void {
    this.at(delayMs, () => this.dispatch(member, event));
  }

  private perform(member: Member, effect: Effect, cause: Event): void {
    switch (effect.type) {
      case 'wake-at':
        return this.wake(member, effect.atMs);
      case 'boot':
        if (effect.memoryLost) member.life = this.nextId++;
        member.state = [];
        member.releasedCount = 0;
        return this.later(member, 5, { type: 'machine-ready' });
      case 'run':
        member.running = true;
        return;
      case 'pause':
      case 'kill-machine':
        member.running = false;
        return;
      case 'gate-close':
        member.gateOpen = false;
        return;
      case 'gate-open':
        member.gateOpen = true;
        return this.release(member, member.state.length);
      case 'gate-release':
        return this.release(member, member.cuts.get(effect.epoch)?.state.length ?? 0);
      case 'capture':
        return this.capture(member, effect);
      case 'resend':
        return this.sendEpoch(member, effect.session, effect.epoch, member.core.status());
      case 'dial':
        return this.dial(member, effect.peer);
      case 'hang-up':
        return this.hangUp(effect.session);
      case 'send':
        return this.send(member, effect.session, effect.message);
      case 'arbiter-read':
      case 'arbiter-cas':
        return this.askArbiter(member, effect);
      case 'save-note':
        this.later(member, 1 + this.prng.below(5), { type: 'note-saved', request: effect.request });
        this.at(0, () => this.notes.set(member.host, effect.note));
        return;
      case 'exit':
        return this.crash(member);
      case 'promote':
        this.takeovers += 1;
        member.state = [...member.image];
        member.releasedCount = 0;
        return this.later(member, 2, { type: 'machine-ready' });
      case 'probe-peer': {
        const reach = !this.cut.has(`${member.host}>${effect.host}`) && this.hostUp(effect.host);
        const alive = this.members.some((m) => m.alive && m.incarnation === effect.incarnation);
        const answer = reach ? alive : 'unknown';
        return this.later(member, 3, { type: 'peer-image', alive: answer });
      }
      default:
        return this.performStandby(member, effect, cause);
    }
  }

  /** Only the newest wish to be woken counts. */
  private wake(member: Member, atMs: number): void {
    member.wakeAtMs = atMs;
    this.at(Math.max(1, atMs - this.nowMs), () => {
      if (member.wakeAtMs === atMs) this.dispatch(member, { type: 'tick' });
    });
  }

  private performStandby(member: Member, effect: Effect, cause: Event): void {
    if (effect.type === 'stage' && cause.type === 'message') {
      const payload = this.payloads.get(cause.message);
      if (effect.part === 0)
        member.staged = { epoch: effect.epoch, bad: false, state: payload?.state ?? [] };
      if (member.staged && payload?.bad) {
        const state = member.staged.state.map((value) => value + 1);
        member.staged = { ...member.staged, bad: true, state };
      }
    } else if (effect.type === 'verify') {
      const ok = member.staged?.epoch === effect.epoch && !member.staged.bad;
      this.later(member, this.prng.below(2), { type: 'verified', epoch: effect.epoch, ok });
    } else if (effect.type === 'commit') member.image = member.staged?.state ?? [];
    else if (effect.type === 'drop-staged') member.staged = null;
  }

  /** Payloads travel beside their messages. */
  private readonly payloads = new WeakMap<
    PeerMessage,
    { state: readonly number[]; bad: boolean }
  >();

  private capture(member: Member, effect: Extract<Effect, { type: 'capture' }>): void {
    const { epoch, generation, session, base, final, hold } = effect;
    if (base) member.sweep = 0;
    this.at(1, () => {
      if (!member.alive) return;
      member.sweep = final ? 3 : Math.min(2, member.sweep + 1);
      const complete = final || member.sweep >= 3;
      member.cuts.set(epoch, { state: [...member.state], partCount: 1 + this.prng.below(3) });
      if (hold) member.running = false;
      this.heads.set(`${member.incarnation}/${epoch}`, { generation, base, complete });
      const ready = member.sweep >= 2;
      this.dispatch(member, { type: 'captured', epoch, complete, ready });
      this.sendEpoch(member, session, epoch);
    });
  }

  private readonly heads = new Map<
    string,
    { generation: number; base: boolean; complete: boolean }
  >();

  private sendEpoch(member: Member, session: number, epoch: number, _status?: unknown): void {
    const cut = member.cuts.get(epoch);
    const head = this.heads.get(`${member.incarnation}/${epoch}`);
    if (!cut || !head) return;
    for (let part = 0; part < cut.partCount; part += 1) {
      const { partCount } = cut;
      const releasedThrough = 0;
      const message = { type: 'epoch-part', ...head, epoch, part, partCount, releasedThrough };
      this.send(member, session, message as PeerMessage, cut.state);
    }
  }

  private hostUp(host: string): boolean {
    return this.nowMs >= (this.hostDownUntilMs.get(host) ?? 0);
  }

  private dial(from: Member, to: string): void {
    this.at(2 + this.prng.below(5), () => {
      if (!from.alive) return;
      const blocked = this.cut.has(`${from.host}>${to}`) || this.cut.has(`${to}>${from.host}`);
      if (blocked || !this.hostUp(to)) return this.dispatch(from, { type: 'dial-failed' });
      const standby = this.spawn(to, 'standby');
      standby.life = from.life;
      const id = this.nextId++;
      this.links.set(id, { id, ends: [from, standby], up: true });
      this.dispatch(standby, { type: 'session-up', session: id });
      this.dispatch(from, { type: 'session-up', session: id });
    });
  }

  private drop(link: Link): void {
    if (!link.up) return;
    link.up = false;
    this.links.delete(link.id);
    for (const end of link.ends)
      this.later(end, 1 + this.prng.below(10), { type: 'session-down', session: link.id });
  }

  private hangUp(session: number): void {
    const link = this.links.get(session);
    if (link) this.drop(link);
  }

  private send(
    from: Member,
    session: number,
    message: PeerMessage,
    state: readonly number[] = [],
  ): void {
    const link = this.links.get(session);
    if (!link) return;
    const to = link.ends[0] === from ? link.ends[1] : link.ends[0];
    const lost = this.faults && this.prng.chance(1);
    const copies = this.faults && this.prng.chance(1) ? 2 : 1;
    if (lost) return;
    for (let copy = 0; copy < copies; copy += 1) {
      const sent = { ...message };
      this.payloads.set(sent, { state, bad: this.faults && this.prng.chance(0.5) });
      const slow = this.faults && this.prng.chance(2) ? this.prng.below(60) : 0;
      this.at(1 + slow, () => {
        if (this.cut.has(`${from.host}>${to.host}`)) return;
        this.dispatch(to, { type: 'message', session, message: sent });
      });
    }
  }

  private askArbiter(
    member: Member,
    effect: Extract<Effect, { type: 'arbiter-read' | 'arbiter-cas' }>,
  ): void {
    const { request } = effect;
    const there = 1 + (this.faults && this.prng.chance(15) ? this.prng.below(120) : 1);
    const lostBack = this.faults && this.prng.chance(10);
    let answered = false;
    const answer = (reply: ArbiterReply): void => {
      if (answered) return;
      answered = true;
      this.dispatch(member, { type: 'arbiter-reply', request, reply });
    };
    this.at(60, () => answer({ outcome: 'unknown' }));
    this.at(there, () => {
      if (this.cut.has(`${member.host}>arbiter`)) return;
      const reply = effect.type === 'arbiter-read' ? this.read() : this.swap(effect);
      if (!lostBack && !this.cut.has(`arbiter>${member.host}`)) this.at(1, () => answer(reply));
    });
  }

  private read(): ArbiterReply {
    return { outcome: 'ok', record: this.record };
  }

  private swap(effect: { expectRevision: number; proposal: Proposal }): ArbiterReply {
    const revision = this.record?.revision ?? 0;
    if (revision !== effect.expectRevision) return { outcome: 'conflict', record: this.record };
    this.record = { ...effect.proposal, revision: revision + 1 };
    return { outcome: 'ok', record: this.record };
  }
}
