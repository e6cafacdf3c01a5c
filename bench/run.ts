/**
 * `npm run bench`: every bench, as a table or, with `--json`, as one object. Names as arguments run
 * only those. The figures are for comparison within one run: the machine may be busy.
 */
import { clockBench } from './clock.bench.js';
import { latencyBench } from './latency.bench.js';
import { memoryBench } from './memory.bench.js';
import { pageBench } from './page.bench.js';
import { pauseBench } from './pause.bench.js';
import { formatted, type Row } from './row.js';
import { samplesBench } from './samples.bench.js';
import { takeoverBench } from './takeover.bench.js';
import { workBench } from './work.bench.js';

const BENCHES: Record<string, () => Promise<Row[]>> = {
  page: pageBench,
  samples: samplesBench,
  pause: pauseBench,
  work: workBench,
  latency: latencyBench,
  memory: memoryBench,
  clock: clockBench,
  takeover: takeoverBench,
};

const args = process.argv.slice(2);
const json = args.includes('--json');
const wanted = args.filter((arg) => !arg.startsWith('--'));
const unknown = wanted.filter((name) => !(name in BENCHES));
if (unknown.length > 0) {
  const known = Object.keys(BENCHES).join(', ');
  process.stderr.write(`no bench named ${unknown.join(', ')}; there are ${known}\n`);
  process.exit(2);
}

const rows: Row[] = [];
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const found = await bench();
  rows.push(...found);
  if (!json) process.stdout.write(`${found.map(formatted).join('\n')}\n`);
}
if (json) process.stdout.write(`${JSON.stringify({ rows })}\n`);
