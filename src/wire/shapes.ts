/** The wire form of each message: its code, its limits, and how each of its fields must look. */
import { FRAME_PAYLOAD_BYTES_MAX } from './frame.js';
import type { VmMessage } from './vm-messages.js';

type Check = (value: unknown) => boolean;

type MessageOf<T extends VmMessage['type']> = Extract<VmMessage, { type: T }>;

export interface Shape {
  /** Frame type in the header. Never reused. */
  readonly code: number;
  /** Longest frame payload, message and bytes together. */
  readonly bytesMax: number;
  /** Whether raw bytes may follow the message. */
  readonly payload: boolean;
  readonly fields: Readonly<Record<string, Check>>;
}

type Shapes = {
  readonly [T in VmMessage['type']]: Shape & {
    readonly fields: { readonly [K in keyof Omit<MessageOf<T>, 'type'>]-?: Check };
  };
};

const SMALL = 4 << 10;
export const TEXT_MAX = 1 << 10;
const SPEC_TEXT_MAX = 256 << 10;
const FILES_MAX = 16;

const text: Check = (value) => typeof value === 'string' && value.length <= TEXT_MAX;
const specText: Check = (value) => typeof value === 'string' && value.length <= SPEC_TEXT_MAX;
const flag: Check = (value) => typeof value === 'boolean';
const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const digest: Check = (value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
const oneOf =
  (...allowed: readonly string[]): Check =>
  (value) =>
    typeof value === 'string' && allowed.includes(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.length <= FILES_MAX && value.every(check);
const offeredFile: Check = (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { name, sha256, bytes } = value as Record<string, unknown>;
  return text(name) && digest(sha256) && count(bytes) && Object.keys(value).length === 3;
};

export const SHAPES = {
  hello: {
    code: 1,
    bytesMax: SMALL,
    payload: false,
    fields: { vmUuid: text, host: text, address: text, incarnation: text, generation: count },
  },
  welcome: {
    code: 2,
    bytesMax: SMALL,
    payload: false,
    fields: { host: text, incarnation: text },
  },
  refuse: {
    code: 3,
    bytesMax: SMALL,
    payload: false,
    fields: { reason: oneOf('stale', 'busy', 'arbiter', 'mismatch') },
  },
  'epoch-part': {
    code: 4,
    bytesMax: FRAME_PAYLOAD_BYTES_MAX,
    payload: true,
    fields: {
      generation: count,
      epoch: count,
      part: count,
      partCount: count,
      base: flag,
      complete: flag,
      releasedThrough: count,
    },
  },
  ack: {
    code: 5,
    bytesMax: SMALL,
    payload: false,
    fields: { generation: count, epoch: count, incarnation: text },
  },
  nack: { code: 6, bytesMax: SMALL, payload: false, fields: { generation: count, epoch: count } },
  heartbeat: {
    code: 7,
    bytesMax: SMALL,
    payload: false,
    fields: { sequence: count, releasedThrough: count },
  },
  'paired-hint': { code: 8, bytesMax: SMALL, payload: false, fields: { generation: count } },
  handover: { code: 9, bytesMax: SMALL, payload: false, fields: { epoch: count } },
  release: { code: 10, bytesMax: SMALL, payload: false, fields: {} },
  offer: {
    code: 32,
    bytesMax: 1 << 20,
    payload: false,
    fields: { specJson: specText, files: listOf(offeredFile), address: text },
  },
  'need-files': { code: 33, bytesMax: SMALL, payload: false, fields: { sha256: listOf(digest) } },
  'file-part': {
    code: 34,
    bytesMax: FRAME_PAYLOAD_BYTES_MAX,
    payload: true,
    fields: { sha256: digest, offset: count, last: flag },
  },
  'offer-ok': { code: 35, bytesMax: SMALL, payload: false, fields: {} },
  'serial-in': { code: 36, bytesMax: 128 << 10, payload: true, fields: { offset: count } },
  'serial-in-state': {
    code: 37,
    bytesMax: SMALL,
    payload: false,
    fields: { applied: count, acked: count },
  },
  'offer-refused': { code: 38, bytesMax: SMALL, payload: false, fields: { reason: text } },
} satisfies Shapes;

export interface NamedShape {
  readonly type: VmMessage['type'];
  readonly shape: Shape;
}

export const SHAPE_OF_CODE: ReadonlyMap<number, NamedShape> = new Map(
  Object.entries(SHAPES).map(([type, shape]) => [
    shape.code,
    { type: type as VmMessage['type'], shape },
  ]),
);
