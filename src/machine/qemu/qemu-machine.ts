/**
 * A stock QEMU as a machine. Its RAM is a file in memory that we map as well: a standby writes
 * committed pages straight into it, a capture compares and copies in place. The VM is stopped and
 * continued by a capture driver; device states go back in by a migration stream without RAM.
 */
import { connect } from 'node:net';
import { join } from 'node:path';
import { MirrorError } from '../../core/errors.js';
import type {
  CaptureBuffer,
  CaptureResult,
  Machine,
  MachineInfo,
  MachineSpec,
  PageRange,
} from '../machine.js';
import { MachineStateError } from '../machine-state-error.js';
import { PAGE_BYTES } from '../machine.js';
import type { CaptureDriver } from './capture-driver.js';
import { CaptureThread } from './capture-thread.js';
import { ColoDriver } from './colo-driver.js';
import { takeImagesBack } from './disk-lock.js';
import { decodeDeviceImage, encodeDeviceImage } from './device-image.js';
import { FallbackDriver } from './fallback-driver.js';
import {
  forgetMigration,
  migrated,
  restoreStream,
  setIgnoreShared,
  takeTemplate,
} from './migration-stream.js';
import { drain, QemuNic, QemuSerial } from './ports.js';
import { isLinux, isMultiboot, type Accelerator, type Role } from './qemu-args.js';
import { QemuError } from './qemu-error.js';
import { QemuProcess } from './qemu-process.js';
import type { QmpEvent } from './qmp-client.js';
import { RamFile } from './ram-file.js';
import type { FoundBy } from './ram-tracker.js';
import { SavedevDriver } from './savedev-driver.js';
import { StillWatch } from './still-watch.js';
import { VcpuWork } from './vcpu-work.js';

type Phase = 'created' | 'paused' | 'running' | 'stopped';

export interface QemuOptions {
  readonly accelerator: Accelerator;
  /** `colo` needs KVM. */
  readonly driver: { readonly name: CaptureDriver['name']; readonly why: string };
  /** For COLO, see `ColoOptions`: on unless told. */
  readonly xbzrle?: boolean;
  /** For COLO: none unless told. Comparing looks at all of memory anyway. */
  readonly auditEvery?: number;
}

export class QemuMachine implements Machine {
  readonly serial = new QemuSerial();
  readonly nics: readonly QemuNic[];
  onPowerOff: (() => void) | null = null;
  onFailure: ((error: Error) => void) | null = null;
  onStill: ((ms: number) => void) | null = null;

  private readonly spec: MachineSpec;
  private readonly options: QemuOptions;
  private readonly file: RamFile;
  private qemu: QemuProcess | null = null;
  private standingBy: Promise<QemuProcess> | null = null;
  private thread: Promise<CaptureThread> | null = null;
  private driver: CaptureDriver | null = null;
  /** The last `cont`, under way or done. */
  private continuing: Promise<void> = Promise.resolve();
  private still = true;
  private template: Uint8Array = new Uint8Array(0);
  private phase: Phase = 'created';
  private poweredOff = false;
  private powerOffTold = false;
  private failed = false;
  private readonly stillWatch = new StillWatch();
  /** Of the VM's lives before this one. */
  private lagBeforeMs = 0;
  private readonly work = new VcpuWork();

  static create(spec: MachineSpec, options: QemuOptions): Promise<QemuMachine> {
    return Promise.resolve(new QemuMachine(spec, options));
  }

  private constructor(spec: MachineSpec, options: QemuOptions) {
    this.spec = spec;
    this.options = options;
    this.file = new RamFile(spec.memoryBytes);
    this.nics = spec.nics.map((nic) => new QemuNic(nic));
    this.stillWatch.onStill = (ms) => this.onStill?.(ms);
  }

  get info(): MachineInfo {
    const { name, why } = this.driver ?? this.options.driver;
    return {
      engine: 'qemu',
      pageCount: this.spec.memoryBytes / PAGE_BYTES,
      dirtyTracking: name === 'colo' ? 'colo' : 'compare',
      captureDriver: { name, why },
    };
  }

  get ram() {
    return this.file.ram;
  }

  clearRam(): void {
    this.expect('clearRam', 'created');
    this.file.clear();
  }

  async standBy(): Promise<void> {
    this.expect('standBy', 'created');
    this.standingBy ??= this.launch('incoming');
    await Promise.all([this.standingBy, this.startThread()]);
  }

  async boot(): Promise<void> {
    this.expect('boot', 'created');
    const { kernel } = this.spec;
    if (kernel && !isLinux(kernel) && !isMultiboot(kernel))
      throw new MirrorError('kernel', 'the kernel is neither a multiboot ELF nor a bzImage');
    const qemu = await this.launch('boot');
    const { server, path } = await qemu.listen('template.sock');
    this.template = await takeTemplate(qemu.qmp, server, path);
    const writes = this.spec.disks.some(({ readOnly }) => !readOnly);
    if (this.options.driver.name === 'colo')
      await (writes ? takeImagesBack(qemu.qmp) : forgetMigration(qemu.qmp));
    await this.startThread();
    this.standStill(qemu);
  }

  async restore(deviceState: Uint8Array): Promise<void> {
    this.expect('restore', 'created');
    const image = decodeDeviceImage(deviceState);
    await this.standBy();
    const qemu = await this.standingBy;
    if (!qemu) throw new QemuError('QEMU_START', 'there is no QEMU to restore into');
    const path = join(qemu.dir, 'incoming.sock');
    await setIgnoreShared(qemu.qmp, true);
    await qemu.qmp.execute('migrate-incoming', { uri: `unix:${path}` });
    const socket = connect(path);
    socket.on('error', () => {});
    socket.end(restoreStream(image.template, image.devices));
    await migrated(qemu.qmp);
    socket.destroy();
    await setIgnoreShared(qemu.qmp, false);
    this.template = image.template;
    this.lagBeforeMs = image.lagMs;
    this.poweredOff = image.poweredOff;
    this.standStill(qemu);
  }

