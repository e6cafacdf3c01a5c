/** What a daemon is told at its start: by `--config host.yaml`, by options, or by both. */
import * as v from 'valibot';
import type { AcceleratorSetting } from '../machine/qemu/qemu-choice.js';
import { parseArbiter, plainAddresses } from '../pool/arbiter.js';
import { isLoopback, parseAddress } from '../wire/address.js';
import { HostError } from './host-error.js';
import { size } from './sizes.js';
import { NAME } from './vm-config.js';
import { readYaml } from './yaml-file.js';

const ACCELERATORS = ['auto', 'kvm', 'tcg'] as const;
const DETECT_MS = { min: 100, max: 60_000 };

const schema = v.strictObject({
  name: v.optional(v.string()),
  listen: v.optional(v.string()),
  advertise: v.optional(v.string()),
  stateDir: v.optional(v.string()),
  arbiter: v.optional(v.string()),
  detectMs: v.optional(v.number()),
  insecure: v.optional(v.boolean()),
  accelerator: v.optional(v.picklist(ACCELERATORS, 'must be auto, kvm or tcg')),
  memory: v.optional(size),
});

export type HostSettings = v.InferOutput<typeof schema>;

export interface HostConfig {
  readonly name: string;
  readonly listen: string;
  /** Where peers dial this host, if not where it listens. */
  readonly advertise: string | null;
  readonly stateDir: string;
  readonly arbiter: string;
  readonly detectMs: number;
  readonly insecure: boolean;
  /** For QEMU machines. */
  readonly accelerator: AcceleratorSetting;
  /** What its VMs may take all together; `null`: what there is. */
  readonly memoryBytes: number | null;
}

export function parseHostSettings(text: string, path: string): HostSettings {
  return readYaml(schema, text, path);
}

/** Checks all of it; throws on the first fault. */
export function hostConfig(settings: HostSettings, stateDirStandard: string): HostConfig {
  const { name, listen, arbiter } = settings;
  const usage = (text: string): HostError => new HostError('USAGE', text);
  if (name === undefined) throw usage('the host has no name: give --name');
  if (!NAME.test(name)) throw usage(`--name ${name}: not a name (a-z, 0-9 and -, at most 63)`);
  if (listen === undefined) throw usage('where to listen? give --listen HOST:PORT');
  if (arbiter === undefined) throw usage('which arbiter? give --arbiter witness:HOST:PORT');
  const detectMs = settings.detectMs ?? 1_000;
  if (!(detectMs >= DETECT_MS.min && detectMs <= DETECT_MS.max))
    throw usage(`--detect-ms ${detectMs}: must be from ${DETECT_MS.min} to ${DETECT_MS.max}`);
  const insecure = settings.insecure ?? false;
  parseAddress(listen);
  const advertise = advertised(listen, settings.advertise);
  for (const address of plainAddresses(parseArbiter(arbiter))) requireSecure(address, insecure);
  const stateDir = settings.stateDir ?? stateDirStandard;
  const accelerator = settings.accelerator ?? 'auto';
  if (!ACCELERATORS.includes(accelerator))
    throw usage(`--accelerator ${accelerator}: must be auto, kvm or tcg`);
  const memoryBytes = settings.memory ?? null;
  const place = { name, listen, advertise, stateDir, arbiter };
  return { ...place, detectMs, insecure, accelerator, memoryBytes };
}

function advertised(listen: string, advertise: string | undefined): string | null {
  const wildcard = ['0.0.0.0', '::'].includes(parseAddress(listen).host);
  if (advertise === undefined && wildcard)
    throw new HostError(
      'USAGE',
      `--listen ${listen}: peers cannot dial that; add --advertise HOST:PORT, as they reach it`,
    );
  if (advertise !== undefined && parseAddress(advertise).port === 0)
    throw new HostError('USAGE', `--advertise ${advertise}: has no port`);
  return advertise ?? null;
}

/** For what has no encryption of its own: beyond loopback only if a person says so. */
export function requireSecure(address: string, insecure: boolean): void {
  if (insecure || isLoopback(parseAddress(address).host)) return;
  throw new HostError(
    'INSECURE',
    `${address} is not loopback, and such connections are not encrypted: nothing was done; ` +
      'on a network that you trust add --insecure',
  );
}
