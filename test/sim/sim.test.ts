/** The real core under seeded faults, and bugs planted into it that must be caught. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PLANTED_BUGS, plant } from './planted-bugs.js';
import { runSeed } from './run.js';
import { FAILED_SEEDS } from './failed-seeds.js';

const FRESH_SEEDS = 3_000;
const PLANTED_SEEDS_MAX = 400;

const sim = suite('simulator');

/** New seeds every day; the base is printed, so that a run can be made again. */
const base = Number(process.env['MIRROR_SIM_SEED'] ?? Math.floor(Date.now() / 86_400_000) * 10_000);

function check(seed: number): number {
  const { violations, takeovers } = runSeed(seed);
  const how = `seed ${seed}; replay: node dist/test/sim/replay.js ${seed}`;
  assert.equal(violations, [], how);
  return takeovers;
}

sim('no seed violates a rule, and protection comes back', () => {
  let takeovers = 0;
  for (const seed of FAILED_SEEDS) takeovers += check(seed);
  for (let seed = base; seed < base + FRESH_SEEDS; seed += 1) takeovers += check(seed);
  process.stdout.write(`NOTE ${FRESH_SEEDS} seeds from ${base}, ${takeovers} takeovers\n`);
  assert.ok(takeovers > FRESH_SEEDS / 4, 'the faults lead to takeovers');
});

sim('every planted bug is caught', async () => {
  const survivors: string[] = [];
  for (const bug of PLANTED_BUGS) {
    const { make, dispose } = await plant(bug);
    let caught = false;
    for (let seed = 1; seed <= PLANTED_SEEDS_MAX && !caught; seed += 1)
      caught = runSeed(seed, { make }).violations.length > 0;
    dispose();
    if (!caught) survivors.push(bug.name);
  }
  const caught = PLANTED_BUGS.length - survivors.length;
  process.stdout.write(`planted bugs: ${PLANTED_BUGS.length}, caught: ${caught}\n`);
  assert.equal(survivors, []);
});

sim.run();