  resume(): void {
    this.expect('resume', 'paused');
    this.phase = 'running';
    if (this.poweredOff) {
      setImmediate(() => this.tellPowerOff());
      return;
    }
    this.runs();
    this.continuing = this.captureDriver().cont();
    this.continuing.catch((error: Error) => this.fail(error));
  }

  async pause(): Promise<void> {
    this.expect('pause', 'running');
    const qemu = this.running();
    if (!this.still) {
      await this.continuing;
      await this.serial.hold();
      await this.captureDriver().stop();
      this.still = true;
      this.work.end();
    }
    await drain([qemu.serial, ...qemu.nics]);
    if (this.phase === 'running') this.phase = 'paused';
  }

  async capture(
    into: CaptureBuffer,
    also: PageRange | null,
    andGoOn = false,
  ): Promise<CaptureResult> {
    this.expect('capture', 'paused');
    if (also && (also.from < 0 || also.from + also.count > this.info.pageCount))
      throw new MirrorError('page-range', `no pages ${also.from}+${also.count} in this machine`);
    const lagMs = this.guestClockLagMs();
    const captured = await this.captureDriver().capture(into, { also, andGoOn });
    const { template, poweredOff } = this;
    const { devices, pageCount, dirtyCount: dirtyPageCount, goesOn, ...times } = captured;
    if (goesOn) {
      this.phase = 'running';
      this.runs();
    }
    into.pageCount = pageCount;
    into.deviceState = encodeDeviceImage({ template, devices, poweredOff, lagMs });
    const { findMs, copyMs, missed: missedPageCount } = times;
    return { pageCount, dirtyPageCount, findMs, copyMs, missedPageCount, goesOn };
  }

  async stop(): Promise<void> {
    if (this.phase === 'stopped') return;
    this.phase = 'stopped';
    this.serial.close();
    for (const nic of this.nics) nic.close();
    await this.driver?.close();
    await (await this.thread?.catch(() => null))?.close();
    const qemu = this.qemu ?? (await this.standingBy?.catch(() => null));
    await qemu?.kill();
    this.file.close();
  }

  /** Of the QEMU that runs it; empty before. */
  get version(): string {
    return this.qemu?.qmp.version ?? '';
  }

  guestClockLagMs(): number {
    return this.lagBeforeMs + this.stillWatch.totalMs;
  }

  /** Nanoseconds that its CPU has run for the guest. */
  workDone(): number {
    return this.work.done();
  }

  private async launch(role: Role): Promise<QemuProcess> {
    const { spec, options, file } = this;
    const { accelerator } = options;
    const qemu = await QemuProcess.launch({ spec, accelerator, role, ramFd: file.fd });
    qemu.onExit = (error) => this.fail(error);
    qemu.qmp.onFailure = (error) => this.fail(error);
    qemu.qmp.onEvent = (event) => this.heard(event);
    qemu.qmp.watch();
    return qemu;
  }

  private startThread(): Promise<CaptureThread> {
    const foundBy = this.options.driver.name === 'colo' ? 'colo' : 'compare';
    this.thread ??= this.newThread(foundBy);
    return this.thread;
  }

  private newThread(foundBy: FoundBy): Promise<CaptureThread> {
    const { fd, bytes } = this.file;
    return CaptureThread.start({ fd, bytes, foundBy });
  }

  /**
   * Booted or restored: paused, with memory about as it is now as the base of the next capture.
   * That base need not be exact: a sync sweeps every page, and from its own capture on each is.
   */
  private standStill(qemu: QemuProcess): void {
    this.qemu = qemu;
    this.serial.attach(qemu.serial);
    this.nics.forEach((nic, index) => nic.attach(qemu.nics[index]));
    this.work.attach(qemu.pid);
    this.driver = this.newDriver(qemu);
    this.driver.restart().catch((error: Error) => this.fail(error));
    this.phase = 'paused';
  }

  private newDriver(qemu: QemuProcess): CaptureDriver {
    const thread = this.startThread();
    const { driver, xbzrle = true, auditEvery = 0 } = this.options;
    const { why } = driver;
    if (driver.name === 'savedev') return new SavedevDriver(qemu, thread, why);
    const colo = new ColoDriver(qemu, thread, { why, xbzrle, auditEvery });
    return new FallbackDriver(qemu, colo, () => this.newThread('compare'));
  }

  private runs(): void {
    this.still = false;
    this.serial.letGo();
    this.work.begin();
  }

  private heard(told: QmpEvent): void {
    const { event, data } = told;
    this.stillWatch.heard(told);
    if (event === 'SHUTDOWN' && data['guest'] === true) {
      this.poweredOff = true;
      if (this.phase === 'running') this.tellPowerOff();
    }
  }

  private tellPowerOff(): void {
    if (this.powerOffTold || this.phase === 'stopped') return;
    this.powerOffTold = true;
    this.onPowerOff?.();
  }

  private fail(error: Error): void {
    if (this.failed || this.phase === 'stopped') return;
    this.failed = true;
    this.onFailure?.(error);
  }

  private captureDriver(): CaptureDriver {
    if (!this.driver) throw new MachineStateError('capture', this.phase);
    return this.driver;
  }

  private running(): QemuProcess {
    if (!this.qemu) throw new MachineStateError('use', this.phase);
    return this.qemu;
  }

  private expect(what: string, phase: Phase): void {
    if (this.phase !== phase) throw new MachineStateError(what, this.phase);
  }
}
