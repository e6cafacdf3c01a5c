/** Two stock QEMUs in COLO, by a script that is not ours, which prints one JSON object. */
import { execFile } from 'node:child_process';
import type { PairFigures, PairTask } from './pair-figures.js';
import { COLO_PAIR } from './peers.js';

const RUN_MS_MAX = 180_000;
const OUTPUT_BYTES_MAX = 4 << 20;

interface Printed {
  readonly ok: boolean;
  readonly reason?: string;
  readonly pause_ms: { readonly p50: number; readonly p99: number };
  readonly checkpoints_per_s: number;
  readonly guest_loops_per_s: number;
  readonly bytes_per_checkpoint: { readonly mean: number };
  readonly cpu_s_per_s: { readonly both: number };
  readonly failover: { readonly each: { ok: boolean; first_serial_ms: number }[] };
}

export async function rivalPair(task: PairTask): Promise<PairFigures> {
  const { pages, epochMs, seconds, kills } = task;
  const text = await output([
    ...[COLO_PAIR, '--net', 'quickack', '--limit', '0', '--pages', String(pages)],
    ...['--delay', String(epochMs), '--seconds', String(seconds), '--failovers', String(kills)],
  ]);
  const told = JSON.parse(text) as Printed;
  if (told.reason !== undefined) throw new Error(`the COLO pair: ${told.reason}`);
  return {
    pauseP50Ms: told.pause_ms.p50,
    pauseP99Ms: told.pause_ms.p99,
    epochsPerSecond: told.checkpoints_per_s,
    loopsPerSecond: told.guest_loops_per_s,
    bytesPerEpoch: told.bytes_per_checkpoint.mean,
    cpuSeconds: told.cpu_s_per_s.both,
    outputMs: told.failover.each.filter(({ ok }) => ok).map((each) => each.first_serial_ms),
    detectedMs: 0,
  };
}

/** A failover that did not work is told in the output, and by the exit code. */
function output(args: readonly string[]): Promise<string> {
  const options = { timeout: RUN_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      if (stdout.startsWith('{')) resolve(stdout);
      else reject(new Error(`the COLO pair failed: ${stderr}`, { cause: error }));
    });
  });
}
