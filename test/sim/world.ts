/**
 * A seeded world around the real core: two hosts, an arbiter, and a network that delays, loses,
 * doubles, reorders and corrupts. Time is virtual; every chance comes from the seed.
 */
import type { ArbiterReply, CoreConfig, Effect, Event } from '../../src/core/events.js';
import { createPrimary, createSecondary } from '../../src/core/member.js';
import type { PeerMessage } from '../../src/core/messages.js';
import type { VmRecord } from '../../src/core/record.js';
import type { DiskStep } from '../../src/pool/disk-paxos.js';
import { changeByClaim, type ClaimResult, type ClaimStep } from '../../src/pool/file-claims.js';
import { SimArbiter, type ArbiterEffect } from './arbiter.js';
import { SimDevice, type DeviceCode } from './device.js';
import { SimPair, type PairCode } from './pair.js';
import { SimHost } from './host.js';
import { Member, type Payload } from './member.js';
import { Oracle } from './oracle.js';
import { Prng } from './prng.js';
import { Schedule } from './schedule.js';

export const DETECT_MS = 100;
const ARBITER_DEADLINE_MS = 60;
const RECOVER_EVERY_MS = 40;
/** Few, so that places are freed while writers sleep. */
const CLAIMS_KEPT = 1;
/** Outputs that a gate holds at most: then the VM stands still. */
const GATE_MAX = 120;

export interface CoreFactory {
  createPrimary: typeof createPrimary;
  createSecondary: typeof createSecondary;
}

/** How bad the network is, in percent of messages; `reply` of what the arbiter answers. */
export interface Weather {
  readonly loss: number;
  readonly double: number;
  readonly slow: number;
  readonly corrupt: number;
  readonly arbiterSlow: number;
  readonly replyLost: number;
}

const FAIR: Weather = { loss: 0, double: 0, slow: 0, corrupt: 0, arbiterSlow: 0, replyLost: 0 };

interface Link {
  readonly id: number;
  readonly ends: readonly [Member, Member];
}

export type ArbiterKind = 'witness' | 'file' | 'device' | 'none';

export interface WorldOptions {
  /** `file`: records are changed by claims on shared storage; `device`: by ballots on a device. */
  readonly arbiter?: ArbiterKind;
  readonly claims?: typeof changeByClaim;
  readonly device?: DeviceCode;
  readonly pair?: PairCode;
  readonly make?: CoreFactory;
  readonly onPeerLoss?: 'solo' | 'stall';
  /** Told everything that happens, for replays. */
  readonly trace?: (line: string) => void;
}

export class World {
  readonly oracle = new Oracle();
  readonly schedule = new Schedule();
  readonly arbiter = new SimArbiter();
  readonly hosts: ReadonlyMap<string, SimHost>;
  readonly prng: Prng;
  /** What does not pass, one way each, as "from>to". */
  readonly cut = new Set<string>();
  weather: Weather = FAIR;
  takeovers = 0;
  faults = 0;
  /** Without an arbiter: the last generation forced while the other host held the record. */
  forcedAt = 0;
  /** Compare-and-swaps on their way to the arbiter. */
  requestsOut = 0;
  members: Member[] = [];
  /** The next host that is about to write to shared storage freezes for so long. */
  sleepMsBeforeClaim = 0;
  /** Processes that the operator gave the last word. */
  readonly vouched = new Set<string>();
  private readonly options: WorldOptions;
  /** The record where there is no arbiter. */
  readonly pair: SimPair;
  private device: { readonly era: number; readonly device: SimDevice } | null = null;
  private readonly links = new Map<number, Link>();
  private readonly payloads = new WeakMap<PeerMessage, Payload>();
  private nextId = 1;

  constructor(seed: number, options: WorldOptions = {}) {
    this.prng = new Prng(seed);
    this.options = options;
    this.pair = new SimPair(this, options.pair);
    this.hosts = new Map(['a', 'b'].map((name) => [name, new SimHost(name, this.schedule)]));
    this.schedule.every(4, () => this.pace());
    this.schedule.every(RECOVER_EVERY_MS, () => this.recover());
  }

