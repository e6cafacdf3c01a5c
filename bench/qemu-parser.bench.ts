/** How fast COLO's stream is read, against bare reads of the same bytes in the same run. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { whatQemuNeeds } from '../src/machine/qemu/qemu-host.js';
import { fdOf } from '../src/machine/qemu/ports.js';
import { ownFolder } from '../src/network/own-folder.js';
import { checkpoint } from './colo-stream.js';
import type { SinkData } from './colo-sink.js';
import { leftOut } from './peers.js';
import { median, type Row } from './row.js';

const SENDER = fileURLToPath(new URL('./colo-stream.js', import.meta.url));
const ROUNDS = 7;
/** About 400 MB a round; whether pages are many or few in a checkpoint. */
const CASES = [
  { pages: 500, checkpoints: 200 },
  { pages: 5_000, checkpoints: 20 },
];
const TARGET = { gbPerSecond: 1, shareOfSink: 0.65 };

export async function qemuParserBench(): Promise<Row[]> {
  if (leftOut('reading COLO', process.platform === 'linux' ? '' : whatQemuNeeds())) return [];
  const rows: Row[] = [];
  for (const { pages, checkpoints } of CASES) rows.push(...(await compare(pages, checkpoints)));
  return rows;
}

async function compare(pages: number, checkpoints: number): Promise<Row[]> {
  const bytes = checkpoint(pages).length * checkpoints;
  const speeds = { parser: [] as number[], sink: [] as number[] };
  for (let round = 0; round < ROUNDS; round += 1)
    for (const kind of ['sink', 'parser'] as const)
      speeds[kind].push(bytes / 1e6 / (await readMs({ kind, pages, checkpoints, bytes })));
  const [parser, sink] = [median(speeds.parser), median(speeds.sink)];
  const share = median(speeds.parser.map((speed, round) => speed / speeds.sink[round]));
  const least = Math.min(TARGET.gbPerSecond, TARGET.shareOfSink * sink);
  const name = `COLO reader, ${pages} whole pages a checkpoint`;
  return [
    {
      ...{ name, value: parser, unit: 'GB/s' },
      reference: `${(share * 100).toFixed(0)} % of a bare sink`,
      target: { atLeast: Number(least.toFixed(3)) },
    },
    { name: 'the same bytes dropped', value: sink, unit: 'GB/s' },
  ];
}

/** From the first byte on. */
async function readMs(task: Omit<SinkData, 'fd'>): Promise<number> {
  const dir = ownFolder('bench');
  const path = join(dir, 'stream.sock');
  const server = createServer({ pauseOnConnect: true });
  server.listen(path);
  await once(server, 'listening');
  const connected = once(server, 'connection') as Promise<[Socket]>;
  const args = [SENDER, path, String(task.pages), String(task.checkpoints)];
  const sender = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  try {
    const [socket] = await connected;
    const workerData: SinkData = { ...task, fd: fdOf(socket) };
    const worker = new Worker(new URL('./colo-sink.js', import.meta.url), { workerData });
    const [ms] = (await once(worker, 'message')) as [number];
    socket.destroy();
    return ms;
  } finally {
    sender.kill('SIGKILL');
    server.close();
    rmSync(dir, { recursive: true, force: true });
  }
}
