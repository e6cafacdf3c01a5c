/**
 * Whether a way of capture works with the QEMU and the kernel of this host: a small guest runs a
 * few epochs, and the copy that captures alone made is compared with its memory.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_BYTES, type CaptureBuffer, type MachineSpec } from '../machine.js';
import type { Accelerator } from './qemu-args.js';
import { QemuError } from './qemu-error.js';
import { QemuMachine } from './qemu-machine.js';

const MEMORY_BYTES = 16 << 20;
const PAGES = MEMORY_BYTES / PAGE_BYTES;
const EPOCHS = 12;
const EPOCH_MS = 15;
/** A software KVM takes seconds for the firmware. */
const BOOT_MS_MAX = 20_000;
const LOOK_MS = 10;
/** Told on qemu-devel in January 2026, when its removal was discussed. */
const COLO_BROKEN = /^10\.[01]\./;

/** `kernel`: of the built-in guest, which writes memory and a line to its serial port each tick. */
export async function selfTest(
  accelerator: Accelerator,
  name: 'colo' | 'savedev',
  kernel: Uint8Array,
): Promise<void> {
  const spec: MachineSpec = {
    ...{ memoryBytes: MEMORY_BYTES, kernel, initrd: null, nics: [], disks: [] },
    cmdline: 'tick=10 dirty=16 pattern=sparse',
  };
  const driver = { name, why: 'self-test' };
  const machine = await QemuMachine.create(spec, { accelerator, driver });
  try {
    await rehearse(machine);
  } finally {
    await machine.stop();
  }
}

async function rehearse(machine: QemuMachine): Promise<void> {
  let lines = '';
  let failure: Error | null = null;
  machine.serial.onBytes = (bytes) => {
    lines += Buffer.from(bytes).toString('latin1');
  };
  machine.onFailure = (error) => {
    failure = error;
  };
  await machine.boot();
  const { name } = machine.info.captureDriver;
  if (name === 'colo' && COLO_BROKEN.test(machine.version))
    throw new QemuError('SELF_TEST', `COLO does not work in QEMU ${machine.version}`);
  const copy = new Copy();
  await machine.capture(copy.buffer, { from: 0, count: PAGES });
  copy.apply();
  machine.resume();
  const endAt = Date.now() + BOOT_MS_MAX;
  while (!lines.includes('tick n=1 ')) {
    if (failure) throw failure;
    if (Date.now() > endAt) throw new QemuError('SELF_TEST', 'its guest does not come up');
    await sleep(LOOK_MS);
  }
  await machine.pause();
  for (let epoch = 0; epoch <= EPOCHS; epoch += 1) {
    const goOn = epoch % 2 === 1;
    const { goesOn } = await machine.capture(copy.buffer, null, goOn);
    copy.apply();
    if (!goOn) copy.compare(machine, epoch);
    if (epoch === EPOCHS) break;
    if (!goesOn) machine.resume();
    await sleep(EPOCH_MS);
    await machine.pause();
  }
  if (machine.info.captureDriver.why !== 'self-test')
    throw new QemuError('SELF_TEST', machine.info.captureDriver.why);
  if (lines.includes('FAULT')) throw new QemuError('SELF_TEST', 'its guest found memory damaged');
}

class Copy {
  readonly buffer: CaptureBuffer = {
    pageIndices: new Uint32Array(new SharedArrayBuffer(PAGES * 4)),
    pageBytes: new Uint8Array(new SharedArrayBuffer(MEMORY_BYTES)),
    pageCount: 0,
    deviceState: new Uint8Array(0),
  };
  private readonly bytes = Buffer.alloc(MEMORY_BYTES);

  apply(): void {
    const { pageIndices, pageBytes, pageCount } = this.buffer;
    for (let i = 0; i < pageCount; i += 1) {
      const page = pageBytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      this.bytes.set(page, pageIndices[i] * PAGE_BYTES);
    }
  }

  compare({ ram }: QemuMachine, epoch: number): void {
    const memory = Buffer.from(ram.memory.buffer, ram.offset, ram.bytes);
    if (memory.equals(this.bytes)) return;
    const at = memory.findIndex((byte, i) => byte !== this.bytes[i]);
    const page = Math.floor(at / PAGE_BYTES);
    throw new QemuError('SELF_TEST', `page ${page} was missed in epoch ${epoch}`);
  }
}