  /** Marked as an arbiter: what lacks the mark is refused, not believed to be empty. */
  get isMarked(): boolean {
    return this.kind !== 'witness';
  }

  get kind(): ArbiterKind {
    return this.options.arbiter ?? 'witness';
  }

  get stalls(): boolean {
    return this.options.onPeerLoss === 'stall';
  }

  get nowMs(): number {
    return this.schedule.nowMs;
  }

  calm(): void {
    this.weather = FAIR;
    this.cut.clear();
    this.arbiter.up = true;
    for (const host of this.hosts.values()) {
      host.setRate(1);
      host.noteMsMax = 4;
      host.acksStuck = false;
    }
    for (const member of this.members) member.frozenUntilMs = 0;
  }

  host(name: string): SimHost {
    const host = this.hosts.get(name);
    if (!host) throw new Error(`no host ${name}`);
    return host;
  }

  /** The living process that owns the VM by the record. */
  owner(): Member | undefined {
    const incarnation = this.arbiter.record?.ownerIncarnation;
    return this.members.find((m) => m.alive && m.incarnation === incarnation && m.isPrimary);
  }

  // --- Processes ------------------------------------------------------------------------------

  /** A person starts the VM on this host: a new life. */
  create(host: string): void {
    this.dispatch(this.spawn(host, 'create', this.nextId++), { type: 'tick' });
  }

  /** An operator looks at the record, and gives the word for what it shows. */
  forceBoot(host: string): void {
    const forcedOver = this.arbiter.record?.generation ?? 0;
    this.dispatch(this.spawn(host, 'cold-boot', 0, forcedOver), { type: 'tick' });
  }

  crash(member: Member): void {
    if (!member.alive) return;
    this.options.trace?.(`${this.nowMs.toFixed(1)} ${member.incarnation} died`);
    member.alive = false;
    this.members = this.members.filter((other) => other.alive);
    for (const link of this.links.values()) if (link.ends.includes(member)) this.drop(link);
  }

  crashHost(name: string, downMs: number): void {
    const host = this.host(name);
    host.crash(downMs);
    this.pair.crash(name);
    // A host without power sends no FIN: often the peer hears nothing at all.
    if (this.prng.chance(50))
      for (const link of this.links.values()) if (this.touches(link, name)) this.silence(link);
    for (const member of this.members.filter((m) => m.host === name)) this.crash(member);
  }

  private touches(link: Link, host: string): boolean {
    return link.ends.some((end) => end.host === host);
  }

  private silence(link: Link): void {
    this.links.delete(link.id);
  }

  /** Each daemon looks whether the record gives it a VM that no living process of its own has. */
  private recover(): void {
    if (this.kind !== 'none') return this.recoverBy(this.arbiter.record);
    for (const [name, host] of this.hosts) {
      if (host.up && !this.members.some((m) => m.host === name)) this.pair.look(name);
      const copy = this.pair.copyOf(name);
      if (copy?.hold === 'holds' && copy.record.owner === name) this.recoverBy(copy.record);
    }
  }

  private recoverBy(record: VmRecord | null): void {
    if (!record || record.mode === 'stopped') return;
    const { owner, ownerIncarnation } = record;
    const host = this.host(owner);
    const reach = host.up && this.arbiter.up && !this.blocked(owner, 'arbiter');
    if (!reach || this.blocked('arbiter', owner)) return;
    const served = (m: Member): boolean =>
      m.host === owner && (m.isPrimary || m.incarnation === ownerIncarnation);
    if (this.members.some(served)) return;
    this.dispatch(this.spawn(owner, 'cold-boot', 0), { type: 'tick' });
  }

