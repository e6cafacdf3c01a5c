/**
 * How far the wall clock of a Linux on QEMU is from the host's while it is stopped for an epoch
 * every 25 ms. The pauses are lost to it; a keeper in the guest gives them back.
 */
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsoleRead } from '../src/cli/console.js';
import type { DemoHost } from '../src/cli/demo-pool.js';
import { TypedInput } from '../src/cli/typed-input.js';
import { onStage, statusOf, VM, type BenchVm } from './bench-pool.js';
import { linuxGuest, whatLinuxOnQemuNeeds } from './linux-guest.js';
import { leftOut } from './peers.js';
import { median, percentile, type Row } from './row.js';

/** MIRROR_CLOCK_MINUTES=10 measures for that long. */
const MINUTES = Number(process.env['MIRROR_CLOCK_MINUTES'] ?? 0.5);
/** Of the guest's keeper, which looks every few seconds. */
const SETTLE_MS = 30_000;
const POLL_MS = 5;
const PROMPT_MS_MAX = 120_000;
/** Prints the guest's time twice a second, as seconds and microseconds since 1970. */
const COMMAND =
  'while :; do adjtimex | awk \'/tv_sec/{s=$NF} /tv_usec/{printf "at %d.%06d\\n", s, $NF}\'; ' +
  'usleep 500000; done\n';

export async function clockQemuBench(): Promise<Row[]> {
  if (leftOut('the clock of Linux on QEMU', whatLinuxOnQemuNeeds())) return [];
  const { kernel, initrd, cmdline } = await linuxGuest();
  const vm: BenchVm = {
    ...{ memory: '160MiB', epoch: '25ms', engine: 'qemu', nic: false },
    ...{ boot: { kernel, initrd }, cmdline },
  };
  return onStage(vm, async ({ pool }) => {
    const [owner] = pool.hosts;
    const behindMs = await watch(owner, MINUTES * 60_000);
    return rowsOf(behindMs, (await statusOf(owner)).guestClockLagMs);
  });
}

/** What the guest says it is, against what it is here when that is seen. */
async function watch(host: DemoHost, forMs: number): Promise<number[]> {
  const serial = new SerialLine(host);
  await serial.until('mirror# ', PROMPT_MS_MAX);
  serial.keyboard.write(COMMAND);
  await serial.until('\nat ', PROMPT_MS_MAX);
  await sleep(SETTLE_MS);
  await serial.read();
  const behindMs: number[] = [];
  const endAtMs = performance.now() + forMs;
  while (performance.now() < endAtMs) {
    const seen = [...(await serial.read()).matchAll(/^at (\d+\.\d{6})\r$/gm)].at(-1);
    if (seen) behindMs.push(Date.now() - Number(seen[1]) * 1_000);
    await sleep(POLL_MS);
  }
  return behindMs;
}

class SerialLine {
  readonly keyboard = new PassThrough();
  private readonly host: DemoHost;
  private readonly typed: TypedInput;
  private from = 0;

  constructor(host: DemoHost) {
    this.host = host;
    this.typed = new TypedInput(host.client, VM, this.keyboard);
  }

  /** What is new. */
  async read(): Promise<string> {
    await this.typed.send();
    const read = await this.host.client.vm<ConsoleRead>(VM, 'console-read', { from: this.from });
    const bytes = Buffer.from(read.bytes, 'base64');
    this.from = read.offset + bytes.length;
    return bytes.toString('latin1');
  }

  async until(wanted: string, msMax: number): Promise<void> {
    const endAtMs = performance.now() + msMax;
    for (let text = ''; !text.includes(wanted); text += await this.read()) {
      if (performance.now() > endAtMs) throw new Error(`the guest has not said ${wanted}: ${text}`);
      await sleep(POLL_MS);
    }
  }
}

/** What is seen is late by the commit of its epoch: half an epoch and a round trip, or so. */
function rowsOf(behindMs: readonly number[], lostMs: number): Row[] {
  const name = `guest clock of Linux on QEMU, ${MINUTES} minutes at 25 ms epochs`;
  const off = behindMs.map(Math.abs);
  return [
    {
      ...{ name: `${name}: behind, median`, value: median(behindMs), unit: 'ms' },
      reference: `${behindMs.length} looks; pauses took ${(lostMs / 1_000).toFixed(1)} s in all`,
    },
    { name: `${name}: off, p90`, value: percentile(off, 0.9), unit: 'ms' },
    { name: `${name}: off, most`, value: Math.max(...off), unit: 'ms' },
  ];
}
