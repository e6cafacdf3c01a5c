/**
 * The embedded engine: npm `v86` as a `Machine`, in this process.
 *
 * What `boot` loads, and what others write into `ram`, does not count as dirty: whoever needs all
 * of memory sweeps it (`also` of `capture`). Serial bytes and frames of a slice are handed out
 * when the slice ends. A guest that resets itself, or halts with interrupts off, has switched
 * itself off.
 */
import { MirrorError } from '../../core/errors.js';
import type {
  CaptureBuffer,
  CaptureResult,
  GuestRam,
  Machine,
  MachineInfo,
  MachineSpec,
  NicPort,
  PageRange,
  SerialPort,
} from '../machine.js';
import { MachineStateError } from '../machine-state-error.js';
import { PAGE_BYTES } from '../machine.js';
import { CaptureOverflow } from '../capture-overflow.js';
import { GuestClock, onClock } from './clock.js';
import { restoreDeviceState, saveDeviceState } from './device-state.js';
import { DirtyTracker } from './dirty-tracker.js';
import type { Engine } from './engine.js';
import { createEngine } from './engine.js';
import { bootLinux, isBzImage } from './linux-boot.js';
import { NicBridge, SerialBridge } from './ports.js';
import { RunLoop } from './run-loop.js';

export interface V86Options {
  /** Every how many captures the dirty map is checked by comparing all of RAM; 0: never. */
  readonly auditEvery: number;
  readonly tracking?: 'patched' | 'compare';
}

type Phase = 'created' | 'paused' | 'running' | 'pausing' | 'stopped';

/** Ports by which guests switch a PC off: ACPI sleep of QEMU and of v86, and a debug exit. */
const ACPI_SLEEP_PORTS = [0x604, 0xb004];
const ACPI_SLEEP = 0x2000;
const DEBUG_EXIT_PORT = 0xf4;
const MULTIBOOT_PORT = 0xf4;

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

export class V86Machine implements Machine {
  readonly info: MachineInfo;
  readonly ram: GuestRam;
  readonly serial: SerialPort;
  readonly nics: readonly NicPort[];
  onPowerOff: (() => void) | null = null;
  onFailure: ((error: Error) => void) | null = null;
  onStill: ((ms: number) => void) | null = null;

  private readonly spec: MachineSpec;
  private readonly engine: Engine;
  private readonly clock = new GuestClock();
  private readonly tracker: DirtyTracker;
  private readonly loop: RunLoop;
  private readonly serialBridge: SerialBridge;
  private readonly nicBridges: readonly NicBridge[];
  private phase: Phase = 'created';
  private poweredOff = false;
  private powerOffTold = false;
  private stillSinceMs: number | null = null;
  private failed = false;
  private instructions = 0;
  private lastCounter = 0;

  private constructor(spec: MachineSpec, engine: Engine, options: V86Options) {
    const tracking = options.tracking ?? 'patched';
    this.spec = spec;
    this.engine = engine;
    this.ram = engine.ram;
    this.info = {
      engine: 'v86',
      pageCount: engine.ram.bytes / PAGE_BYTES,
      dirtyTracking: tracking,
      captureDriver: { name: 'in-process', why: '' },
    };
    const { exports, kernels, ram } = engine;
    const { auditEvery } = options;
    this.tracker = new DirtyTracker(exports, kernels, ram, { tracking, auditEvery });
    this.loop = new RunLoop(() => this.runSlice());
    const enter = (work: () => void): void => this.enter(work);
    this.serialBridge = new SerialBridge(engine, enter);
    this.serial = this.serialBridge;
    this.nicBridges = spec.nics.map((nic) => new NicBridge(nic, engine, enter));
    this.nics = this.nicBridges;
    this.hookEngine();
  }

  static async create(spec: MachineSpec, options: V86Options): Promise<V86Machine> {
    const engine = await createEngine(spec, options.tracking ?? 'patched');
    return new V86Machine(spec, engine, options);
  }

  clearRam(): void {
    this.expect('clear', 'created');
    const { memory, offset, bytes } = this.ram;
    new Uint8Array(memory.buffer, offset, bytes).fill(0);
  }

  /** It is ready as soon as it is made. */
  standBy(): Promise<void> {
    return Promise.resolve();
  }

  async boot(): Promise<void> {
    this.expect('boot', 'created');
    const { kernel, initrd, cmdline } = this.spec;
    const { cpu } = this.engine;
    if (!kernel) throw new MirrorError('kernel', 'the v86 engine boots a kernel, not a disk');
    this.clock.reset();
    onClock(this.clock, () => {
      if (isBzImage(kernel)) {
        const { memory, offset, bytes } = this.ram;
        bootLinux(cpu, new Uint8Array(memory.buffer, offset, bytes), { kernel, initrd, cmdline });
        return;
      }
      const copy = kernel.slice().buffer;
      const modules = initrd ? initrd.slice().buffer : undefined;
      if (!cpu.load_multiboot_option_rom(copy, modules, cmdline))
        throw new MirrorError('kernel', 'the kernel is neither a multiboot ELF nor a bzImage');
      cpu.reg32[0] = cpu.io.port_read32(MULTIBOOT_PORT);
    });
    this.standStill();
  }

