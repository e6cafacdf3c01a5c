/** How far the guest's clock lags while it is stopped for an epoch every 25 ms. */
import { setTimeout as sleep } from 'node:timers/promises';
import { onStage, statusOf, TickReader } from './bench-pool.js';
import { median, type Row } from './row.js';

/** The target is for ten minutes; MIRROR_CLOCK_MINUTES=10 measures just that. */
const MINUTES = Number(process.env['MIRROR_CLOCK_MINUTES'] ?? 0.5);
const SAMPLE_EVERY_MS = 500;
const LAST_SAMPLES = 40;
const VM_OPTIONS = { memory: '64MiB', epoch: '25ms', cmdline: 'tick=10 dirty=256 pattern=sparse' };

export function clockBench(): Promise<Row[]> {
  return onStage(VM_OPTIONS, async ({ pool }) => {
    const ticks = new TickReader(pool);
    const behindMs = async (): Promise<number> => {
      const { timeMs } = await ticks.read();
      return performance.now() - timeMs;
    };
    const first = await behindMs();
    const lags: number[] = [];
    const endAt = performance.now() + MINUTES * 60_000;
    while (performance.now() < endAt) {
      await sleep(SAMPLE_EVERY_MS);
      lags.push((await statusOf(pool.hosts[0])).guestClockLagMs);
      await behindMs();
    }
    const last: number[] = [];
    for (let i = 0; i < LAST_SAMPLES; i += 1) {
      await sleep(20);
      last.push(await behindMs());
    }
    return [
      {
        ...{ name: 'guest clock lag, median', value: median(lags), unit: 'ms' },
        ...{ reference: `${MINUTES} minutes at 25 ms epochs`, target: { atMost: 50 } },
      },
      {
        ...{
          name: 'guest clock behind, seen from outside',
          value: median(last) - first,
          unit: 'ms',
        },
        ...{ reference: 'end against start, by the ticks', target: { atMost: 50 } },
      },
    ];
  });
}