  private spawn(
    host: string,
    start: 'create' | 'cold-boot' | 'standby',
    life: number,
    forcedOver: number | null = null,
  ): Member {
    const incarnation = `${host}${this.nextId++}`;
    const config: CoreConfig = {
      ...{ vm: 'vm', vmUuid: 'u', host, address: host, incarnation, detectMs: DETECT_MS },
      ...{ ackMsMax: 3 * DETECT_MS, redialMs: 50, arbiterRetryMs: 25, unackedEpochsMax: 2 },
      onPeerLoss: this.options.onPeerLoss ?? 'solo',
      recordAtOwner: this.kind === 'none',
    };
    const note = this.host(host).note();
    const peer = host === 'a' ? 'b' : 'a';
    const { make = { createPrimary, createSecondary } } = this.options;
    const core =
      start === 'standby'
        ? make.createSecondary(config, note)
        : make.createPrimary(config, note, { start, peer, forcedOver });
    const member = new Member(core, host, incarnation, life);
    this.members.push(member);
    return member;
  }

  /** Every few milliseconds the VM makes an output and the pacer asks for an epoch. */
  private pace(): void {
    for (const member of this.members) {
      if (!member.isPrimary || this.nowMs < member.frozenUntilMs) continue;
      if (member.running && !member.gateFull) this.output(member);
      this.dispatch(member, { type: 'epoch-due' });
    }
  }

  private output(member: Member): void {
    member.state = member.state.with(this.prng.next());
    if (member.gateOpen) return this.release(member, member.state.length, false);
    if (member.state.length - member.releasedCount < GATE_MAX) return;
    member.gateFull = true;
    this.dispatch(member, { type: 'gate-full' });
  }

  private release(member: Member, count: number, acked: boolean): void {
    for (; member.releasedCount < count; member.releasedCount += 1) {
      const value = member.state.at(member.releasedCount);
      if (value === undefined) throw new Error('released more than was made');
      this.oracle.released(member.life, member.releasedCount, value, acked);
    }
    if (!member.gateFull) return;
    member.gateFull = false;
    this.dispatch(member, { type: 'gate-drained' });
  }

  /** A frozen process gets its events when it thaws, in order. */
  dispatch(member: Member, event: Event): void {
    if (!member.alive) return;
    const frozenMs = member.frozenUntilMs - this.nowMs;
    if (frozenMs > 0) return this.schedule.at(frozenMs, () => this.dispatch(member, event));
    this.told(member, '<-', event);
    const effects = member.core.step(event, this.host(member.host).localMs);
    for (const effect of effects) this.perform(member, effect, event);
    // What a host tells people must be so: a VM that is said to go on alone is heard.
    if (member.alive && member.core.status().state === 'solo' && !member.gateOpen)
      this.oracle.violations.push(`${member.incarnation} says solo with its gate closed`);
  }

  private told(member: Member, way: string, what: Event | Effect): void {
    const { trace } = this.options;
    if (!trace || what.type === 'tick' || what.type === 'wake-at') return;
    const beat = 'message' in what && what.message.type === 'heartbeat';
    if (beat || what.type === 'epoch-due' || what.type === 'forget') return;
    trace(`${this.nowMs.toFixed(1)} ${member.incarnation} ${way} ${JSON.stringify(what)}`);
  }

  private later(member: Member, delayMs: number, event: Event): void {
    this.schedule.at(delayMs, () => this.dispatch(member, event));
  }

  // --- Effects --------------------------------------------------------------------------------

  private perform(member: Member, effect: Effect, cause: Event): void {
    this.told(member, '->', effect);
    switch (effect.type) {
      case 'wake-at':
        return this.wake(member, effect.atMs);
      case 'send':
        return this.send(member, effect.session, effect.message);
      case 'dial':
        return this.dial(member, effect.peer);
      case 'hang-up':
        return this.hangUp(effect.session);
      case 'resend':
        return this.sendEpoch(member, effect.session, effect.epoch);
      case 'arbiter-read':
      case 'arbiter-cas':
        return this.askArbiter(member, effect);
      case 'save-note':
        return this.saveNote(member, effect);
      case 'probe-image':
        return this.probe(member, effect);
      case 'keep-aside':
      case 'answer':
      case 'forget':
      case 'warn':
        return;
      case 'exit':
        if (effect.state === 'stopped') this.oracle.ended(member.life);
        return this.crash(member);
      default:
        return this.performMachine(member, effect, cause);
    }
  }

