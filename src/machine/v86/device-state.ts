/**
 * The state of a v86 machine without its RAM, as one blob whose layout hardly changes between
 * epochs: header, numbers, shape, small pieces, whole pages, each from a page boundary on. The
 * shape is the JSON of the state tree with every number replaced by 0; the numbers stand in order
 * in a table of doubles. So what changes from epoch to epoch changes in place. Of buffers, only
 * pages that are not all zeros are stored.
 */
import { MirrorError } from '../../core/errors.js';
import type { ClockState } from './clock.js';
import type { StatefulDevice, StateValue, V86Cpu, V86Exports } from './internals.js';

const MAGIC = 0x36385644;
const VERSION = 1;
const PAGE_BYTES = 4096;
const HEADER_BYTES = PAGE_BYTES;
/** Room kept free after numbers and shape, so that small growth moves nothing that follows. */
const SLACK_BYTES = 1024;
const STATE_BYTES_MAX = 64 << 20;
const DEPTH_MAX = 16;

const VIEW_TYPES = {
  Uint8Array,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
} as const;
type ViewType = keyof typeof VIEW_TYPES;

/** A buffer: its type, its length in bytes, and which of its pages are stored. */
interface BufferShape {
  readonly t: ViewType;
  readonly n: number;
  readonly p: readonly number[];
}

type Shape = null | boolean | string | 0 | Shape[] | BufferShape;

export class DeviceStateError extends MirrorError {
  constructor(message: string) {
    super('device-state', `device state: ${message}`);
  }
}

/** What is saved beside the state tree. */
export interface StateExtras {
  readonly clock: ClockState;
  readonly poweredOff: boolean;
}

const roundUp = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit;

const pieceBytes = (bufferBytes: number, page: number): number =>
  Math.min(PAGE_BYTES, bufferBytes - page * PAGE_BYTES);

const zeroPage = Buffer.alloc(PAGE_BYTES);

/** Asked by reading the property: v86's views are proxies, which `in` does not see through. */
function isView(value: object): value is ArrayBufferView {
  return (value as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT !== undefined;
}

function isDevice(value: object): value is StatefulDevice {
  return 'get_state' in value && typeof value.get_state === 'function';
}

function viewType(view: ArrayBufferView): ViewType {
  const name = view.constructor.name.replace('bound ', '');
  if (!(name in VIEW_TYPES)) throw new DeviceStateError(`cannot save a ${name}`);
  return name as ViewType;
}

/** Takes a state tree apart into shape, numbers and pieces of buffers. */
class Flattener {
  readonly numbers: number[] = [];
  readonly pieces: Uint8Array[] = [];

  shapeOf(value: StateValue): Shape {
    if (typeof value === 'number') {
      this.numbers.push(value);
      return 0;
    }
    if (typeof value === 'string' || typeof value === 'boolean') return value;
    if (value === null || value === undefined) return null;
    if (Array.isArray(value)) return value.map((item) => this.shapeOf(item));
    if (!isView(value)) {
      if (!isDevice(value)) throw new DeviceStateError('cannot save a value of this kind');
      return value.get_state().map((item) => this.shapeOf(item));
    }
    const t = viewType(value);
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return { t, n: bytes.length, p: this.keepPages(bytes) };
  }

  private keepPages(bytes: Uint8Array): number[] {
    const kept: number[] = [];
    const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let page = 0; page * PAGE_BYTES < all.length; page += 1) {
      const at = page * PAGE_BYTES;
      const length = pieceBytes(all.length, page);
      if (all.compare(zeroPage, 0, length, at, at + length) === 0) continue;
      this.pieces.push(bytes.subarray(at, at + length));
      kept.push(page);
    }
    return kept;
  }
}

/** Where each part of the blob lies; computed the same way on saving and on restoring. */
class Layout {
  readonly numbersAt = HEADER_BYTES;
  readonly shapeAt: number;
  readonly pieceAt: number[] = [];
  readonly totalBytes: number;

