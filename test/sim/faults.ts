/** What can go wrong in a simulated world, by name, and how likely each is. */
import { DETECT_MS, type Weather, type World } from './world.js';
import type { Member } from './member.js';
import { Person } from './person.js';

export const FAULTS = {
  'crash-host': 6,
  'crash-process': 3,
  'double-crash': 1,
  freeze: 6,
  'cut-peer': 4,
  'cut-one-way': 5,
  'cut-arbiter': 3,
  'mend-cuts': 8,
  'clock-rate': 2,
  'sleep-before-claim': 1,
  'slow-notes': 2,
  'stuck-acks': 2,
  'arbiter-down': 2,
  'arbiter-wipe': 0.5,
  'arbiter-restore': 0.5,
  handover: 2,
  unprotect: 1,
  protect: 3,
  start: 3,
  'force-boot': 2,
  'force-takeover': 12,
  'power-off': 0.3,
  stop: 0.3,
} as const;

export type FaultName = keyof typeof FAULTS;
/** Factors on the usual likelihood of faults and of bad weather. */
export type Bias = Partial<Record<FaultName | keyof Weather, number>>;

const STORM: Weather = {
  ...{ loss: 1, double: 1, slow: 2, corrupt: 0.5 },
  ...{ arbiterSlow: 15, replyLost: 10 },
};

const WAYS = ['a>b', 'b>a', 'a>arbiter', 'arbiter>a', 'b>arbiter', 'arbiter>b'];

export class FaultInjector {
  private readonly world: World;
  private readonly weights: readonly (readonly [FaultName, number])[];
  private readonly total: number;
  private readonly bias: Bias;

  /** Each seed leaves some kinds of faults out, so that others show in long stretches. */
  constructor(world: World, bias: Bias) {
    this.world = world;
    this.bias = bias;
    const names = (Object.keys(FAULTS) as FaultName[]).filter(
      (name) => name !== 'force-takeover' || world.kind === 'none',
    );
    this.weights = names.map((name) => {
      const left = world.prng.chance(35) && bias[name] === undefined;
      return [name, left ? 0 : FAULTS[name] * (bias[name] ?? 1)] as const;
    });
    this.total = this.weights.reduce((sum, [, weight]) => sum + weight, 0);
  }

  storm(): void {
    const factor = (name: keyof Weather): number => STORM[name] * (this.bias[name] ?? 1);
    this.world.weather = {
      ...{ loss: factor('loss'), double: factor('double'), slow: factor('slow') },
      corrupt: factor('corrupt'),
      ...{ arbiterSlow: factor('arbiterSlow'), replyLost: factor('replyLost') },
    };
  }

  next(): void {
    let left = (this.world.prng.below(10_000) / 10_000) * this.total;
    for (const [name, weight] of this.weights) {
      left -= weight;
      if (left < 0) return this.inject(name);
    }
  }

  private inject(name: FaultName): void {
    const { world } = this;
    const { prng } = world;
    const host = prng.chance(50) ? 'a' : 'b';
    const victim = world.members[prng.below(Math.max(1, world.members.length))];
    const inject: Record<FaultName, () => void> = {
      'crash-host': () => world.crashHost(host, 50 + prng.below(400)),
      'crash-process': () => victim && world.crash(victim),
      'double-crash': () => {
        for (const each of ['a', 'b']) world.crashHost(each, 50 + prng.below(400));
      },
      freeze: () => this.freeze(victim),
      'cut-peer': () => this.cutWays(['a>b', 'b>a'], 80),
      'cut-one-way': () => this.cutWays([WAYS[prng.below(WAYS.length)]], 100),
      'cut-arbiter': () => this.cutWays(WAYS.slice(2), 60),
      'mend-cuts': () => world.cut.clear(),
      'clock-rate': () => world.host(host).setRate(0.5 + prng.below(1_500) / 1_000),
      'sleep-before-claim': () => (world.sleepMsBeforeClaim = 300 + prng.below(700)),
      'slow-notes': () => (world.host(host).noteMsMax = prng.chance(50) ? 4 : 400),
      'stuck-acks': () => (world.host(host).acksStuck = prng.chance(60)),
      'arbiter-down': () => (world.arbiter.up = world.kind === 'none' || prng.chance(40)),
      'arbiter-wipe': () => world.isMarked || world.arbiter.wipe(),
      'arbiter-restore': () => this.restoreArbiter(),
      handover: () => this.command('handover'),
      unprotect: () => this.command('unprotect'),
      stop: () => this.command('stop'),
      protect: () => this.protect(),
      start: () => this.start(host),
      'force-boot': () => this.forceBoot(host),
      'force-takeover': () => this.forceTakeover(host),
      'power-off': () => this.powerOff(),
    };
    world.faults += 1;
    inject[name]();
  }

  private freeze(victim: Member | undefined): void {
    if (!victim) return;
    victim.frozenUntilMs = this.world.nowMs + this.world.prng.below(10 * DETECT_MS);
  }

  private cutWays(ways: readonly string[], percent: number): void {
    for (const way of ways) if (this.world.prng.chance(percent)) this.world.cut.add(way);
  }

  private command(type: 'handover' | 'unprotect' | 'stop'): void {
    const owner = this.world.owner();
    if (owner) this.world.dispatch(owner, { type: 'command', command: { type } });
  }

  private protect(): void {
    const owner = this.world.owner();
    if (owner) new Person(this.world).protect(owner);
  }

  private start(host: string): void {
    const { world } = this;
    const over = world.members.length === 0 && world.arbiter.record?.mode === 'stopped';
    if (over && world.host(host).up) world.create(host);
  }

  /** An operator who sees the owner's host down and no image anywhere. */
  private forceBoot(host: string): void {
    const { world } = this;
    const { record } = world.arbiter;
    const gone = record && record.owner !== host && !world.host(record.owner).up;
    if (gone && world.members.length === 0 && world.host(host).up) world.forceBoot(host);
  }

  /** Without an arbiter a person may be wrong: the owner may be alive and only out of reach. */
  private forceTakeover(host: string): void {
    const { world } = this;
    const waits = world.members.find(
      (m) => m.host === host && !m.isPrimary && m.core.status().state === 'waiting-arbiter',
    );
    if (waits) world.dispatch(waits, { type: 'command', command: { type: 'force' } });
  }

  private powerOff(): void {
    const owner = this.world.owner();
    if (owner?.running) this.world.dispatch(owner, { type: 'powered-off' });
  }

  /**
   * A backup that undoes a change of which some host never heard cannot be told from the truth by
   * that host: so all who could act have seen the newest record (ARCHITECTURE.md says so too).
   */
  private restoreArbiter(): void {
    const { world } = this;
    const newest = world.arbiter.newestGeneration;
    const told = [...world.hosts.values()].every(
      (host) => (host.note()?.generationSeen ?? 0) >= newest,
    );
    const seen = world.members.every((m) => m.core.status().generation >= newest);
    const kept = world.kind === 'device' || world.kind === 'none';
    const idle = world.requestsOut === 0 && !kept;
    if (told && seen && idle) world.arbiter.restore(world.prng.below(4));
  }
}
