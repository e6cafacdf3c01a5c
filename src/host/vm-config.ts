/** The YAML file of a VM. */
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { ATTACH_FORMS, parseAttach } from '../network/attach.js';
import { diskFaults, disksSchema, toDiskConfig, type DiskConfig } from './disk-config.js';
import { MIB, size } from './sizes.js';
import { ConfigError, readYaml, type Fault } from './yaml-file.js';

const EPOCH_MS = { min: 5, max: 1_000 };
const NICS_MAX = 8;
/** Memory and its copy, by which a QEMU machine's dirty pages are found, in one wasm memory. */
const QEMU_BYTES_MAX = 1984 * MIB;
const V86_BYTES_MAX = 1024 * MIB;
const NOT_AN_EPOCH = `must be auto, or such as 25ms, from ${EPOCH_MS.min}ms to ${EPOCH_MS.max}ms`;

export const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

const attach = v.pipe(v.string(), v.check(attaches, `must be ${ATTACH_FORMS}`));

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
  model: v.optional(v.picklist(['auto', 'ne2k', 'virtio'], 'must be auto, ne2k or virtio'), 'auto'),
});

const engine = v.picklist(['auto', 'v86', 'qemu'], 'must be auto, v86 or qemu');

const file = v.pipe(v.string('must be a file'), v.minLength(1, 'must be a file'));

const fields = v.strictObject({
  name: v.pipe(
    v.string('must be a name'),
    v.regex(NAME, 'is not a VM name: a-z, 0-9 and -, at most 63'),
  ),
  engine: v.optional(engine, 'auto'),
  memory: v.pipe(
    size,
    v.minValue(4 * MIB, 'must be at least 4MiB'),
    v.check((bytes) => bytes % MIB === 0, 'must be whole MiB'),
  ),
  cpus: v.optional(v.literal(1, 'must be 1: more are not mirrored yet'), 1),
  boot: v.strictObject({
    kernel: v.optional(v.nullable(file), null),
    initrd: v.optional(v.nullable(file), null),
    cmdline: v.optional(v.string(), ''),
    disk: v.optional(v.nullable(v.string('must be the id of a disk')), null),
  }),
  nics: v.optional(v.pipe(v.array(nic), v.maxLength(NICS_MAX, `at most ${NICS_MAX}`)), []),
  disks: disksSchema,
  protection: v.optional(
    v.picklist(['mirror'], 'must be mirror: the weaker levels are not there yet'),
    'mirror',
  ),
  priority: v.optional(v.pipe(v.number(), v.integer()), 100),
  epoch: v.optional(v.pipe(v.string(NOT_AN_EPOCH), v.check(isEpoch, NOT_AN_EPOCH)), 'auto'),
  onPeerLoss: v.optional(v.picklist(['solo', 'stall'], 'must be solo or stall'), 'solo'),
});

/** What does not fit together, or the engine asked for cannot do; of `auto`, what none can. */
const schema = v.pipe(
  fields,
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { memory: memoryBytes, nics, engine, boot, disks } = dataset.value;
    const chosen = engine === 'v86' ? 'v86' : 'qemu';
    const faults = [
      ...diskFaults(boot, disks),
      ...faultsOf({ memoryBytes, nics, diskCount: disks.length }, chosen),
    ];
    for (const { keys, text } of faults) addIssue({ message: text, path: pathOf(keys) });
  }),
);

/** Only the keys are looked at. */
function pathOf(keys: Fault['keys']): [v.IssuePathItem, ...v.IssuePathItem[]] {
  const item = (key: string | number): v.IssuePathItem => ({
    ...{ type: 'unknown', origin: 'value', input: null, key, value: null },
  });
  const [first, ...others] = keys;
  return [item(first), ...others.map(item)];
}

export interface VmConfig {
  readonly name: string;
  readonly engine: 'auto' | 'v86' | 'qemu';
  readonly memoryBytes: number;
  /** Either `kernel` or `disk`, which is an id. */
  readonly boot: {
    kernel: string | null;
    initrd: string | null;
    cmdline: string;
    disk: string | null;
  };
  readonly nics: { id: string; mac: string; attach: string; model: 'auto' | 'ne2k' | 'virtio' }[];
  readonly disks: readonly DiskConfig[];
  /** A person's word that it is mirrored though it writes to disks that are not. */
  readonly unsafeDisks: boolean;
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

interface Demands extends Pick<VmConfig, 'memoryBytes' | 'nics'> {
  readonly diskCount: number;
}

function faultsOf({ memoryBytes, nics, diskCount }: Demands, engine: 'v86' | 'qemu'): Fault[] {
  const mib = (engine === 'v86' ? V86_BYTES_MAX : QEMU_BYTES_MAX) / MIB;
  const faults: Fault[] = [];
  if (memoryBytes > mib * MIB)
    faults.push({ keys: ['memory'], text: `must be at most ${mib}MiB with ${engine}` });
  if (engine === 'qemu') return faults;
  if (diskCount > 0) faults.push({ keys: ['disks'], text: 'v86 has none yet: take engine qemu' });
  if (nics.length > 1) faults.push({ keys: ['nics'], text: 'v86 takes one NIC' });
  nics.forEach(({ model }, index) => {
    if (model !== 'virtio') return;
    faults.push({ keys: ['nics', index, 'model'], text: 'the v86 engine has no virtio' });
  });
  return faults;
}

/** Why an engine cannot run this VM, each with its place; none: it can. */
export function engineFaults(vm: VmConfig, engine: 'v86' | 'qemu'): string[] {
  const faults = faultsOf({ ...vm, diskCount: vm.disks.length }, engine);
  return faults.map(({ keys, text }) => `${keys.join('.')}: ${text}`);
}

/** `path` is where the text came from: relative files are looked up beside it. */
export function parseVmConfig(text: string, path: string): VmConfig {
  const parsed = readYaml(schema, text, path);
  const { name, engine, memory, boot, nics, epoch, onPeerLoss } = parsed;
  const file = (name: string): string => resolve(dirname(path), name);
  const fileIfAny = (name: string | null): string | null => (name === null ? null : file(name));
  const kernel = boot.kernel === 'builtin' ? 'builtin' : fileIfAny(boot.kernel);
  return {
    ...{ name, engine, memoryBytes: memory, nics, onPeerLoss },
    boot: { kernel, initrd: fileIfAny(boot.initrd), cmdline: boot.cmdline, disk: boot.disk },
    disks: parsed.disks.map((disk) => toDiskConfig(disk, file(disk.file))),
    unsafeDisks: false,
    epochMs: parseEpoch(epoch),
  };
}
