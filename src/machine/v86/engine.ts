/**
 * Creates a v86 emulator for a machine: headless, without BIOS, on the guest's clock, with the
 * wasm that marks dirty pages, and checks that it has the insides that the machine works with.
 */
import { readFile } from 'node:fs/promises';
import { MirrorError } from '../../core/errors.js';
import type { GuestRam, MachineSpec } from '../machine.js';
import { importOnGuestTime } from './clock.js';
import { DiskStub } from './disk-stub.js';
import { loadRamKernels, type RamKernels } from '../ram-kernels.js';
import type { V86Cpu, V86Emulator, V86Exports } from './internals.js';

const LOAD_MS_MAX = 30_000;
const VGA_BYTES = 256 << 10;
/** v86 rounds memory up to this. */
const MEMORY_UNIT_BYTES = 128 << 10;
const MEMORY_BYTES_MIN = 1 << 20;
const MEMORY_BYTES_MAX = 1 << 30;

const wasmDir = new URL('../../../wasm/', import.meta.url);

export class EngineError extends MirrorError {
  constructor(message: string, cause?: unknown) {
    super('engine', message, { cause });
  }
}

export interface Engine {
  readonly emulator: V86Emulator;
  readonly cpu: V86Cpu;
  readonly exports: V86Exports;
  readonly kernels: RamKernels;
  readonly ram: GuestRam;
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** Compiles each module once a process. */
function compiledModule(url: URL): Promise<WebAssembly.Module> {
  let module = compiled.get(url.href);
  if (!module) {
    module = readFile(url).then((bytes) => WebAssembly.compile(new Uint8Array(bytes)));
    compiled.set(url.href, module);
  }
  return module;
}

function wasmUrl(tracking: 'patched' | 'compare'): URL {
  if (tracking === 'patched') return new URL('v86-dirty.wasm', wasmDir);
  const library = import.meta.resolve('v86');
  return new URL('v86.wasm', library);
}

type V86Constructor = new (options: object) => V86Emulator;

let library: Promise<V86Constructor> | null = null;

function loadLibrary(): Promise<V86Constructor> {
  library ??= importOnGuestTime(async () => {
    const module: unknown = await import('v86');
    return (module as { V86: V86Constructor }).V86;
  });
  return library;
}

function checkSpec(spec: MachineSpec): void {
  const { memoryBytes, nics } = spec;
  if (nics.length > 1) throw new EngineError('this engine has one NIC at most');
  const sane = memoryBytes >= MEMORY_BYTES_MIN && memoryBytes <= MEMORY_BYTES_MAX;
  if (!sane || memoryBytes % MEMORY_UNIT_BYTES !== 0)
    throw new EngineError(
      `memory must be 1 MiB to 1 GiB in steps of 128 KiB, not ${memoryBytes} bytes`,
    );
}

/** What a changed v86 would miss first. */
function checkInsides(cpu: V86Cpu, exports: V86Exports, patched: boolean): void {
  const methods = [
    'main_loop',
    'get_state',
    'set_state',
    'pack_memory',
    'unpack_memory',
    'load_multiboot_option_rom',
  ] as const;
  const missing = methods.filter((name) => typeof cpu[name] !== 'function') as string[];
  if (typeof exports.full_clear_tlb !== 'function') missing.push('full_clear_tlb');
  if (typeof exports.v86_malloc !== 'function') missing.push('v86_malloc');
  if (patched && typeof exports.mirror_track !== 'function') missing.push('mirror_track');
  if (missing.length > 0) throw new EngineError(`v86 has no ${missing.join(', ')}`);
}

function loaded(emulator: V86Emulator): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new EngineError(`v86 did not load within ${LOAD_MS_MAX} ms`));
    }, LOAD_MS_MAX);
    emulator.add_listener('emulator-loaded', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

export async function createEngine(
  spec: MachineSpec,
  tracking: 'patched' | 'compare',
): Promise<Engine> {
  checkSpec(spec);
  const [V86, wasm] = await Promise.all([loadLibrary(), compiledModule(wasmUrl(tracking))]);
  let exports: V86Exports | null = null;
  const nic = spec.nics[0];
  const emulator = new V86({
    wasm_fn: async (imports: WebAssembly.Imports) => {
      const instance = await WebAssembly.instantiate(wasm, imports);
      exports = instance.exports as unknown as V86Exports;
      return instance.exports;
    },
    memory_size: spec.memoryBytes,
    vga_memory_size: VGA_BYTES,
    autostart: false,
    acpi: false,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    net_device: { type: nic ? (nic.model === 'virtio' ? 'virtio' : 'ne2k') : 'none' },
    // Without it ne2k restores neither its MAC nor the frames in its buffer.
    preserve_mac_from_state_image: true,
    hda: new DiskStub(),
  });
  await loaded(emulator);
  if (exports === null) throw new EngineError('v86 loaded without its wasm');
  const ready: V86Exports = exports;
  const { cpu } = emulator.v86;
  checkInsides(cpu, ready, tracking === 'patched');
  const kernels = await loadRamKernels(ready.memory);
  const ram = { memory: ready.memory, offset: cpu.mem8.byteOffset, bytes: spec.memoryBytes };
  return { emulator, cpu, exports: ready, kernels, ram };
}
