/**
 * One seeded run: a stretch of faults, then everything heals, an operator looks in, and the VM must
 * be protected again.
 */
import { FaultInjector, type Bias } from './faults.js';
import { Person } from './person.js';
import type { changeByClaim } from '../../src/pool/file-claims.js';
import type { DeviceCode } from './device.js';
import type { PairCode } from './pair.js';
import { DETECT_MS, World, type ArbiterKind, type CoreFactory } from './world.js';

const FAULTS_MS = 2_500;
const QUIET_MS = 12 * DETECT_MS;
const HEAL_MS = 60 * DETECT_MS;
const VIOLATIONS_TOLD = 5;
const LOOK_EVERY_MS = 3 * DETECT_MS;

export interface RunOptions {
  readonly make?: CoreFactory;
  readonly claims?: typeof changeByClaim;
  readonly device?: DeviceCode;
  readonly pair?: PairCode;
  readonly bias?: Bias;
  /** Else it is the seed that chooses. */
  readonly arbiter?: ArbiterKind | undefined;
  readonly trace?: (line: string) => void;
}

export interface RunResult {
  readonly violations: string[];
  readonly takeovers: number;
  readonly faults: number;
  readonly simulatedMs: number;
}

export function runSeed(seed: number, options: RunOptions = {}): RunResult {
  const onPeerLoss = seed % 10 === 0 ? 'stall' : 'solo';
  const { arbiter = arbiterOf(seed) } = options;
  const world = new World(seed, { ...options, onPeerLoss, arbiter });
  const { violations } = world.oracle;
  try {
    begin(world);
    misfortune(world, new FaultInjector(world, options.bias ?? {}));
    recovery(world);
  } catch (error) {
    violations.push(`the core threw: ${String(error)}`);
  }
  const { takeovers, faults, nowMs: simulatedMs } = world;
  return { violations: violations.slice(0, VIOLATIONS_TOLD), takeovers, faults, simulatedMs };
}

/** Seeds that are named somewhere keep their arbiter. */
function arbiterOf(seed: number): ArbiterKind {
  if (seed % 16 === 9) return 'device';
  if (seed % 16 === 12 || seed % 16 === 15) return 'none';
  return seed % 4 === 3 ? 'file' : 'witness';
}

function isProtected(world: World): boolean {
  return world.owner()?.protects === true;
}

function begin(world: World): void {
  world.create('a');
  if (!world.schedule.runUntil(10 * DETECT_MS, () => isProtected(world)))
    world.oracle.violations.push('not protected in fair weather');
}

function misfortune(world: World, faults: FaultInjector): void {
  const endMs = world.nowMs + FAULTS_MS;
  faults.storm();
  while (world.nowMs < endMs && world.oracle.violations.length === 0) {
    world.schedule.runUntil(world.nowMs + 40 + world.prng.below(300));
    faults.next();
  }
}

function recovery(world: World): void {
  const { schedule, oracle } = world;
  const person = new Person(world);
  world.calm();
  world.sleepMsBeforeClaim = 0;
  schedule.runUntil(world.nowMs + QUIET_MS);
  const endMs = world.nowMs + HEAL_MS;
  let healed = isProtected(world);
  while (!healed && world.nowMs < endMs && oracle.violations.length === 0) {
    person.look();
    healed = schedule.runUntil(world.nowMs + LOOK_EVERY_MS, () => isProtected(world));
  }
  const owner = world.owner();
  if (!healed || !owner) oracle.violations.push('not protected again after the faults ended');
  else {
    const seenCount = oracle.seen(owner.life).length;
    schedule.runUntil(world.nowMs + 5 * DETECT_MS);
    oracle.owner(owner.life, owner.state);
    if (oracle.seen(owner.life).length === seenCount) oracle.violations.push('no output flows');
    forcedSideLives(world);
  }
}

/** Once the hosts have met, of two that went on exactly the one lives that was forced last. */
function forcedSideLives({ members, oracle, arbiter, forcedAt, pair }: World): void {
  const running = members.filter((m) => m.running && m.gateOpen).length;
  if (running > 1 || pair.isSplit) oracle.violations.push('two sides go on');
  if ((arbiter.record?.forcedAt ?? 0) < forcedAt) oracle.violations.push('the forced side is gone');
}
