/**
 * What the engine needs of a hypervisor, and no more. `v86/` implements it in-process, `qemu/` with
 * a stock QEMU beside it.
 *
 * Every implementation runs the acceptance suite in `test/machine/acceptance.ts`.
 */

export const PAGE_BYTES = 4096;

/** Guest RAM as the page kernels see it: `bytes` bytes from `offset` on in `memory`. */
export interface GuestRam {
  /** The buffer may be replaced when the memory grows: build views afresh for each use. */
  readonly memory: WebAssembly.Memory;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * Where a capture puts its pages: over SharedArrayBuffers, for another thread may fill it. Owned by
 * the caller, reused from epoch to epoch.
 */
export interface CaptureBuffer {
  /** Ascending page numbers; capacity in pages is `pageIndices.length`. */
  readonly pageIndices: Uint32Array;
  /** `PAGE_BYTES` for each entry of `pageIndices`, in the same order. */
  readonly pageBytes: Uint8Array;
  /** How many pages the capture wrote. */
  pageCount: number;
  /** Device state, opaque to everyone but the machine; its layout is stable between epochs. */
  deviceState: Uint8Array;
}

/** Pages to capture in addition to the dirty ones: `count` pages from `from` on. */
export interface PageRange {
  readonly from: number;
  readonly count: number;
}

export interface CaptureResult {
  /**
   * Pages captured, the dirty ones and those of the extra range, each once. Pages of that range
   * that were never written may be left out: they are zero.
   */
  readonly pageCount: number;
  readonly dirtyPageCount: number;
  /** Time spent finding dirty pages, within the pause, in `ms`. */
  readonly findMs: number;
  /** Time spent copying pages, within the pause, in `ms`. */
  readonly copyMs: number;
  /** Pages the audit found changed that tracking had missed; `null` when not audited. */
  readonly missedPageCount: number | null;
  /** The machine is running already. */
  readonly goesOn: boolean;
}

export interface NicPort {
  readonly id: string;
  readonly mac: string;
  /** Called with each frame that the guest sends; the frame is the callee's to keep. */
  onFrame: ((frame: Uint8Array) => void) | null;
  receive(frame: Uint8Array): void;
}

export interface SerialPort {
  /** Called with bytes that the guest wrote; with all of them before a pause settles. */
  onBytes: ((bytes: Uint8Array) => void) | null;
  /** Bytes received that have not reached the guest's device: a capture does not hold them. */
  readonly waitingBytes: number;
  receive(bytes: Uint8Array): void;
}

/** A disk image, opened by its path on each host: no part of a capture holds its content. */
export interface DiskSpec {
  readonly id: string;
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly readOnly: boolean;
  readonly model: 'auto' | 'virtio' | 'ide';
  /** The firmware boots from it; one of them, if there is no kernel. */
  readonly boot: boolean;
}

export interface MachineSpec {
  readonly memoryBytes: number;
  readonly kernel: Uint8Array | null;
  readonly initrd: Uint8Array | null;
  readonly cmdline: string;
  readonly nics: readonly { id: string; mac: string; model: 'auto' | 'ne2k' | 'virtio' }[];
  readonly disks: readonly DiskSpec[];
}

export interface MachineInfo {
  readonly engine: 'v86' | 'qemu';
  readonly pageCount: number;
  /** How dirty pages are found; shown by `status`. */
  readonly dirtyTracking: 'patched' | 'compare' | 'colo';
  /** How captures are made, and why so, in a few words. */
  readonly captureDriver: {
    readonly name: 'in-process' | 'savedev' | 'colo';
    readonly why: string;
  };
}

/**
 * A virtual machine. States: created -> (boot | restore) -> paused <-> running -> stopped.
 * `capture` and `restore` are legal only while paused; violating that throws.
 */
export interface Machine {
  readonly info: MachineInfo;
  /** Guest memory in place. A standby writes committed pages straight into it. */
  readonly ram: GuestRam;
  readonly serial: SerialPort;
  readonly nics: readonly NicPort[];
  /** The guest switched itself off; called once, also after a restore of such a state. */
  onPowerOff: (() => void) | null;
  /** The guest can no longer run (a triple fault, an exception of the engine). */
  onFailure: ((error: Error) => void) | null;
  /** The guest stood still for so long, in `ms`: told after each pause. */
  onStill: ((ms: number) => void) | null;

  /** All of `ram` to zero, as before a boot. For a standby only. */
  clearRam(): void;
  /** Gets ready for a `restore`: whatever makes it quicker. */
  standBy(): Promise<void>;
  /** Loads kernel, initrd and command line. The machine is then paused at its first instruction. */
  boot(): Promise<void>;
  resume(): void;
  /**
   * Settles once the guest stands still, nothing is in flight in its devices, and what it has
   * written was handed on.
   */
  pause(): Promise<void>;
  /**
   * Copies the pages dirtied since the last capture, and `also`, into `into`. With `andGoOn` the
   * VM may go on as soon as its bytes are safe: `goesOn` then says whether it does. Throws
   * `CaptureOverflow` (and keeps every dirty mark) when they do not fit.
   */
  capture(
    into: CaptureBuffer,
    also: PageRange | null,
    andGoOn?: boolean,
  ): Promise<CaptureResult>;
  /** Takes over `deviceState` on top of what `ram` holds now; the machine is then paused. */
  restore(deviceState: Uint8Array): Promise<void>;
  stop(): Promise<void>;
  /** How far guest time lags behind real time, in `ms`. */
  guestClockLagMs(): number;
  /** Guest instructions (or the engine's nearest measure) executed so far, for the bench. */
  workDone(): number;
}
