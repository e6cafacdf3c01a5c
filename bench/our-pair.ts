/** A protected VM on QEMU with two hosts and a witness as processes, and a small guest on KVM. */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsoleRead } from '../src/cli/console.js';
import type { DemoHost, DemoPool } from '../src/cli/demo-pool.js';
import type { VmStatus } from '../src/host/vm-status.js';
import { killAndReturn, onStage, statusOf, VM, type BenchVm } from './bench-pool.js';
import type { PairFigures, PairTask } from './pair-figures.js';
import { loopsIn, tinyPath } from './peers.js';
import { cpuSeconds, processTree, tcpBytesSent } from './processes.js';
import { median } from './row.js';

const WARM_UP_MS = 2_000;
const REST_MS = 500;
const POLL_MS = 2;
const OUTPUT_MS_MAX = 20_000;
const MEMORY = '256MiB';

export async function ourPair(task: PairTask): Promise<PairFigures> {
  const vm: BenchVm = {
    ...{ memory: MEMORY, epoch: `${task.epochMs}ms`, cmdline: '', nic: false },
    engine: 'qemu',
    ...{ boot: { kernel: resolve(tinyPath(task.pages)) }, hostArgs: ['--accelerator', 'kvm'] },
  };
  return onStage(vm, ({ pool }) => measure(pool, task));
}

async function measure(pool: DemoPool, task: PairTask): Promise<PairFigures> {
  const [owner] = pool.hosts;
  await untilLoops(owner);
  await sleep(WARM_UP_MS);
  const before = await look(pool);
  await sleep(task.seconds * 1_000);
  const after = await look(pool);
  const seconds = (after.atMs - before.atMs) / 1_000;
  const epochs = after.epoch - before.epoch;
  const printed = await textOf(owner, before.serialEnd, after.serialEnd);
  const { pauseMs, captureDriver } = await statusOf(owner);
  const { name, why } = captureDriver;
  if (name !== 'colo') throw new Error(`our pair is captured by ${name}: ${why}`);
  const takeovers: Takeover[] = [];
  for (let kill = 0; kill < task.kills; kill += 1) takeovers.push(await takeOver(pool));
  return {
    pauseP50Ms: pauseMs.p50,
    pauseP99Ms: pauseMs.p99,
    epochsPerSecond: epochs / seconds,
    loopsPerSecond: loopsIn(printed) / seconds,
    bytesPerEpoch: (after.sentBytes - before.sentBytes) / epochs,
    cpuSeconds: (after.cpuSeconds - before.cpuSeconds) / seconds,
    outputMs: takeovers.map(({ outputMs }) => outputMs),
    detectedMs: median(takeovers.map(({ detectedMs }) => detectedMs)),
  };
}

interface Look {
  readonly atMs: number;
  readonly epoch: number;
  readonly serialEnd: number;
  readonly sentBytes: number;
  readonly cpuSeconds: number;
}

async function look({ hosts }: DemoPool): Promise<Look> {
  const { pid, epoch, serialOffset } = await statusOf(hosts[0]);
  const processes = hosts.flatMap((host) => processTree(host.process?.pid ?? 0));
  return {
    ...{ atMs: performance.now(), epoch, serialEnd: serialOffset, sentBytes: tcpBytesSent(pid) },
    cpuSeconds: processes.reduce((sum, each) => sum + cpuSeconds(each), 0),
  };
}

const consoleFrom = (host: DemoHost, from: number): Promise<ConsoleRead> =>
  host.client.vm<ConsoleRead>(VM, 'console-read', { from });

async function textOf(host: DemoHost, from: number, to: number): Promise<string> {
  const read = await consoleFrom(host, from);
  if (read.gap) throw new Error('the console no longer holds what the guest printed');
  return Buffer.from(read.bytes, 'base64')
    .subarray(0, to - from)
    .toString('latin1');
}

async function untilLoops(host: DemoHost): Promise<void> {
  const endAtMs = performance.now() + OUTPUT_MS_MAX;
  while ((await statusOf(host)).serialOffset < 100) {
    if (performance.now() > endAtMs) throw new Error('the guest of our pair prints nothing');
    await sleep(50);
  }
}

interface Takeover {
  readonly outputMs: number;
  readonly detectedMs: number;
}

async function takeOver(pool: DemoPool): Promise<Takeover> {
  await sleep(REST_MS + Math.random() * REST_MS);
  return killAndReturn(pool, firstOutput);
}

/**
 * What the standby had got of the owner's output does not count: the stream has to grow once the
 * VM runs on.
 */
async function firstOutput(standby: DemoHost, killedAtMs: number): Promise<Takeover> {
  let detectedMs = Number.NaN;
  let committedEnd = 0;
  let status: VmStatus | null = null;
  const sinceMs = (): number => performance.now() - killedAtMs;
  while (sinceMs() < OUTPUT_MS_MAX) {
    await sleep(POLL_MS);
    status = await statusOf(standby).catch(() => null);
    if (!status) continue;
    if (status.state === 'standby') committedEnd = status.serialOffset;
    else if (Number.isNaN(detectedMs)) detectedMs = sinceMs();
    if (status.lastTakeover && status.serialOffset > committedEnd)
      return { outputMs: sinceMs(), detectedMs };
  }
  throw new Error(`no output of a new owner, state ${status?.state}`);
}
