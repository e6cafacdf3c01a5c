/**
 * An idle Linux under TCG, whose dirty pages are found by comparing: how long it stands still for
 * all but that, and for that.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { QemuMachine } from '../src/machine/qemu/qemu-machine.js';
import { kvmIsUsable } from '../src/machine/qemu/qemu-host.js';
import { runEpochs, untilOutput, type EpochRun } from './epoch-run.js';
import { linuxGuest, whatLinuxOnQemuNeeds } from './linux-guest.js';
import { leftOut } from './peers.js';
import { median, percentile, type Row } from './row.js';

const MEMORY_MB = 256;
const EPOCH_MS = 50;
const MEASURE_MS = Number(process.env['MIRROR_QEMU_SECONDS'] ?? 10) * 1_000;
const BOOT_MS_MAX = 120_000;
const SETTLE_MS = 3_000;

export async function qemuIdleBench(): Promise<Row[]> {
  if (leftOut('an idle Linux', whatLinuxOnQemuNeeds())) return [];
  const { kernel, initrd, cmdline } = await linuxGuest();
  const spec = {
    ...{ memoryBytes: MEMORY_MB << 20, cmdline, nics: [], disks: [] },
    ...{ kernel: readFileSync(kernel), initrd: readFileSync(initrd) },
  };
  const accelerator = kvmIsUsable() ? 'kvm' : 'tcg';
  const machine = await QemuMachine.create(spec, {
    accelerator,
    driver: { name: 'savedev', why: 'a bench' },
  });
  try {
    await machine.boot();
    await untilPrompt(machine);
    await sleep(SETTLE_MS);
    const run = await runEpochs(machine, { epochMs: EPOCH_MS, forMs: MEASURE_MS });
    return rowsOf(`${accelerator} Linux ${MEMORY_MB} MB idle`, run);
  } finally {
    await machine.stop();
  }
}

async function untilPrompt(machine: QemuMachine): Promise<void> {
  let text = '';
  await untilOutput(machine);
  machine.serial.onBytes = (bytes) => {
    text += Buffer.from(bytes).toString('latin1');
  };
  const endAtMs = performance.now() + BOOT_MS_MAX;
  while (!text.includes('mirror# ')) {
    if (performance.now() > endAtMs) throw new Error(`no prompt of Linux:\n${text}`);
    await sleep(50);
  }
}

/** Devices are saved while pages are looked for: what is left of a pause is all but the finding. */
function rowsOf(name: string, { epochs, seconds }: EpochRun): Row[] {
  const restMs = epochs.map(({ stillMs, findMs }) => stillMs - findMs);
  const stillMs = epochs.map((epoch) => epoch.stillMs);
  const findMs = epochs.map((epoch) => epoch.findMs);
  const pages = median(epochs.map(({ dirtyPages }) => dirtyPages));
  const longest = (values: number[]): string => `longest ${Math.max(...values).toFixed(2)}`;
  const row = (what: string, value: number, unit = 'ms', reference = ''): Row => ({
    ...{ name: `${name}: ${what}`, value, unit },
    ...(reference === '' ? {} : { reference }),
  });
  return [
    { ...row('pause less finding p50', median(restMs), 'ms', longest(restMs)), ...most(1) },
    row('pause less finding p99', percentile(restMs, 0.99)),
    { ...row('finding p50', median(findMs), 'ms', longest(findMs)), ...most(35) },
    row('finding p99', percentile(findMs, 0.99)),
    row('stood still p50', median(stillMs), 'ms', `${pages} pages in the median epoch`),
    row('stood still p99', percentile(stillMs, 0.99)),
    row('epochs', epochs.length / seconds, '/s', `${1_000 / EPOCH_MS} asked`),
  ];
}

const most = (atMost: number): Pick<Row, 'target'> => ({ target: { atMost } });
