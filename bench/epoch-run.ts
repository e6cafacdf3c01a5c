/** Epochs of a machine as its VM process makes them, but for the wire; measured from outside. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readFileSync } from 'node:fs';
import { Encoder } from '../src/checkpoint/encoder.js';
import type { CaptureBuffer, Machine, PageRange } from '../src/machine/machine.js';

const FIRST_OUTPUT_MS_MAX = 30_000;
const WARM_UP_MS = 1_500;

export interface Epoch {
  /** How long the VM stood still, by QEMU's own STOP and RESUME. */
  stillMs: number;
  /** From `pause()` called to where the VM is known to go on. */
  pauseMs: number;
  findMs: number;
  copyMs: number;
  dirtyPages: number;
  /** Since then. */
  encodedMs: number;
  wireBytes: number;
}

const NOTHING: Epoch = {
  ...{ stillMs: Number.NaN, pauseMs: Number.NaN, findMs: Number.NaN, copyMs: Number.NaN },
  ...{ dirtyPages: Number.NaN, encodedMs: Number.NaN, wireBytes: Number.NaN },
};

export interface EpochRun {
  readonly epochs: Epoch[];
  readonly seconds: number;
  /** What this process has read from QEMU, about. */
  readonly readBytes: number;
  /** What the guest printed meanwhile. */
  readonly printed: string;
}

export interface Cadence {
  readonly epochMs: number;
  readonly forMs: number;
}

/** Resumes a machine, and waits for the first that its guest prints. */
export async function untilOutput(machine: Machine): Promise<void> {
  const said = new Promise<void>((resolve) => {
    machine.serial.onBytes = () => resolve();
  });
  machine.resume();
  const late = sleep(FIRST_OUTPUT_MS_MAX, 'late', { ref: false });
  const failed = new Promise<never>((_resolve, reject) => {
    machine.onFailure = reject;
  });
  if ((await Promise.race([said, late, failed])) === 'late')
    throw new Error(`the guest says nothing within ${FIRST_OUTPUT_MS_MAX} ms`);
}

/** Of a machine that runs, and goes on doing so. */
export async function runEpochs(machine: Machine, cadence: Cadence): Promise<EpochRun> {
  const driver = machine.info.captureDriver.name;
  const encoder = await Encoder.create(machine.info.pageCount);
  const loop = new Loop(machine, encoder);
  try {
    await loop.epoch({ from: 0, count: machine.info.pageCount });
    await loop.run({ ...cadence, forMs: WARM_UP_MS });
    let printed = '';
    machine.serial.onBytes = (bytes) => {
      printed += Buffer.from(bytes).toString('latin1');
    };
    const [startedAtMs, readBefore] = [performance.now(), bytesRead()];
    const epochs = await loop.run(cadence);
    const seconds = (performance.now() - startedAtMs) / 1_000;
    const readBytes = bytesRead() - readBefore;
    // How long the last took is told by an event.
    await sleep(cadence.epochMs);
    const { name, why } = machine.info.captureDriver;
    if (name !== driver) throw new Error(`captured by ${name} in the end: ${why}`);
    return { epochs, seconds, readBytes, printed };
  } finally {
    await encoder.close();
  }
}

class Loop {
  private readonly machine: Machine;
  private readonly encoder: Encoder;
  private number = 0;
  private latest: Epoch = { ...NOTHING };

  constructor(machine: Machine, encoder: Encoder) {
    this.machine = machine;
    this.encoder = encoder;
    machine.onStill = (ms) => {
      this.latest.stillMs = ms;
    };
  }

  /** Each `epochMs` after the one before began, or as soon as can be. */
  async run({ epochMs, forMs }: Cadence): Promise<Epoch[]> {
    const epochs: Epoch[] = [];
    const encoding: Promise<void>[] = [];
    const endAtMs = performance.now() + forMs;
    let dueAtMs = performance.now();
    for (;;) {
      dueAtMs = Math.max(dueAtMs + epochMs, performance.now());
      if (dueAtMs > endAtMs) break;
      await sleep(Math.max(0, dueAtMs - performance.now()));
      const { epoch, encoded } = await this.epoch(null);
      epochs.push(epoch);
      encoding.push(encoded);
    }
    await Promise.all(encoding);
    return epochs;
  }

  async epoch(also: PageRange | null): Promise<{ epoch: Epoch; encoded: Promise<void> }> {
    const { machine, encoder } = this;
    const slot = await this.freeSlot();
    this.number += 1;
    const epoch = { ...NOTHING };
    this.latest = epoch;
    const calledAtMs = performance.now();
    await machine.pause();
    const captured = await machine.capture(slot, also, true);
    if (!captured.goesOn) machine.resume();
    const goesOnAtMs = performance.now();
    epoch.pauseMs = goesOnAtMs - calledAtMs;
    epoch.findMs = captured.findMs;
    epoch.copyMs = captured.copyMs;
    epoch.dirtyPages = captured.dirtyPageCount;
    const encoded = encoder
      .encode(slot, 1, this.number, this.number === 1, () => {})
      .then(({ wireBytes }) => {
        epoch.encodedMs = performance.now() - goesOnAtMs;
        epoch.wireBytes = wireBytes;
      });
    return { epoch, encoded };
  }

  private async freeSlot(): Promise<CaptureBuffer> {
    for (;;) {
      const slot = this.encoder.takeSlot(this.machine.info.pageCount);
      if (slot) return slot;
      await sleep(1);
    }
  }
}

/** By `read(2)`, sockets included, in all threads. */
function bytesRead(): number {
  return Number(/^rchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]);
}
