/** The commands about one VM: start, stop, protect, unprotect, takeover, reseed. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MirrorError } from '../core/errors.js';
import { NAME } from '../host/vm-config.js';
import { parseAddress } from '../wire/address.js';
import { ControlClient, ControlError } from './control-client.js';
import {
  countOption,
  durationOption,
  need,
  print,
  socketOf,
  stateDirOf,
  textOption,
  UsageError,
  vmArg,
  type Command,
  type Input,
} from './command.js';
import { waitForState } from './status.js';

const BUSY_TRIES_MAX = 100;
const BUSY_REST_MS = 20;

const peerOption = {
  type: 'string',
  about: 'name (see mirror hosts) or HOST:PORT of the host that is to mirror it',
} as const;
const unsafeDisks = {
  type: 'boolean',
  about: 'mirror it though it writes to disks that are not mirrored',
} as const;
const timeout = { type: 'string', about: 'such as 30s; past it exit code 124' } as const;

/** A path to a VM's file, or a name looked up in the state directory. */
function vmFile(input: Input, vm: string): { yaml: string; path: string } {
  const path = /[/.]/.test(vm) ? resolve(vm) : join(stateDirOf(input), 'vms', `${vm}.yaml`);
  try {
    return { yaml: readFileSync(path, 'utf8'), path };
  } catch (error) {
    const text = `there is no VM file ${path} to be read: nothing was started`;
    throw new MirrorError('NO_SUCH_VM', text, { cause: error });
  }
}

export const start: Command = {
  name: 'start',
  args: '<vm>',
  about: 'start a VM (a name, or a path to its file) and return when it is protected',
  options: {
    peer: peerOption,
    epoch: { type: 'string', about: 'auto, or such as 25ms' },
    engine: { type: 'string', about: 'auto, v86 or qemu' },
    protection: { type: 'string', about: 'mirror, the only level yet' },
    'audit-every': { type: 'string', about: 'compare all of memory every so many epochs' },
    audit: { type: 'boolean', about: 'compare all of memory at every epoch' },
    'unsafe-disks': unsafeDisks,
    'no-wait': { type: 'boolean', about: 'return as soon as it is started' },
    timeout,
  },
  async run(input) {
    const client = new ControlClient(socketOf(input));
    const peer = textOption(input, 'peer') ?? null;
    if (peer !== null && !NAME.test(peer)) parseAddress(peer);
    oneOf(input, 'engine', ['auto', 'v86', 'qemu']);
    oneOf(input, 'protection', ['mirror']);
    const timeoutMs = durationOption(input, 'timeout', 60_000);
    const auditEvery = input.options['audit'] === true ? 1 : countOption(input, 'audit-every', 0);
    const { name } = await client.call<{ name: string }>('start', {
      ...vmFile(input, vmArg(input)),
      ...{
        peer,
        auditEvery,
        unsafeDisks: input.options['unsafe-disks'] === true,
        epoch: textOption(input, 'epoch'),
        engine: textOption(input, 'engine'),
      },
    });
    if (input.options['no-wait'] === true) {
      print(input, `${name} is starting`, { name, state: 'starting' });
      return 0;
    }
    const wanted = peer === null ? 'solo' : 'protected';
    return waitForState(client, input, name, wanted, timeoutMs);
  },
};

/** What this version knows of an option that will take more. */
function oneOf(input: Input, option: string, known: string[]): void {
  const value = textOption(input, option);
  if (value === undefined || known.includes(value)) return;
  throw new UsageError(`--${option} ${value}: this version knows ${known.join(' and ')}`);
}

function commandOf(
  name: string,
  about: string,
  method: string,
  done: string,
  options: Command['options'] = {},
  params: (input: Input) => Record<string, unknown> = () => ({}),
): Command {
  return {
    ...{ name, args: '<vm>', about, options },
    async run(input) {
      const vm = vmArg(input);
      const client = new ControlClient(socketOf(input));
      const asked = { vm, method: 'command', command: method, ...params(input) };
      await patiently(() => client.call('vm', asked));
      print(input, `${vm} ${done}`, { name: vm, done: true });
      return 0;
    },
  };
}

/** A VM in the middle of a capture takes no switch-over: a moment later it does. */
async function patiently(ask: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await ask();
      return;
    } catch (error) {
      const busy = error instanceof ControlError && /busy/.test(error.message);
      if (!busy || tries === BUSY_TRIES_MAX) throw error;
      await sleep(BUSY_REST_MS);
    }
  }
}

export const stop = commandOf('stop', 'last epoch, its output, then stopped', 'stop', 'is stopped');

export const unprotect = commandOf(
  'unprotect',
  'go on without a mirror',
  'unprotect',
  'runs unprotected',
);

const planned = commandOf(
  'takeover',
  'planned switch-over to the standby',
  'handover',
  'runs on the other host now',
  {
    force: {
      type: 'boolean',
      about: 'given to the other host: the owner is gone for good, I made sure of it',
    },
  },
);

export const takeover: Command = {
  ...planned,
  async run(input) {
    if (input.options['force'] !== true) return planned.run(input);
    const vm = vmArg(input);
    const asked = new ControlClient(socketOf(input)).call<{ memoryLost: boolean }>('force', { vm });
    const { memoryLost } = await asked;
    const how = memoryLost ? 'is booted anew: its memory was lost' : 'is being taken over';
    print(input, `${vm} ${how}`, { name: vm, memoryLost });
    return 0;
  },
};

export const reseed = commandOf(
  'reseed',
  'the arbiter lost its memory and this host owns the VM: write the record anew',
  'reseed',
  'has its record written anew',
  { yes: { type: 'boolean', about: 'I made sure that no other host runs this VM' } },
  (input) => {
    if (input.options['yes'] !== true)
      throw new UsageError(
        'reseed overrides a safety rule: make sure that no other host runs ' +
          'this VM, then add --yes',
      );
    return {};
  },
);

export const protect = commandOf(
  'protect',
  'mirror a running VM to another host',
  'protect',
  'is being protected; see mirror status',
  { peer: peerOption, 'unsafe-disks': unsafeDisks },
  (input) => ({
    peer: need(input, 'peer'),
    unsafeDisks: input.options['unsafe-disks'] === true,
  }),
);
