/** `node dist/test/sim/replay.js SEED [BIAS-JSON [ARBITER]]`: one run again, told in events. */
import type { Bias } from './faults.js';
import { runSeed } from './run.js';
import type { ArbiterKind } from './world.js';

const [seed, bias = '{}', arbiter] = process.argv.slice(2);
const trace = (line: string): void => void process.stdout.write(`${line}\n`);
const result = runSeed(Number(seed), {
  ...{ trace, bias: JSON.parse(bias) as Bias },
  arbiter: arbiter as ArbiterKind | undefined,
});
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
