/**
 * COLO as long as it works, comparing from then on. A failure of COLO costs the epoch in which it
 * shows: that capture fails and says why, for which pages changed is not known any more.
 */
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureBuffer } from '../machine.js';
import type { CaptureDriver, CaptureOrder, DriverCapture } from './capture-driver.js';
import type { CaptureThread } from './capture-thread.js';
import { ColoDriver } from './colo-driver.js';
import type { QemuProcess } from './qemu-process.js';
import { SavedevDriver } from './savedev-driver.js';

export class FallbackDriver implements CaptureDriver {
  private readonly qemu: QemuProcess;
  private readonly comparing: () => Promise<CaptureThread>;
  private driver: ColoDriver | SavedevDriver;
  /** Told by the next capture. */
  private lost: Error | null = null;

  /** `comparing` starts a worker that finds pages by comparing. */
  constructor(qemu: QemuProcess, colo: ColoDriver, comparing: () => Promise<CaptureThread>) {
    this.qemu = qemu;
    this.driver = colo;
    this.comparing = comparing;
  }

  get name(): CaptureDriver['name'] {
    return this.driver.name;
  }

  get why(): string {
    return this.driver.why;
  }

  restart(): Promise<void> {
    return this.driver.restart();
  }

  async stop(): Promise<void> {
    try {
      await this.driver.stop();
    } catch (error) {
      this.lost = await this.fallBack(error);
    }
  }

  async capture(into: CaptureBuffer, order: CaptureOrder): Promise<DriverCapture> {
    const { lost } = this;
    this.lost = null;
    if (lost) throw lost;
    try {
      return await this.driver.capture(into, order);
    } catch (error) {
      if (error instanceof CaptureOverflow) throw error;
      throw await this.fallBack(error);
    }
  }

  async cont(): Promise<void> {
    try {
      await this.driver.cont();
    } catch (error) {
      this.lost = await this.fallBack(error);
      await this.driver.cont();
    }
  }

  close(): Promise<void> {
    return this.driver.close();
  }

  /** The VM stands still afterwards. Returns why; throws if there is no way on. */
  private async fallBack(cause: unknown): Promise<Error> {
    const error = cause instanceof Error ? cause : new Error(String(cause));
    if (this.driver instanceof SavedevDriver) throw error;
    await this.driver.leave();
    this.driver = new SavedevDriver(this.qemu, this.comparing(), `COLO failed: ${error.message}`);
    await this.driver.restart();
    return error;
  }
}
