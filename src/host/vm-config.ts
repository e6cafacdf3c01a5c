/**
 * The YAML file of a VM. A wrong one gets one clear line for each fault, with its line and column.
 */
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { isMap, LineCounter, parseDocument, type Document } from 'yaml';
import { MirrorError } from '../core/errors.js';

export class ConfigError extends MirrorError {
  constructor(faults: readonly string[]) {
    super('BAD_CONFIG', faults.join('\n'));
  }
}

const MIB = 1 << 20;
const UNITS: Record<string, number> = { KiB: 1024, MiB: MIB, GiB: 1 << 30 };

const size = v.pipe(
  v.string(),
  v.regex(/^\d+(KiB|MiB|GiB)$/, 'is not a size such as 64MiB'),
  v.transform((text) => Number.parseInt(text, 10) * UNITS[text.replace(/\d+/, '')]),
);

const nic = v.strictObject({
  id: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,31}$/, 'is not a NIC id')),
  mac: v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i, 'is not a MAC address')),
  attach: v.pipe(
    v.string(),
    v.regex(/^stream:[^:]+:\d+$/, 'must be stream:HOST:PORT: the v86 engine has no other kind'),
  ),
  model: v.optional(v.picklist(['auto', 'ne2k', 'virtio']), 'auto'),
});

const schema = v.strictObject({
  name: v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'is not a VM name')),
  engine: v.optional(v.picklist(['auto', 'v86'], 'must be auto or v86'), 'auto'),
  memory: v.pipe(
    size,
    v.minValue(4 * MIB, 'must be at least 4MiB'),
    v.maxValue(1024 * MIB, 'must be at most 1GiB with v86'),
  ),
  cpus: v.optional(v.literal(1, 'must be 1 with v86'), 1),
  boot: v.strictObject({
    kernel: v.string(),
    initrd: v.optional(v.nullable(v.string()), null),
    cmdline: v.optional(v.string(), ''),
  }),
  nics: v.optional(v.pipe(v.array(nic), v.maxLength(1, 'v86 takes one NIC')), []),
  disks: v.optional(
    v.pipe(v.array(v.unknown()), v.maxLength(0, 'cannot be mirrored yet: leave disks out')),
    [],
  ),
  protection: v.optional(v.picklist(['mirror'], 'must be mirror'), 'mirror'),
  priority: v.optional(v.pipe(v.number(), v.integer()), 100),
  epoch: v.optional(
    v.pipe(v.string(), v.regex(/^(auto|\d+ms)$/, 'must be auto or such as 25ms')),
    'auto',
  ),
  onPeerLoss: v.optional(v.picklist(['solo', 'stall']), 'solo'),
});

export interface VmConfig {
  readonly name: string;
  readonly engine: 'auto' | 'v86';
  readonly memoryBytes: number;
  readonly boot: { kernel: string; initrd: string | null; cmdline: string };
  readonly nics: { id: string; mac: string; attach: string; model: 'auto' | 'ne2k' | 'virtio' }[];
  /** `null`: chosen by what epochs cost. */
  readonly epochMs: number | null;
  readonly onPeerLoss: 'solo' | 'stall';
}

export function parseEpoch(text: string): number | null {
  if (text === 'auto') return null;
  const epochMs = Number(/^(\d+)ms$/.exec(text)?.[1] ?? Number.NaN);
  if (!(epochMs >= 5 && epochMs <= 1_000))
    throw new ConfigError([`epoch: ${text} is not auto, nor from 5ms to 1000ms`]);
  return epochMs;
}

/** `path` is where the text came from: relative files are looked up beside it. */
export function parseVmConfig(text: string, path: string): VmConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  if (document.errors.length > 0)
    throw new ConfigError(
      document.errors.map((error) => {
        const { line, col } = lines.linePos(error.pos[0]);
        return `${path}:${line}:${col}: ${error.message.split('\n')[0]}`;
      }),
    );
  const parsed = v.safeParse(schema, document.toJS());
  if (!parsed.success)
    throw new ConfigError(parsed.issues.map((issue) => fault(issue, document, lines, path)));
  const { name, engine, memory, boot, nics, epoch, onPeerLoss } = parsed.output;
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

function fault(
  issue: v.BaseIssue<unknown>,
  document: Document,
  lines: LineCounter,
  path: string,
): string {
  const keys = (issue.path ?? []).map((item) => item.key as string | number);
  const { line, col } = lines.linePos(offsetOf(document, keys));
  const what = issue.expected === 'never' ? 'is not a known key' : issue.message;
  return `${path}:${line}:${col}: ${keys.join('.') || 'file'}: ${what}`;
}

/** Where the deepest part of `keys` that is there begins. */
function offsetOf(document: Document, keys: (string | number)[]): number {
  for (let depth = keys.length; depth > 0; depth -= 1) {
    const parent = document.getIn(keys.slice(0, depth - 1), true);
    const key = keys[depth - 1];
    if (isMap(parent)) {
      const pair = parent.items.find((item) => String(item.key) === String(key));
      const range = (pair?.key as { range?: [number, number, number] } | undefined)?.range;
      if (range) return range[0];
    }
    const node = document.getIn(keys.slice(0, depth), true) as { range?: number[] } | undefined;
    if (node?.range) return node.range[0];
  }
  return 0;
}
