/** The real core under seeded faults, and bugs planted into it that must be caught. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FAILED_SEEDS } from './failed-seeds.js';
import { PLANTED_BUGS, plant, type PlantedBug } from './planted-bugs.js';
import { runSeed } from './run.js';
import type { ArbiterKind } from './world.js';

const FRESH_SEEDS = Number(process.env['MIRROR_SIM_COUNT'] ?? 5_000);
/** Of each kind of arbiter that few seeds choose. */
const MORE_SEEDS = 400;
const TAKEOVERS_PER_SEED_MIN = 0.25;

const sim = suite('simulator');

/** New seeds every day; the base is printed, so that a run can be made again. */
const base = Number(process.env['MIRROR_SIM_SEED'] ?? Math.floor(Date.now() / 86_400_000) * 10_000);

function check(seed: number, arbiter?: ArbiterKind): number {
  const { violations, takeovers } = runSeed(seed, { arbiter });
  const more = arbiter ? ` '{}' ${arbiter}` : '';
  const how = `seed ${seed}; replay: node dist/test/sim/replay.js ${seed}${more}`;
  assert.equal(violations, [], how);
  return takeovers;
}

sim('no seed violates a rule, and protection comes back', () => {
  let takeovers = 0;
  for (const seed of FAILED_SEEDS) check(seed);
  for (let seed = base; seed < base + FRESH_SEEDS; seed += 1) takeovers += check(seed);
  process.stdout.write(`\nNOTE ${FRESH_SEEDS} seeds from ${base}, ${takeovers} takeovers\n`);
  assert.ok(takeovers > FRESH_SEEDS * TAKEOVERS_PER_SEED_MIN, 'the faults lead to takeovers');
});

for (const arbiter of ['device', 'none'] as const)
  sim(`the same holds for every seed with the arbiter ${arbiter}`, () => {
    let takeovers = 0;
    for (let seed = base; seed < base + MORE_SEEDS; seed += 1) takeovers += check(seed, arbiter);
    assert.ok(takeovers > MORE_SEEDS * TAKEOVERS_PER_SEED_MIN, `${takeovers} takeovers`);
  });

/** Caught only if the same seed and bias find nothing in the core as it is. */
async function caught(bug: PlantedBug): Promise<boolean> {
  const { seed, bias, arbiter } = bug;
  const clean = runSeed(seed, { bias, arbiter });
  assert.equal(clean.violations, [], `${bug.name}: seed ${seed} without the bug`);
  const { options, dispose } = await plant(bug);
  const { violations } = runSeed(seed, options);
  dispose();
  return violations.length > 0;
}

sim('every planted bug is caught', async () => {
  const survivors: string[] = [];
  for (const bug of PLANTED_BUGS) if (!(await caught(bug))) survivors.push(bug.name);
  const count = PLANTED_BUGS.length - survivors.length;
  process.stdout.write(`\nplanted bugs: ${PLANTED_BUGS.length}, caught: ${count}\n`);
  assert.equal(survivors, []);
});

sim.run();