  constructor(numberCount: number, shapeBytes: number, pieces: readonly number[]) {
    this.shapeAt = this.numbersAt + roundUp(numberCount * 8 + SLACK_BYTES, PAGE_BYTES);
    let smallAt = this.shapeAt + roundUp(shapeBytes + SLACK_BYTES, PAGE_BYTES);
    const isSmall = (bytes: number): boolean => bytes < PAGE_BYTES;
    const smallBytes = pieces
      .filter(isSmall)
      .reduce((sum, bytes) => sum + roundUp(bytes, 8), 0);
    let largeAt = smallAt + roundUp(smallBytes, PAGE_BYTES);
    for (const bytes of pieces) {
      this.pieceAt.push(isSmall(bytes) ? smallAt : largeAt);
      if (isSmall(bytes)) smallAt += roundUp(bytes, 8);
      else largeAt += roundUp(bytes, PAGE_BYTES);
    }
    this.totalBytes = largeAt;
  }
}

const NO_MEMORY = {
  packed_memory: new Uint8Array(0),
  bitmap: { get_buffer: (): ArrayBuffer => new ArrayBuffer(0) },
};

function stateTree(cpu: V86Cpu): StateValue[] {
  cpu.pack_memory = () => NO_MEMORY;
  try {
    return [cpu.get_state(), cpu.devices.uart0.input];
  } finally {
    Reflect.deleteProperty(cpu, 'pack_memory');
  }
}

/** Must run on the clock of the machine: the time stamp counter is read from it. */
export function saveDeviceState(cpu: V86Cpu, extras: StateExtras): Uint8Array {
  const flattener = new Flattener();
  const shape = Buffer.from(JSON.stringify(flattener.shapeOf(stateTree(cpu))));
  const { numbers, pieces } = flattener;
  const layout = new Layout(
    numbers.length,
    shape.length,
    pieces.map((bytes) => bytes.length),
  );
  const blob = new Uint8Array(layout.totalBytes);
  const header = new DataView(blob.buffer);
  [MAGIC, VERSION, layout.totalBytes, numbers.length, shape.length].forEach((value, i) => {
    header.setUint32(i * 4, value, true);
  });
  header.setUint32(20, extras.poweredOff ? 1 : 0, true);
  header.setFloat64(24, extras.clock.guestMs, true);
  header.setFloat64(32, extras.clock.wallOffsetMs, true);
  new Float64Array(blob.buffer, layout.numbersAt, numbers.length).set(numbers);
  blob.set(shape, layout.shapeAt);
  pieces.forEach((bytes, i) => blob.set(bytes, layout.pieceAt[i]));
  return blob;
}

/** The lengths of all stored pieces, in order. */
function storedPieces(shape: Shape, into: number[], depth = 0): number[] {
  if (depth > DEPTH_MAX) throw new DeviceStateError('nested too deeply');
  if (Array.isArray(shape)) for (const item of shape) storedPieces(item, into, depth + 1);
  else if (typeof shape === 'object' && shape !== null) {
    const { t, n, p } = shape;
    const pages = Math.ceil(n / PAGE_BYTES);
    const isPage = (page: unknown): boolean =>
      Number.isSafeInteger(page) && Number(page) >= 0 && Number(page) < pages;
    const sane = Object.hasOwn(VIEW_TYPES, t) && Number.isSafeInteger(n) && n >= 0;
    if (!sane || n > STATE_BYTES_MAX || !Array.isArray(p) || !p.every(isPage))
      throw new DeviceStateError('malformed buffer');
    for (const page of shape.p) into.push(pieceBytes(n, page));
  }
  return into;
}

/** Puts a state tree together again; every buffer is a fresh copy. */
class Unflattener {
  private readonly numbers: Float64Array;
  private readonly blob: Uint8Array;
  private readonly pieceAt: readonly number[];
  private nextNumber = 0;
  private nextPiece = 0;

