/**
 * `npm run soak -- --seeds N [--from S] [--json]`: many seeds on all cores, and every planted bug.
 * Ends with one object: seeds, takeovers, faults, simulatedHours, violations, plantedBugs,
 * plantedBugsCaught. Exits with 1 if a seed fails or a bug survives.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { PLANTED_BUGS, plant } from './planted-bugs.js';
import { runSeed } from './run.js';

const SEEDS_PER_REPORT = 500;

interface Range {
  readonly from: number;
  readonly to: number;
}

interface Report {
  readonly seeds: number;
  readonly takeovers: number;
  readonly faults: number;
  readonly simulatedMs: number;
  readonly failed: readonly { seed: number; violations: string[] }[];
}

function runRange({ from, to }: Range): Report {
  const failed: { seed: number; violations: string[] }[] = [];
  const sum = { takeovers: 0, faults: 0, simulatedMs: 0 };
  for (let seed = from; seed < to; seed += 1) {
    const { violations, takeovers, faults, simulatedMs } = runSeed(seed);
    sum.takeovers += takeovers;
    sum.faults += faults;
    sum.simulatedMs += simulatedMs;
    if (violations.length > 0) failed.push({ seed, violations });
  }
  return { seeds: to - from, ...sum, failed };
}

/** Every core takes the next stretch of seeds until all are done. */
async function runAll(from: number, count: number, tell: (report: Report) => void): Promise<void> {
  let next = from;
  const end = from + count;
  const work = async (): Promise<void> => {
    const worker = new Worker(new URL(import.meta.url), { workerData: 'soak' });
    while (next < end) {
      const range = { from: next, to: Math.min(end, next + SEEDS_PER_REPORT) };
      next = range.to;
      tell(await ask(worker, range));
    }
    await worker.terminate();
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
}

function ask(worker: Worker, range: Range): Promise<Report> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('message', (report: Report) => {
      worker.off('error', reject);
      resolve(report);
    });
    worker.postMessage(range);
  });
}

async function caughtCount(): Promise<number> {
  let caught = 0;
  for (const bug of PLANTED_BUGS) {
    const { seed, bias, arbiter } = bug;
    const { options, dispose } = await plant(bug);
    const clean = runSeed(seed, { bias, arbiter }).violations.length === 0;
    if (clean && runSeed(seed, options).violations.length > 0) caught += 1;
    dispose();
  }
  return caught;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { seeds: { type: 'string' }, from: { type: 'string' }, json: { type: 'boolean' } },
  });
  const [count, from] = [Number(values.seeds ?? 10_000), Number(values.from ?? 1)];
  if (!(Number.isSafeInteger(count) && count > 0 && Number.isSafeInteger(from) && from >= 0)) {
    process.stderr.write('usage: npm run soak -- --seeds N [--from S] [--json]\n');
    return 2;
  }
  const total = { seeds: 0, takeovers: 0, faults: 0, simulatedMs: 0, violations: 0 };
  await runAll(from, count, (report) => {
    total.seeds += report.seeds;
    total.takeovers += report.takeovers;
    total.faults += report.faults;
    total.simulatedMs += report.simulatedMs;
    total.violations += report.failed.length;
    for (const { seed, violations } of report.failed)
      process.stderr.write(
        `seed ${seed}: ${violations[0]}; node dist/test/sim/replay.js ${seed}\n`,
      );
    if (values.json !== true) process.stderr.write(`\r${total.seeds} of ${count} seeds`);
  });
  const { simulatedMs, ...counts } = total;
  const summary = {
    ...counts,
    simulatedHours: Math.round(simulatedMs / 36_000) / 100,
    plantedBugs: PLANTED_BUGS.length,
    plantedBugsCaught: await caughtCount(),
  };
  process.stdout.write(`${values.json === true ? '' : '\n'}${JSON.stringify(summary)}\n`);
  return total.violations === 0 && summary.plantedBugsCaught === summary.plantedBugs ? 0 : 1;
}

if (isMainThread) process.exitCode = await main();
else if (workerData === 'soak')
  parentPort?.on('message', (range: Range) => parentPort?.postMessage(runRange(range)));