  resume(): void {
    this.expect('resume', 'paused');
    this.phase = 'running';
    this.clock.start();
    if (this.stillSinceMs !== null) this.onStill?.(nowMs() - this.stillSinceMs);
    this.stillSinceMs = null;
    if (this.poweredOff) setImmediate(() => this.tellPowerOff());
    else if (!this.failed) this.loop.start();
  }

  async pause(): Promise<void> {
    this.expect('pause', 'running');
    this.phase = 'pausing';
    await this.loop.stop();
    this.clock.freeze();
    this.stillSinceMs = nowMs();
    if (this.phase === 'pausing') this.phase = 'paused';
  }

  async capture(into: CaptureBuffer, also: PageRange | null): Promise<CaptureResult> {
    this.expect('capture', 'paused');
    if (also !== null && !this.holdsRange(also))
      throw new MirrorError('page-range', `no pages ${also.from}+${also.count} in this machine`);
    const askedAtMs = nowMs();
    const found = onClock(this.clock, () => this.tracker.collect(also));
    const room = Math.min(into.pageIndices.length, into.pageBytes.length / PAGE_BYTES);
    if (found.pageCount > room) throw new CaptureOverflow(found.pageCount, room);
    const startedAtMs = nowMs();
    this.tracker.take(into.pageIndices, into.pageBytes);
    const copyMs = nowMs() - startedAtMs;
    const findMs = startedAtMs - askedAtMs;
    into.pageCount = found.pageCount;
    const extras = { clock: this.clock.state(), poweredOff: this.poweredOff };
    into.deviceState = onClock(this.clock, () => saveDeviceState(this.engine.cpu, extras));
    const { pageCount, dirtyCount: dirtyPageCount, missedCount: missedPageCount } = found;
    return { pageCount, dirtyPageCount, findMs, copyMs, missedPageCount, goesOn: false };
  }

  async restore(deviceState: Uint8Array): Promise<void> {
    if (this.phase !== 'created') this.expect('restore', 'paused');
    const { cpu, exports } = this.engine;
    onClock(this.clock, () => {
      const extras = restoreDeviceState(cpu, exports, deviceState, (state) => {
        this.clock.restore(state);
      });
      this.poweredOff = extras.poweredOff;
    });
    this.powerOffTold = false;
    this.failed = false;
    this.standStill();
  }

  async stop(): Promise<void> {
    if (this.phase === 'stopped') return;
    this.phase = 'stopped';
    await this.loop.stop();
    this.clock.freeze();
    await this.engine.emulator.destroy();
  }

  guestClockLagMs(): number {
    return this.clock.lagMs();
  }

  workDone(): number {
    return this.instructions;
  }

  private expect(what: string, phase: Phase): void {
    if (this.phase !== phase) throw new MachineStateError(what, this.phase);
  }

  private holdsRange({ from, count }: PageRange): boolean {
    return from >= 0 && count >= 0 && from + count <= this.info.pageCount;
  }

  /** Loaded or restored: paused, with memory as it is now as the base of the next capture. */
  private standStill(): void {
    this.lastCounter = this.engine.cpu.instruction_counter[0];
    this.tracker.restart();
    this.phase = 'paused';
  }

  private hookEngine(): void {
    const { cpu, emulator } = this.engine;
    const off = (): void => {
      this.poweredOff = true;
    };
    cpu.stop_idling = () => this.loop.wake();
    cpu.reboot_internal = off;
    emulator.add_listener('cpu-event-halt', off);
    const sleep = (value: number): void => {
      if ((value & ACPI_SLEEP) !== 0) off();
    };
    const ignore = (): void => {};
    for (const port of ACPI_SLEEP_PORTS) cpu.io.register_write(port, this, ignore, sleep, sleep);
    cpu.io.register_write(DEBUG_EXIT_PORT, this, off, off, off);
  }

  /** Input from outside: a synchronous entry into v86, after which the guest may have work. */
  private enter(work: () => void): void {
    if (this.phase === 'created' || this.phase === 'stopped') return;
    onClock(this.clock, work);
    this.loop.wake();
  }

  private runSlice(): number | null {
    const { cpu } = this.engine;
    let sleepMs = 0;
    try {
      sleepMs = onClock(this.clock, () => {
        for (const nic of this.nicBridges) nic.beginSlice();
        return cpu.main_loop();
      });
    } catch (error) {
      this.failed = true;
      const cause = error instanceof Error ? error : new Error(String(error));
      this.handOut();
      this.onFailure?.(new MirrorError('guest-failure', cause.message, { cause }));
      return null;
    }
    const counter = cpu.instruction_counter[0];
    this.instructions += (counter - this.lastCounter) >>> 0;
    this.lastCounter = counter;
    this.handOut();
    if (this.nicBridges.some((nic) => nic.hasWaiting)) sleepMs = Math.min(sleepMs, 1);
    if (!this.poweredOff) return sleepMs;
    this.tellPowerOff();
    return null;
  }

  /** Delivers what the guest sent during the slice, outside of v86. */
  private handOut(): void {
    this.serialBridge.handOut();
    for (const nic of this.nicBridges) nic.handOut();
  }

  private tellPowerOff(): void {
    if (this.powerOffTold || this.phase === 'stopped') return;
    this.powerOffTold = true;
    this.onPowerOff?.();
  }
}
