/** One message of each kind, as the golden transcripts hold them. */
import type { VmMessage } from '../../src/wire/vm-messages.js';

type MessageOf<T extends VmMessage['type']> = Extract<VmMessage, { type: T }>;

const DIGEST = '0123456789abcdef'.repeat(4);

export const SAMPLES = {
  hello: {
    type: 'hello',
    vmUuid: '6f1c1bd0-36a5-4f0e-9d57-1b1ab9a3c0de',
    host: 'a',
    address: '127.0.0.1:7701',
    incarnation: 'inc-a-1',
    generation: 7,
  },
  welcome: { type: 'welcome', host: 'b', incarnation: 'inc-b-1' },
  refuse: { type: 'refuse', reason: 'stale' },
  'epoch-part': {
    type: 'epoch-part',
    generation: 7,
    epoch: 123_456_789_012,
    part: 1,
    partCount: 3,
    base: false,
    complete: true,
    releasedThrough: 123_456_789_000,
  },
  ack: { type: 'ack', generation: 7, epoch: 123_456_789_012, incarnation: 'inc-b-1' },
  nack: { type: 'nack', generation: 7, epoch: 41 },
  heartbeat: { type: 'heartbeat', sequence: 99, releasedThrough: 40 },
  'paired-hint': { type: 'paired-hint', generation: 8 },
  handover: { type: 'handover', epoch: 42 },
  release: { type: 'release' },
  offer: {
    type: 'offer',
    specJson: '{"name":"web"}',
    files: [{ name: 'kernel', sha256: DIGEST, bytes: 4096 }],
    address: '127.0.0.1:7701',
  },
  'need-files': { type: 'need-files', sha256: [DIGEST] },
  'file-part': { type: 'file-part', sha256: DIGEST, offset: 262_144, last: true },
  'offer-ok': { type: 'offer-ok' },
  'serial-in': { type: 'serial-in', offset: 1_000 },
  'serial-in-state': { type: 'serial-in-state', applied: 1_048, acked: 1_000 },
  'offer-refused': { type: 'offer-refused', reason: 'QEMU is not installed' },
} satisfies { [T in VmMessage['type']]: MessageOf<T> };

/** Raw bytes that go with the sample of a type. */
export function samplePayload(type: VmMessage['type']): Uint8Array {
  const carries = ['epoch-part', 'file-part', 'serial-in'].includes(type);
  return Uint8Array.from({ length: carries ? 48 : 0 }, (_, i) => (i * 37) & 0xff);
}

export const SAMPLE_LIST: readonly VmMessage[] = Object.values(SAMPLES);