  private performMachine(member: Member, effect: Effect, cause: Event): void {
    switch (effect.type) {
      case 'boot':
        if (effect.memoryLost) this.checkNothingLeft(member);
        member.boot(effect.memoryLost ? this.nextId++ : member.life);
        // A side that was forced off is heard until its process looks at the record.
        if (this.forcedAt === 0) this.oracle.begins(member.life);
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
        return this.release(member, member.state.length, false);
      case 'gate-release':
        return this.releaseEpoch(member, effect.epoch);
      case 'capture':
        return this.capture(member, effect);
      case 'promote':
        this.takeovers += 1;
        this.checkTakeover(member, effect.generation);
        member.promote();
        return this.later(member, 2, { type: 'machine-ready' });
      default:
        return this.performStandby(member, effect, cause);
    }
  }

  /** DESIGN rule 7: memory may be given up only if no image that counts is alive. */
  private checkNothingLeft(booted: Member): void {
    const { before } = this.arbiter;
    if (this.pair.isSplit) return;
    if (!before || this.vouched.has(booted.incarnation)) return;
    const left = this.members.find(
      (m) =>
        (m.incarnation === before.ownerIncarnation && m.state.length > 0) ||
        (before.mode === 'paired' && m.incarnation === before.peerIncarnation),
    );
    if (left) this.oracle.violations.push(`a cold boot while ${left.incarnation} had an image`);
  }

  /** Without an arbiter: given by the other host, or forced; and that begins a life of its own. */
  private checkTakeover(member: Member, generation: number): void {
    if (this.kind !== 'none') return;
    const mine = this.pair.copyOf(member.host);
    const theirs = this.pair.copyOf(member.host === 'a' ? 'b' : 'a');
    const forced = mine?.record.forcedAt === generation;
    if (forced && theirs?.hold === 'holds') {
      const life = this.nextId++;
      this.oracle.forks(member.life, life, member.forgottenCount);
      member.life = life;
      this.forcedAt = Math.max(this.forcedAt, generation);
    } else if (mine?.hold !== 'holds' || theirs?.hold === 'holds')
      this.oracle.violations.push(`${member.incarnation} took over what nobody gave away`);
  }

  private performStandby(member: Member, effect: Effect, cause: Event): void {
    if (effect.type === 'stage' && cause.type === 'message') {
      const payload = this.payloads.get(cause.message);
      if (effect.part === 0) member.staged = [];
      if (payload) member.staged.push(payload);
    } else if (effect.type === 'verify') {
      const ok = member.stagedIsGood(effect.epoch);
      this.later(member, this.prng.below(2), { type: 'verified', epoch: effect.epoch, ok });
    } else if (effect.type === 'commit') member.commit(effect.epoch);
    else if (effect.type === 'drop-staged') member.staged = [];
    else if (effect.type === 'output-released') member.outputReleased(effect.epoch);
  }

  /** Only the newest wish to be woken counts. */
  private wake(member: Member, atMs: number): void {
    member.wakeAtMs = atMs;
    this.schedule.at(this.host(member.host).waitMs(atMs), () => {
      if (member.wakeAtMs === atMs) this.dispatch(member, { type: 'tick' });
    });
  }

  private saveNote(member: Member, effect: Extract<Effect, { type: 'save-note' }>): void {
    const host = this.host(member.host);
    const tookMs = this.prng.below(host.noteMsMax);
    const { request, note } = effect;
    const saved = (): void => this.dispatch(member, { type: 'note-saved', request });
    host.save(member.incarnation, note, tookMs, saved);
  }

  private releaseEpoch(member: Member, epoch: number): void {
    member.releasedThrough = epoch;
    const cut = member.cuts.get(epoch);
    if (cut) this.release(member, cut.state.length, true);
  }

