/**
 * `npm run soak:memory -- --engine qemu --seconds 600`: does what a protected VM takes of its hosts
 * grow? Samples memory and descriptors of both VM processes and their QEMUs, and fails if a
 * straight line through the second half rises by more than its bound.
 *
 * `--accelerator kvm` goes to both hosts, for `--engine qemu`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { onStage, statusOf, type BenchVm, type Stage } from './bench-pool.js';
import { memoryMb, openFiles, processTree } from './processes.js';
import { formatted, isMet, type Row } from './row.js';

const SAMPLE_EVERY_MS = 2_000;
const WARM_UP_MS = 5_000;
/** A minute; what a garbage collector has not returned yet is within it. */
const GROWTH_MAX = { memoryMb: 1, files: 0.5 };
const RATIO_MAX = 1.05;
/** Of the second half of the samples, its ends. */
const END_SHARE = 0.2;
const SAMPLES_MIN = 20;
/** Heaps still find their size before: a shorter run tells its figures and judges nothing. */
const JUDGED_SECONDS_MIN = 300;

const { values: given } = parseArgs({
  options: {
    engine: { type: 'string', default: 'v86' },
    accelerator: { type: 'string' },
    seconds: { type: 'string', default: '600' },
  },
});

function vmOf(engine: string): BenchVm {
  const { accelerator } = given;
  if (engine !== 'v86' && engine !== 'qemu') throw new Error(`no engine ${engine}: v86 or qemu`);
  // A software KVM emulates every instruction of this guest.
  const dirty = accelerator === 'kvm' ? 16 : 256;
  const cmdline = `tick=10 dirty=${dirty} pattern=sparse`;
  const hostArgs = accelerator === undefined ? [] : ['--accelerator', accelerator];
  return { memory: '64MiB', epoch: '25ms', cmdline, engine, hostArgs };
}

interface Sample {
  readonly minute: number;
  readonly pssMb: number;
  readonly rssMb: number;
  readonly files: number;
}

async function sample({ pool }: Stage, startedAtMs: number): Promise<Sample> {
  const statuses = await Promise.all(pool.hosts.map(statusOf));
  const processes = statuses.flatMap(({ pid }) => processTree(pid));
  const memory = processes.map(memoryMb);
  const sum = (values: number[]): number => values.reduce((one, other) => one + other, 0);
  return {
    minute: (performance.now() - startedAtMs) / 60_000,
    pssMb: sum(memory.map(({ pss }) => pss)),
    rssMb: sum(memory.map(({ rss }) => rss)),
    files: sum(processes.map(openFiles)),
  };
}

async function soak(stage: Stage, seconds: number): Promise<Row[]> {
  const [owner] = stage.pool.hosts;
  await sleep(WARM_UP_MS);
  const { generation } = await statusOf(owner);
  const startedAtMs = performance.now();
  const samples: Sample[] = [];
  while (performance.now() - startedAtMs < seconds * 1_000) {
    samples.push(await sample(stage, startedAtMs));
    await sleep(SAMPLE_EVERY_MS);
  }
  const last = await statusOf(owner);
  if (last.state !== 'protected' || last.generation !== generation)
    throw new Error(`the VM was not protected all along: ${last.state}`);
  if (samples.length < SAMPLES_MIN) throw new Error(`${samples.length} samples say nothing`);
  const { memoryMb: most, files } = GROWTH_MAX;
  return [
    ...growth('PSS', samples, ({ pssMb }) => pssMb, { unit: 'MB', most }),
    ...growth('RSS', samples, ({ rssMb }) => rssMb, { unit: 'MB', most }),
    ...growth('open descriptors', samples, (each) => each.files, { unit: 'files', most: files }),
  ];
}

function growth(
  name: string,
  samples: readonly Sample[],
  pick: (sample: Sample) => number,
  { unit, most }: { unit: string; most: number },
): Row[] {
  const half = samples.slice(Math.floor(samples.length / 2));
  const ends = Math.ceil(half.length * END_SHARE);
  const first = mean(half.slice(0, ends).map(pick));
  const last = mean(half.slice(-ends).map(pick));
  const slope = slopeOf(half.map((each) => [each.minute, pick(each)]));
  return [
    {
      ...{ name: `${name}: growth`, value: slope, unit: `${unit} a minute` },
      ...{ reference: `${first.toFixed(1)} to ${last.toFixed(1)}`, target: { atMost: most } },
    },
    {
      ...{ name: `${name}: end of the second half`, value: last / first, unit: 'of its start' },
      target: { atMost: RATIO_MAX },
    },
  ];
}

const mean = (values: readonly number[]): number =>
  values.reduce((one, other) => one + other, 0) / values.length;

/** Of the line with the least squares. */
function slopeOf(points: readonly (readonly [number, number])[]): number {
  const x = mean(points.map((point) => point[0]));
  const y = mean(points.map((point) => point[1]));
  let above = 0;
  let below = 0;
  for (const point of points) {
    above += (point[0] - x) * (point[1] - y);
    below += (point[0] - x) ** 2;
  }
  return above / below;
}

const seconds = Number(given.seconds);
const found = await onStage(vmOf(given.engine), (stage) => soak(stage, seconds));
const judged = seconds >= JUDGED_SECONDS_MIN;
const rows = judged ? found : found.map(({ target: _target, ...row }) => row);
if (!judged) process.stderr.write(`under ${JUDGED_SECONDS_MIN} seconds nothing is judged\n`);
process.stdout.write(`${rows.map(formatted).join('\n')}\n`);
process.exitCode = rows.every(isMet) ? 0 : 1;
