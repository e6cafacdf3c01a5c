/** How a running QEMU is stopped, captured and let go on: one interface, two ways. */
import type { CaptureBuffer, PageRange } from '../machine.js';

export interface DriverCapture {
  readonly pageCount: number;
  readonly dirtyCount: number;
  readonly missed: number | null;
  readonly findMs: number;
  readonly copyMs: number;
  /** What `xen-save-devices-state` writes. */
  readonly devices: Uint8Array;
  /** The VM runs again. */
  readonly goesOn: boolean;
}

export interface CaptureOrder {
  readonly also: PageRange | null;
  /** The VM may go on as soon as its bytes are safe. */
  readonly andGoOn: boolean;
}

export interface CaptureDriver {
  readonly name: 'colo' | 'savedev';
  /** Why this one, in a few words. */
  readonly why: string;
  /** Booted or restored, and paused: memory as it is now is the base of the next capture. */
  restart(): Promise<void>;
  /** Settles once the VM stands still. */
  stop(): Promise<void>;
  capture(into: CaptureBuffer, order: CaptureOrder): Promise<DriverCapture>;
  /** Lets the VM run. */
  cont(): Promise<void>;
  close(): Promise<void>;
}