  private capture(member: Member, effect: Extract<Effect, { type: 'capture' }>): void {
    const { epoch, generation, session, base, final, hold } = effect;
    const done = (): void => {
      if (!member.alive) return;
      const frozenMs = member.frozenUntilMs - this.nowMs;
      if (frozenMs > 0) return this.schedule.at(frozenMs, done);
      const cut = member.cut(epoch, generation, base, final, 1 + this.prng.below(3));
      if (hold) member.running = false;
      const ready = member.swept >= 2;
      this.dispatch(member, { type: 'captured', epoch, complete: cut.complete, ready });
      this.sendEpoch(member, session, epoch);
    };
    this.schedule.at(1, done);
  }

  // --- The network ----------------------------------------------------------------------------

  private sendEpoch(member: Member, session: number, epoch: number): void {
    const cut = member.cuts.get(epoch);
    if (!cut) return;
    const { generation, base, complete, partCount } = cut;
    const { releasedThrough } = member;
    for (let part = 0; part < partCount; part += 1) {
      const head = { generation, base, complete, epoch, part, partCount, releasedThrough };
      this.send(member, session, { type: 'epoch-part', ...head }, { cut, part, bad: false });
    }
  }

  private blocked(from: string, to: string): boolean {
    return this.cut.has(`${from}>${to}`);
  }

  private dial(from: Member, to: string): void {
    this.schedule.at(2 + this.prng.below(5), () => {
      if (!from.alive) return;
      const blocked = this.blocked(from.host, to) || this.blocked(to, from.host);
      if (blocked || !this.host(to).up) return this.dispatch(from, { type: 'dial-failed' });
      const standby = this.spawn(to, 'standby', from.life);
      const session = this.nextId++;
      this.links.set(session, { id: session, ends: [from, standby] });
      this.dispatch(standby, { type: 'session-up', session });
      this.dispatch(from, { type: 'session-up', session });
    });
  }

  private drop(link: Link): void {
    if (!this.links.delete(link.id)) return;
    for (const end of link.ends)
      this.later(end, 1 + this.prng.below(10), { type: 'session-down', session: link.id });
  }

  private hangUp(session: number): void {
    const link = this.links.get(session);
    if (link) this.drop(link);
  }