  constructor(blob: Uint8Array, numbers: Float64Array, pieceAt: readonly number[]) {
    this.blob = blob;
    this.numbers = numbers;
    this.pieceAt = pieceAt;
  }

  valueOf(shape: Shape): StateValue {
    if (shape === 0) {
      if (this.nextNumber >= this.numbers.length) throw new DeviceStateError('numbers are missing');
      return this.numbers[this.nextNumber++];
    }
    if (Array.isArray(shape)) return shape.map((item) => this.valueOf(item));
    if (typeof shape !== 'object' || shape === null) return shape;
    const { t, n, p } = shape;
    const bytes = new Uint8Array(n);
    for (const page of p) {
      const at = this.pieceAt[this.nextPiece++];
      bytes.set(this.blob.subarray(at, at + pieceBytes(n, page)), page * PAGE_BYTES);
    }
    return new VIEW_TYPES[t](bytes.buffer);
  }
}

interface ParsedState {
  readonly cpuState: StateValue[];
  readonly serialInput: number[];
  readonly extras: StateExtras;
}

function parse(blob: Uint8Array): ParsedState {
  const header = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const field = (index: number): number => header.getUint32(index * 4, true);
  if (blob.length < HEADER_BYTES || field(0) !== MAGIC) throw new DeviceStateError('not of v86');
  if (field(1) !== VERSION) throw new DeviceStateError(`version ${field(1)} is not spoken`);
  const [numberCount, shapeBytes] = [field(3), field(4)];
  const atLeast = new Layout(numberCount, shapeBytes, []);
  if (field(2) !== blob.length || atLeast.totalBytes > blob.length)
    throw new DeviceStateError('truncated');
  const shapeText = blob.subarray(atLeast.shapeAt, atLeast.shapeAt + shapeBytes);
  const shape = JSON.parse(Buffer.from(shapeText).toString()) as Shape;
  const layout = new Layout(numberCount, shapeBytes, storedPieces(shape, []));
  if (layout.totalBytes !== blob.length) throw new DeviceStateError('truncated');
  const numberBytes = blob.slice(layout.numbersAt, layout.numbersAt + numberCount * 8);
  const numbers = new Float64Array(numberBytes.buffer);
  const tree = new Unflattener(blob, numbers, layout.pieceAt).valueOf(shape);
  if (!Array.isArray(tree) || !Array.isArray(tree[0]) || !Array.isArray(tree[1]))
    throw new DeviceStateError('malformed');
  const clock = { guestMs: header.getFloat64(24, true), wallOffsetMs: header.getFloat64(32, true) };
  const serialInput = tree[1].filter((byte) => typeof byte === 'number');
  return { cpuState: tree[0], serialInput, extras: { clock, poweredOff: field(5) === 1 } };
}

/**
 * Takes over a saved state; RAM stays as it is. `setClock` is called before any device is, since
 * they look at the time.
 */
export function restoreDeviceState(
  cpu: V86Cpu,
  exports: V86Exports,
  blob: Uint8Array,
  setClock: (clock: ClockState) => void,
): StateExtras {
  const { cpuState, serialInput, extras } = parse(blob);
  setClock(extras.clock);
  const { last_result, fpu_status_word, mxcsr } = cpu;
  cpu.unpack_memory = () => {};
  try {
    cpu.set_state(cpuState);
  } finally {
    Reflect.deleteProperty(cpu, 'unpack_memory');
  }
  // `set_state` put plain copies in place of these three views into v86's memory.
  last_result[0] = cpu.last_result[0];
  fpu_status_word[0] = cpu.fpu_status_word[0];
  mxcsr[0] = cpu.mxcsr[0];
  Object.assign(cpu, { last_result, fpu_status_word, mxcsr });
  exports.set_control_word(cpu.fpu_control_word[0]);
  cpu.devices.uart0.input = serialInput;
  return extras;
}
