/** `node dist/test/sim/replay.js SEED`: one run again. */
import { runSeed } from './run.js';

const [seed] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(runSeed(Number(seed)), null, 2)}\n`);