  private send(from: Member, session: number, message: PeerMessage, payload?: Payload): void {
    const link = this.links.get(session);
    if (!link) return;
    const { weather, prng } = this;
    const to = link.ends[0] === from ? link.ends[1] : link.ends[0];
    if (message.type === 'ack' && this.host(from.host).acksStuck) return;
    if (prng.chance(weather.loss)) return;
    const copies = prng.chance(weather.double) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const sent = { ...message };
      if (payload) this.payloads.set(sent, { ...payload, bad: prng.chance(weather.corrupt) });
      const slowMs = prng.chance(weather.slow) ? prng.below(60) : 0;
      this.schedule.at(1 + slowMs, () => {
        if (this.blocked(from.host, to.host)) return;
        this.dispatch(to, { type: 'message', session, message: sent });
      });
    }
  }

  private probe(member: Member, effect: Extract<Effect, { type: 'probe-image' }>): void {
    const own = effect.host === member.host;
    const host = (member.host === 'a') === own ? 'a' : 'b';
    const cut = this.blocked(member.host, host) || this.blocked(host, member.host);
    const reach = own || (!cut && this.host(host).up);
    // No name: any process there that holds an image or believes to own the VM.
    const meant = (m: Member): boolean =>
      effect.incarnation === ''
        ? m.host === host && m.core.status().generation > 0
        : m.incarnation === effect.incarnation;
    const alive = this.members.some(meant);
    this.later(member, 3, { type: 'image-alive', alive: reach ? alive : 'unknown' });
  }

  /** Requests are delayed, doubled or lost on the way, and so are the answers. */
  private askArbiter(member: Member, effect: ArbiterEffect): void {
    const { prng, weather } = this;
    const { request } = effect;
    const { era } = this.arbiter;
    let answered = false;
    const answer = (reply: ArbiterReply): void => {
      if (answered) return;
      answered = true;
      this.dispatch(member, { type: 'arbiter-reply', request, reply });
    };
    // Which of a deadline and an answer a process hears first when it thaws, nobody can say.
    this.schedule.at(ARBITER_DEADLINE_MS, () =>
      this.whenAwake(member, () =>
        this.schedule.at(prng.below(8), () => answer({ outcome: 'unknown' })),
      ),
    );
    const copies = prng.chance(weather.double) ? 2 : 1;
    // Its own daemon is always in reach, and takes as long as the disk and the other host do.
    if (this.kind === 'none')
      return this.schedule.at(1, () => {
        if (member.alive && era === this.arbiter.era) this.pair.carryOut(member, effect, answer);
      });
    for (let copy = 0; copy < copies; copy += 1) {
      const thereMs = prng.chance(weather.arbiterSlow) ? 1 + prng.below(200) : 2;
      const lost = prng.chance(weather.replyLost);
      this.requestsOut += 1;
      this.schedule.at(thereMs, () => {
        this.requestsOut -= 1;
        if (!this.reachesArbiter(member)) return;
        const told = (reply: ArbiterReply): void => {
          if (lost || this.blocked('arbiter', member.host)) return;
          this.schedule.at(1, () => answer(reply));
        };
        if (this.kind === 'device') this.onDevice(era).carryOut(member, effect, told);
        else if (this.kind === 'file' && effect.type === 'arbiter-cas')
          this.changeByClaims(member, effect, told);
        else told(this.arbiter.carryOut(effect, era));
      });
    }
  }

  /** A VM under a new id has a place of its own. */
  private onDevice(era: number): SimDevice {
    if (this.device?.era !== era)
      this.device = { era, device: new SimDevice(this, this.options.device) };
    return this.device.device;
  }

  reachesArbiter(member: Member): boolean {
    return this.arbiter.up && !this.blocked(member.host, 'arbiter');
  }

  /**
   * The real steps on modelled storage. It is the host itself that takes them: it may freeze, die
   * or lose the storage between any two.
   */
  private changeByClaims(
    member: Member,
    effect: Extract<Effect, { type: 'arbiter-cas' }>,
    told: (reply: ArbiterReply) => void,
  ): void {
    const { era } = this.arbiter;
    const { claims = changeByClaim } = this.options;
    const steps = claims(effect.expectRevision, effect.proposal, CLAIMS_KEPT);
    const advance = (result: ClaimResult): void => {
      const next = steps.next(result);
      if (next.done === true) return told(next.value);
      this.sleepPerhaps(member, next.value);
      this.requestsOut += 1;
      this.schedule.at(this.storageMs(), () => {
        this.requestsOut -= 1;
        this.whenAwake(member, () => {
          if (this.reachesArbiter(member)) advance(this.takeStep(next.value, era));
        });
      });
    };
    advance({});
  }

  /** The next process that is about to write there may fall asleep. */
  sleepPerhaps(member: Member, { do: what }: ClaimStep | DiskStep): void {
    if (this.sleepMsBeforeClaim === 0 || (what !== 'claim' && what !== 'write')) return;
    if (what === 'write' && !this.prng.chance(30)) return;
    member.frozenUntilMs = this.nowMs + this.sleepMsBeforeClaim;
    this.sleepMsBeforeClaim = 0;
  }

  /** How long a step on shared storage takes. */
  storageMs(): number {
    return this.prng.chance(this.weather.arbiterSlow) ? this.prng.below(120) : 1;
  }

  /** A process that is frozen goes on from there when it thaws. */
  whenAwake(member: Member, work: () => void, died: () => void = () => {}): void {
    if (!member.alive) return died();
    const frozenMs = member.frozenUntilMs - this.nowMs;
    if (frozenMs > 0) this.schedule.at(frozenMs, () => this.whenAwake(member, work, died));
    else work();
  }

  private takeStep(step: ClaimStep, era: number): ClaimResult {
    switch (step.do) {
      case 'newest':
        return { record: era === this.arbiter.era ? this.arbiter.record : null };
      case 'claim':
        return { linked: this.arbiter.claim(step.record, era) };
      case 'clear':
        this.arbiter.clear(step.below);
        return {};
    }
  }
}
