/**
 * A takeover of a QEMU machine alone, nothing around it: from the decision to the first that its
 * guest prints. Warm: its standby was got ready before; cold: nothing was.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { builtinKernel } from '../src/guest/builtin.js';
import { PAGE_BYTES, type CaptureBuffer, type Machine } from '../src/machine/machine.js';
import type { MachineSpec } from '../src/machine/machine.js';
import { QemuMachine, type QemuOptions } from '../src/machine/qemu/qemu-machine.js';
import { whatQemuNeeds } from '../src/machine/qemu/qemu-host.js';
import { untilOutput } from './epoch-run.js';
import { leftOut, whatTinyNeeds } from './peers.js';
import { KVM, tinySpec } from './qemu.bench.js';
import { median, percentile, type Row } from './row.js';

const RUNS = Number(process.env['MIRROR_TAKEOVERS'] ?? 20);
/** What a guest prints first may be that it sets itself up. */
const AT_WORK_MS = 500;
const TARGET_MS = { warm: 25, cold: 400 };
const TCG: QemuOptions = { accelerator: 'tcg', driver: { name: 'savedev', why: 'a bench' } };

export async function qemuTakeoverBench(): Promise<Row[]> {
  const rows: Row[] = [];
  if (!leftOut('takeovers on TCG', whatQemuNeeds()))
    rows.push(...(await takeovers('tcg, built-in guest', builtinSpec(), TCG)));
  if (!leftOut('takeovers on KVM', whatTinyNeeds()))
    rows.push(...(await takeovers('kvm, small guest', tinySpec(16, 256), KVM)));
  return rows;
}

function builtinSpec(): MachineSpec {
  const cmdline = 'tick=2 dirty=256 pattern=sparse';
  const kernel = builtinKernel();
  return { memoryBytes: 256 << 20, kernel, initrd: null, cmdline, nics: [], disks: [] };
}

/** What a standby has of its owner. */
interface Image {
  readonly spec: MachineSpec;
  readonly options: QemuOptions;
  readonly pages: CaptureBuffer;
}

async function takeovers(name: string, spec: MachineSpec, options: QemuOptions): Promise<Row[]> {
  const pages = await imageOf(spec, options);
  const tookMs = { warm: [] as number[], cold: [] as number[] };
  for (let run = 0; run < RUNS; run += 1)
    for (const kind of ['warm', 'cold'] as const)
      tookMs[kind].push(await takeOver({ spec, options, pages }, kind));
  return (['warm', 'cold'] as const).map((kind) => ({
    ...{ name: `takeover, ${name}, ${kind}: p50`, value: median(tookMs[kind]), unit: 'ms' },
    reference: `p99 ${percentile(tookMs[kind], 0.99).toFixed(1)}, ${RUNS} runs`,
    target: { atMost: TARGET_MS[kind] },
  }));
}

/** All memory and the devices of a guest that has been at work for a while. */
async function imageOf(spec: MachineSpec, options: QemuOptions): Promise<CaptureBuffer> {
  const machine = await QemuMachine.create(spec, options);
  const { pageCount } = machine.info;
  const pages: CaptureBuffer = {
    pageIndices: new Uint32Array(new SharedArrayBuffer(pageCount * 4)),
    pageBytes: new Uint8Array(new SharedArrayBuffer(pageCount * PAGE_BYTES)),
    pageCount: 0,
    deviceState: new Uint8Array(0),
  };
  try {
    await machine.boot();
    await untilOutput(machine);
    await sleep(AT_WORK_MS);
    await machine.pause();
    await machine.capture(pages, { from: 0, count: pageCount });
    return pages;
  } finally {
    await machine.stop();
  }
}

async function takeOver({ spec, options, pages }: Image, kind: 'warm' | 'cold'): Promise<number> {
  const machine = await QemuMachine.create(spec, options);
  try {
    apply(pages, machine);
    if (kind === 'warm') await machine.standBy();
    const decidedAtMs = performance.now();
    await machine.restore(pages.deviceState);
    await untilOutput(machine);
    const tookMs = performance.now() - decidedAtMs;
    // Its capture driver may still be on its way.
    await machine.pause();
    return tookMs;
  } finally {
    await machine.stop();
  }
}

function apply({ pageIndices, pageBytes, pageCount }: CaptureBuffer, standby: Machine): void {
  const { memory, offset, bytes } = standby.ram;
  const ram = new Uint8Array(memory.buffer, offset, bytes);
  for (let index = 0; index < pageCount; index += 1) {
    const page = pageBytes.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
    ram.set(page, pageIndices[index] * PAGE_BYTES);
  }
}
