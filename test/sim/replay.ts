/** `node dist/test/sim/replay.js SEED [BIAS-JSON]`: one run again, told event by event. */
import type { Bias } from './faults.js';
import { runSeed } from './run.js';

const [seed, bias = '{}'] = process.argv.slice(2);
const trace = (line: string): void => void process.stdout.write(`${line}\n`);
const result = runSeed(Number(seed), { trace, bias: JSON.parse(bias) as Bias });
process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
