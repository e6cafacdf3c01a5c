/**
 * Stops and continues the VM by QMP, finds its dirty pages by comparing, saves its devices to a
 * file: works with every accelerator.
 */
import type { CaptureBuffer } from '../machine.js';
import type { CaptureDriver, CaptureOrder, DriverCapture } from './capture-driver.js';
import { CaptureThread } from './capture-thread.js';
import { onceUnlocked } from './disk-lock.js';
import type { QemuProcess } from './qemu-process.js';
import { saveDevices } from './saved-devices.js';

export class SavedevDriver implements CaptureDriver {
  readonly name = 'savedev';
  readonly why: string;
  private readonly qemu: QemuProcess;
  private readonly tracker: Promise<CaptureThread>;
  private ready: Promise<void>;

  constructor(qemu: QemuProcess, tracker: Promise<CaptureThread>, why: string) {
    this.why = why;
    this.qemu = qemu;
    this.tracker = tracker;
    this.ready = tracker.then(() => {});
    this.ready.catch(() => {});
  }

  /** Does not wait: a takeover need not, for the VM may run meanwhile. */
  restart(): Promise<void> {
    this.ready = this.tracker.then((tracker) => tracker.restart());
    this.ready.catch(() => {});
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    await this.qemu.qmp.execute('stop');
  }

  async capture(into: CaptureBuffer, { also }: CaptureOrder): Promise<DriverCapture> {
    await this.ready;
    const tracker = await this.tracker;
    const [found, devices] = await Promise.all([
      tracker.take(into, { also, andGoOn: false, audit: false }),
      saveDevices(this.qemu),
    ]);
    return { ...found, devices };
  }

  async cont(): Promise<void> {
    await onceUnlocked(() => this.qemu.qmp.execute('cont'));
  }

  async close(): Promise<void> {
    await (await this.tracker.catch(() => null))?.close();
  }
}
