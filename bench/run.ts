/**
 * `npm run bench`: every bench, as a table or, with `--json`, as one object. Names as arguments run
 * only those. One that fails costs no other its rows. The figures are for comparison within one
 * run: the machine may be busy.
 */
import { spawn } from 'node:child_process';
import { clockQemuBench } from './clock-qemu.bench.js';
import { clockBench } from './clock.bench.js';
import { coloPairBench } from './colo-pair.bench.js';
import { latencyBench } from './latency.bench.js';
import { memoryBench } from './memory.bench.js';
import { pageBench } from './page.bench.js';
import { pauseBench } from './pause.bench.js';
import { qemuBench } from './qemu.bench.js';
import { qemuParserBench } from './qemu-parser.bench.js';
import { qemuTakeoverBench } from './qemu-takeover.bench.js';
import { qemuIdleBench } from './qemu-idle.bench.js';
import { formatted, type Row } from './row.js';
import { samplesBench } from './samples.bench.js';
import { takeoverBench } from './takeover.bench.js';
import { wireBench } from './wire.bench.js';
import { workBench } from './work.bench.js';

/** The longest, at its ten minutes, is the clock's. */
const DEADLINE_MS = 15 * 60_000;

const BENCHES: Record<string, () => Promise<Row[]>> = {
  page: pageBench,
  samples: samplesBench,
  pause: pauseBench,
  wire: wireBench,
  work: workBench,
  latency: latencyBench,
  memory: memoryBench,
  clock: clockBench,
  takeover: () => takeoverBench('v86'),
  qemu: qemuBench,
  'qemu-parser': qemuParserBench,
  'qemu-idle': qemuIdleBench,
  'qemu-takeover': qemuTakeoverBench,
  'colo-pair': coloPairBench,
  'clock-qemu': clockQemuBench,
  'takeover-qemu': () => takeoverBench('qemu'),
};

const args = process.argv.slice(2);
const json = args.includes('--json');
/** In this very process, as the run of all benches has each of them done. */
const here = args.includes('--here');
const wanted = args.filter((arg) => !arg.startsWith('--'));
const unknown = wanted.filter((name) => !(name in BENCHES));
if (unknown.length > 0) {
  const known = Object.keys(BENCHES).join(', ');
  process.stderr.write(`no bench named ${unknown.join(', ')}; there are ${known}\n`);
  process.exit(2);
}

const rows: Row[] = [];
let failed = 0;
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  try {
    const found = here ? await bench() : await inProcess(name);
    rows.push(...found);
    if (!json) process.stdout.write(`${found.map(formatted).join('\n')}\n`);
  } catch (error) {
    failed += 1;
    process.stderr.write(`bench ${name} failed: ${String(error)}\n`);
  }
}
if (json) process.stdout.write(`${JSON.stringify({ rows, failed })}\n`);
process.exitCode = failed > 0 ? 1 : 0;

/** In a process group of its own, which ends with the bench or at its deadline. */
function inProcess(name: string): Promise<Row[]> {
  const child = spawn(process.execPath, [process.argv[1] ?? '', name, '--json', '--here'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => {
      reject(new Error(`no end within ${DEADLINE_MS / 60_000} minutes`));
      endGroup(child.pid);
    }, DEADLINE_MS);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(deadline);
      endGroup(child.pid);
      if (code !== 0) return reject(new Error(`it ended with ${code ?? 'a signal'}`));
      resolve((JSON.parse(output) as { rows: Row[] }).rows);
    });
  });
}

function endGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing of it is left.
  }
}
