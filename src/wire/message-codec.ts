/**
 * Messages to frame payloads and back: u32 length of the msgpack map, the map, then raw bytes. What
 * comes back has the fields of its type, each of its kind, and no others.
 */
import { Packr, Unpackr } from 'msgpackr';
import { FrameError, type FrameHeader, type FramePlace } from './frame.js';
import { SHAPE_OF_CODE, SHAPES, type Shape } from './shapes.js';
import type { VmMessage } from './vm-messages.js';

const LENGTH_BYTES = 4;
const PLAIN = {
  useRecords: false,
  variableMapSize: true,
  int64AsType: 'number',
  maxSharedStructures: 0,
  maxOwnStructures: 0,
  maxIncompleteBufferSize: 0,
} as const;

const packr = new Packr(PLAIN);
const unpackr = new Unpackr(PLAIN);

export function codeOf(message: VmMessage): number {
  return SHAPES[message.type].code;
}

/** Generation and epoch of a message, repeated in the frame's header. */
export function placeOf(message: VmMessage): FramePlace {
  const generation = 'generation' in message ? message.generation : 0;
  const epoch = 'epoch' in message ? message.epoch : 0;
  return { generation, epoch };
}

/** The pieces of the frame payload, in order. Throws `FrameError` if the message is malformed. */
export function encodeMessage(message: VmMessage, payload: Uint8Array): Uint8Array[] {
  const shape: Shape = SHAPES[message.type];
  const fault = faultIn(shape, message as unknown as Record<string, unknown>);
  if (fault) throw new FrameError('FRAME_MESSAGE', `${message.type} with a bad ${fault}`);
  const map = packr.pack(message);
  const length = Buffer.allocUnsafe(LENGTH_BYTES);
  length.writeUInt32LE(map.length, 0);
  const pieces = [length, map, payload];
  checkLength(message.type, shape, LENGTH_BYTES + map.length, payload.length);
  return payload.length > 0 ? pieces : pieces.slice(0, 2);
}

/** Refuses a frame by its header alone, before its payload is read. */
export function checkHeader(header: FrameHeader): void {
  const known = SHAPE_OF_CODE.get(header.type);
  if (!known) throw new FrameError('FRAME_TYPE', `unknown frame type ${header.type}`);
  if (header.payloadBytes > known.shape.bytesMax)
    throw new FrameError('FRAME_TOO_LONG', `${known.type} claims ${header.payloadBytes} bytes`);
}

export function decodeMessage(
  header: FrameHeader,
  bytes: Buffer,
): { message: VmMessage; payload: Uint8Array } {
  checkHeader(header);
  const known = SHAPE_OF_CODE.get(header.type)!;
  if (bytes.length < LENGTH_BYTES) throw new FrameError('FRAME_MESSAGE', 'message is cut short');
  const mapBytes = bytes.readUInt32LE(0);
  if (mapBytes > bytes.length - LENGTH_BYTES)
    throw new FrameError('FRAME_MESSAGE', 'message is longer than its frame');
  const payload = bytes.subarray(LENGTH_BYTES + mapBytes);
  checkLength(known.type, known.shape, LENGTH_BYTES + mapBytes, payload.length);
  const map = unpackMap(bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + mapBytes));
  if (map['type'] !== known.type)
    throw new FrameError('FRAME_MESSAGE', `frame of ${known.type} holds something else`);
  const fault = faultIn(known.shape, map);
  if (fault) throw new FrameError('FRAME_MESSAGE', `${known.type} with a bad ${fault}`);
  const names = ['type', ...Object.keys(known.shape.fields)];
  const message = Object.fromEntries(
    names.filter((name) => name in map).map((name) => [name, map[name]]),
  ) as unknown as VmMessage;
  const place = placeOf(message);
  if (place.generation !== header.generation || place.epoch !== header.epoch)
    throw new FrameError('FRAME_MESSAGE', `${known.type} contradicts its frame`);
  return { message, payload };
}

function unpackMap(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (cause) {
    throw new FrameError('FRAME_MESSAGE', 'message does not decode', { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new FrameError('FRAME_MESSAGE', 'message is not a map');
  return value as Record<string, unknown>;
}

function faultIn(shape: Shape, map: Record<string, unknown>): string | null {
  for (const [name, check] of Object.entries(shape.fields)) if (!check(map[name])) return name;
  return null;
}

function checkLength(type: string, shape: Shape, messageBytes: number, rawBytes: number): void {
  if (rawBytes > 0 && !shape.payload)
    throw new FrameError('FRAME_MESSAGE', `${type} must have no payload`);
  if (messageBytes + rawBytes > shape.bytesMax)
    throw new FrameError('FRAME_TOO_LONG', `${type} of ${messageBytes + rawBytes} bytes`);
}
