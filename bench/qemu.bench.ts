/** The epoch loop with a stock QEMU on KVM: how long its VM stands still, and what epochs cost. */
import type { MachineSpec } from '../src/machine/machine.js';
import { QemuMachine, type QemuOptions } from '../src/machine/qemu/qemu-machine.js';
import { runEpochs, untilOutput, type EpochRun } from './epoch-run.js';
import { leftOut, loopsIn, tinyKernel, whatTinyNeeds, type TinyPages } from './peers.js';
import { median, percentile, type Row } from './row.js';

const MEASURE_MS = Number(process.env['MIRROR_QEMU_SECONDS'] ?? 6) * 1_000;

interface Case {
  readonly pages: TinyPages;
  readonly memoryMb: number;
  readonly epochMs: number;
  readonly xbzrle?: boolean;
  readonly pauseMsMax?: number;
}

const CASES: Case[] = [
  { pages: 16, memoryMb: 256, epochMs: 25, pauseMsMax: 0.6 },
  { pages: 500, memoryMb: 256, epochMs: 25, xbzrle: true, pauseMsMax: 1 },
  { pages: 500, memoryMb: 256, epochMs: 25, xbzrle: false, pauseMsMax: 1 },
  { pages: 5_000, memoryMb: 256, epochMs: 100, pauseMsMax: 15 },
  { pages: 16, memoryMb: 1_024, epochMs: 25 },
  { pages: 500, memoryMb: 1_024, epochMs: 25 },
  { pages: 5_000, memoryMb: 1_024, epochMs: 100 },
];

export async function qemuBench(): Promise<Row[]> {
  if (leftOut('epochs of QEMU on KVM', whatTinyNeeds())) return [];
  const rows: Row[] = [];
  for (const each of CASES) rows.push(...(await measured(each)));
  return rows;
}

export function tinySpec(pages: TinyPages, memoryMb: number): MachineSpec {
  const kernel = tinyKernel(pages);
  return { memoryBytes: memoryMb << 20, kernel, initrd: null, cmdline: '', nics: [], disks: [] };
}

export const KVM: QemuOptions = {
  accelerator: 'kvm',
  driver: { name: 'colo', why: 'a bench' },
};

async function measured(each: Case): Promise<Row[]> {
  const { pages, memoryMb, epochMs, xbzrle } = each;
  const options = xbzrle === undefined ? KVM : { ...KVM, xbzrle };
  const machine = await QemuMachine.create(tinySpec(pages, memoryMb), options);
  try {
    await machine.boot();
    await untilOutput(machine);
    return rowsOf(each, await runEpochs(machine, { epochMs, forMs: MEASURE_MS }));
  } finally {
    await machine.stop();
  }
}

function nameOf({ pages, memoryMb, xbzrle }: Case): string {
  const how = xbzrle === undefined ? '' : xbzrle ? ' xbzrle' : ' no xbzrle';
  return `kvm ${memoryMb} MB ${pages} pages${how}`;
}

function rowsOf(each: Case, run: EpochRun): Row[] {
  const { epochs, seconds } = run;
  const of = (pick: (epoch: (typeof epochs)[number]) => number): number[] => epochs.map(pick);
  const stillMs = of((epoch) => epoch.stillMs);
  const pauses = of(({ pauseMs }) => pauseMs);
  const encoded = of(({ encodedMs }) => encodedMs);
  const target = each.pauseMsMax === undefined ? {} : { target: { atMost: each.pauseMsMax } };
  const copy = median(of(({ copyMs }) => copyMs)).toFixed(3);
  const dirty = median(of(({ dirtyPages }) => dirtyPages));
  const asked = (1_000 / each.epochMs).toFixed(0);
  const longest = (values: number[]): string => `longest ${Math.max(...values).toFixed(2)}`;
  const rows: Row[] = [
    { ...row('stood still p50', median(stillMs), 'ms', longest(stillMs)), ...target },
    row('stood still p99', percentile(stillMs, 0.99), 'ms'),
    row('pause to resume p50', median(pauses), 'ms', longest(pauses)),
    row('pause to resume p99', percentile(pauses, 0.99), 'ms'),
    row('finding', median(of(({ findMs }) => findMs)), 'ms', `copying ${copy}, ${dirty} pages`),
    row('epochs', epochs.length / seconds, '/s', `${asked} asked`),
    row('from QEMU', run.readBytes / epochs.length / 1_000, 'KB an epoch'),
    row('captured to encoded p50', median(encoded), 'ms', longest(encoded)),
    row('encoded', median(of(({ wireBytes }) => wireBytes)) / 1_000, 'KB an epoch', 'median'),
    row('guest', loopsIn(run.printed) / seconds, 'loops/s'),
  ];
  return rows.map((found) => ({ ...found, name: `${nameOf(each)}: ${found.name}` }));
}

function row(name: string, value: number, unit: string, reference?: string): Row {
  return { name, value, unit, ...(reference === undefined ? {} : { reference }) };
}
