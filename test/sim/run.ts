/**
 * One seeded run: a stretch of faults, then everything heals and the VM must be protected again.
 */
import { DETECT_MS, World, type CoreFactory } from './world.js';

const FAULTS_MS = 3_000;
const HEAL_MS = 60 * DETECT_MS;

export interface RunResult {
  readonly violations: string[];
  readonly takeovers: number;
}

const WAYS = ['a>b', 'b>a', 'a>arbiter', 'arbiter>a', 'b>arbiter', 'arbiter>b'];

function injectFault(world: World): void {
  const { prng } = world;
  const host = prng.chance(50) ? 'a' : 'b';
  const alive = world.members.filter((member) => member.alive);
  const victim = alive[prng.below(Math.max(1, alive.length))];
  switch (prng.below(6)) {
    case 0:
      return world.crashHost(host, 50 + prng.below(400));
    case 1:
      if (victim) victim.frozenUntilMs = world.nowMs + prng.below(10 * DETECT_MS);
      return;
    case 2: {
      const ways = ['a>b', 'b>a'].filter(() => prng.chance(60));
      for (const way of ways) world.cut.add(way);
      return;
    }
    case 3:
      world.cut.add(WAYS[prng.below(WAYS.length)]);
      return;
    case 4:
      world.cut.clear();
      return;
    default:
      if (victim && prng.chance(30)) world.crash(victim);
      return;
  }
}

export function runSeed(seed: number, make?: CoreFactory): RunResult {
  const world = new World(seed, make);
  const { oracle } = world;
  const result = (): RunResult => ({
    violations: oracle.violations,
    takeovers: world.takeovers,
  });
  try {
    world.begin();
    world.faults = false;
    world.runUntil(10 * DETECT_MS, () => world.owner() !== undefined);
    world.faults = true;
    const endMs = world.nowMs + FAULTS_MS;
    while (world.nowMs < endMs && oracle.violations.length === 0) {
      const atMs = world.nowMs + 40 + world.prng.below(300);
      world.runUntil(atMs);
      world.nowMs = atMs;
      injectFault(world);
    }
    world.faults = false;
    world.cut.clear();
    for (const member of world.members) member.frozenUntilMs = 0;
    world.runUntil(world.nowMs + 12 * DETECT_MS);
    const healed = world.runUntil(world.nowMs + HEAL_MS, () => world.owner() !== undefined);
    const owner = world.owner();
    if (!healed || !owner) oracle.violations.push('not protected again after the faults ended');
    else oracle.owner(owner.life, owner.state);
  } catch (error) {
    oracle.violations.push(`the core threw: ${String(error)}`);
  }
  return result();
}
