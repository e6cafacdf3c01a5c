/** The YAML file of a VM. */
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { parseAttach } from '../network/attach.js';
import { ConfigError, readYaml } from './yaml-file.js';

const MIB = 1 << 20;
const UNITS: Record<string, number> = { KiB: 1024, MiB: MIB, GiB: 1 << 30 };
const EPOCH_MS = { min: 5, max: 1_000 };
const NOT_A_SIZE = 'is not a size such as 64MiB';
const NOT_AN_EPOCH = `must be auto, or such as 25ms, from ${EPOCH_MS.min}ms to ${EPOCH_MS.max}ms`;

export const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

const size = v.pipe(
  v.string(NOT_A_SIZE),
  v.regex(/^\d{1,7}(KiB|MiB|GiB)$/, NOT_A_SIZE),
  v.transform((text) => Number.parseInt(text, 10) * UNITS[text.replace(/\d+/, '')]),
);

const attach = v.pipe(
  v.string(),
  v.check(
    (text) => !/^(tap|user):/.test(text),
    'must be stream:HOST:PORT: the v86 engine has no tap: or user: networks (try mirror switch)',
  ),
  v.check((text) => /^(tap|user):/.test(text) || attaches(text), 'must be stream:HOST:PORT'),
);

function attaches(text: string): boolean {
  try {
    parseAttach(text);
    return true;
  } catch {
    return false;
  }
}

const nic = v.strictObject({
  id: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,31}$/, 'is not a NIC id')),
  mac: v.pipe(
    v.string(),
    v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i, 'is not a MAC address such as 52:54:00:12:34:56'),
    v.check((mac) => (Number.parseInt(mac, 16) & 1) === 0, 'is a group address, not one NIC’s'),
  ),
  attach,
  model: v.optional(
    v.pipe(
      v.picklist(['auto', 'ne2k', 'virtio'], 'must be auto or ne2k'),
      v.check((model) => model !== 'virtio', 'must be auto or ne2k: the v86 engine has no virtio'),
    ),
    'auto',
  ),
});

const engine = v.picklist(['auto', 'v86', 'qemu'], 'must be auto, v86 or qemu');

const file = v.pipe(v.string('must be a file'), v.minLength(1, 'must be a file'));

const schema = v.strictObject({
  name: v.pipe(
    v.string('must be a name'),
    v.regex(NAME, 'is not a VM name: a-z, 0-9 and -, at most 63'),
  ),
  engine: v.optional(engine, 'auto'),
  memory: v.pipe(
    size,
    v.minValue(4 * MIB, 'must be at least 4MiB'),
    v.maxValue(1024 * MIB, 'must be at most 1GiB with v86'),
    v.check((bytes) => bytes % MIB === 0, 'must be whole MiB'),
  ),
  cpus: v.optional(v.literal(1, 'must be 1 with v86'), 1),
  boot: v.strictObject({
    kernel: file,
    initrd: v.optional(v.nullable(file), null),
    cmdline: v.optional(v.string(), ''),
    disk: v.optional(v.never('the v86 engine cannot boot a mirrored disk: give a kernel')),
  }),
  nics: v.optional(v.pipe(v.array(nic), v.maxLength(1, 'v86 takes one NIC')), []),
  disks: v.optional(
    v.pipe(
      v.array(v.unknown()),
      v.maxLength(0, 'cannot be mirrored with v86 yet, and are never dropped: leave them out'),
    ),
    [],
  ),
  protection: v.optional(
    v.picklist(['mirror'], 'must be mirror: the weaker levels are not there yet'),
    'mirror',
  ),
  priority: v.optional(v.pipe(v.number(), v.integer()), 100),
  epoch: v.optional(v.pipe(v.string(NOT_AN_EPOCH), v.check(isEpoch, NOT_AN_EPOCH)), 'auto'),
  onPeerLoss: v.optional(v.picklist(['solo', 'stall'], 'must be solo or stall'), 'solo'),
});

export interface VmConfig {
  readonly name: string;
  /** `auto` is v86 for now. */
  readonly engine: 'auto' | 'v86' | 'qemu';
  readonly memoryBytes: number;
  readonly boot: { kernel: string; initrd: string | null; cmdline: string };
  readonly nics: { id: string; mac: string; attach: string; model: 'auto' | 'ne2k' | 'virtio' }[];
  /** `null`: chosen by what epochs cost. */
  readonly epochMs: number | null;
  readonly onPeerLoss: 'solo' | 'stall';
}

function isEpoch(text: string): boolean {
  if (text === 'auto') return true;
  const epochMs = Number(/^(\d+)ms$/.exec(text)?.[1] ?? Number.NaN);
  return epochMs >= EPOCH_MS.min && epochMs <= EPOCH_MS.max;
}

export function parseEpoch(text: string): number | null {
  if (!isEpoch(text)) throw new ConfigError([`epoch: ${text} ${NOT_AN_EPOCH}`]);
  return text === 'auto' ? null : Number.parseInt(text, 10);
}

/** `path` is where the text came from: relative files are looked up beside it. */
export function parseVmConfig(text: string, path: string): VmConfig {
  const parsed = readYaml(schema, text, path);
  const { name, engine, memory, boot, nics, epoch, onPeerLoss } = parsed;
  const file = (name: string): string => resolve(dirname(path), name);
  return {
    ...{ name, engine, memoryBytes: memory, nics, onPeerLoss },
    boot: {
      kernel: boot.kernel === 'builtin' ? 'builtin' : file(boot.kernel),
      initrd: boot.initrd === null ? null : file(boot.initrd),
      cmdline: boot.cmdline,
    },
    epochMs: parseEpoch(epoch),
  };
}
