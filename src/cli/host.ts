/**
 * `mirror host`, `mirror witness`, `mirror switch`: what runs in the foreground until it is told
 * to end.
 */
import { readFileSync } from 'node:fs';
import { ControlServer } from '../host/control-server.js';
import { controlPath } from '../host/control-socket.js';
import { Daemon } from '../host/daemon.js';
import { hostConfig, parseHostSettings, type HostSettings } from '../host/host-config.js';
import { WitnessControl } from '../host/trust-api.js';
import { NAME } from '../host/vm-config.js';
import { parseAddress } from '../wire/address.js';
import { EthernetSwitch } from '../network/switch.js';
import { WitnessServer } from '../pool/witness-server.js';
import {
  optionalCount,
  sizeOption,
  listenAddress,
  need,
  noArgs,
  print,
  stateDirOf,
  textOption,
  UsageError,
  type Command,
  type Input,
} from './command.js';

const listen = { type: 'string', about: 'HOST:PORT to listen on' } as const;
const advertise = {
  type: 'string',
  about: 'HOST:PORT where peers dial it, if not the same',
} as const;
const insecure = { type: 'boolean', about: 'allow plain connections beyond loopback' } as const;

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Settles with the exit code once a signal asks for the end. */
function untilSignal(): Promise<number> {
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve(0));
    process.once('SIGINT', () => resolve(0));
  });
}

function settingsOf(input: Input): HostSettings {
  const path = textOption(input, 'config');
  const fromFile = path === undefined ? {} : parseHostSettings(readText(path), path);
  const given = {
    name: textOption(input, 'name'),
    listen: textOption(input, 'listen'),
    advertise: textOption(input, 'advertise'),
    arbiter: textOption(input, 'arbiter'),
    stateDir: textOption(input, 'state-dir'),
    detectMs: optionalCount(input, 'detect-ms'),
    accelerator: textOption(input, 'accelerator'),
    insecure: input.options['insecure'] === true ? true : undefined,
    memory: sizeOption(input, 'memory'),
    diskFolders: textOption(input, 'disks')?.split(':'),
  };
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...fromFile, ...(Object.fromEntries(set) as HostSettings) };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--config ${path}: cannot be read (${String(error)})`);
  }
}

export const host: Command = {
  name: 'host',
  args: '',
  about: "run this host's daemon in the foreground",
  service: true,
  options: {
    name: { type: 'string', about: 'name of this host in its pool' },
    listen,
    advertise,
    arbiter: {
      type: 'string',
      about: 'witness:HOST:PORT, etcd:HOST:PORT,..., file:/PATH, device:/PATH or none',
    },
    'detect-ms': { type: 'string', about: 'silence that counts as loss, 1000 unless given' },
    accelerator: { type: 'string', about: 'auto, kvm or tcg, for QEMU machines' },
    disks: { type: 'string', about: 'DIR:DIR where VMs of other hosts may have disks here' },
    memory: { type: 'string', about: 'what its VMs may take all together, such as 8GiB' },
    config: { type: 'string', about: 'the same in a file: name, listen, arbiter, stateDir, ...' },
    insecure,
  },
  async run(input: Input): Promise<number> {
    noArgs(input);
    const config = hostConfig(settingsOf(input), stateDirOf(input));
    const daemon = new Daemon(config, { onFault: say });
    const control = new ControlServer(daemon);
    const socket = textOption(input, 'socket') ?? controlPath(config.stateDir);
    try {
      daemon.claim();
      await control.listen(socket);
      const address = await daemon.listen();
      say(`host ${config.name} listens on ${address}, control socket ${socket}`);
      if (input.json) print(input, '', { name: config.name, address, socket });
      return await untilSignal();
    } finally {
      control.close();
      await daemon.close();
    }
  },
};

export const witness: Command = {
  name: 'witness',
  args: '',
  about: 'run the small third vote',
  service: true,
  options: {
    listen,
    advertise,
    name: { type: 'string', about: 'its name among those that it is paired with: witness' },
    insecure,
  },
  async run(input: Input): Promise<number> {
    noArgs(input);
    const { host, port } = parseAddress(need(input, 'listen'));
    const name = textOption(input, 'name') ?? 'witness';
    if (!NAME.test(name)) throw new UsageError(`--name ${name}: not a name (a-z, 0-9 and -)`);
    const stateDir = stateDirOf(input);
    const server = new WitnessServer({
      ...{ name, stateDir, say, insecure: input.options['insecure'] === true },
      advertise: textOption(input, 'advertise') ?? null,
    });
    const control = new WitnessControl(server.keeper);
    try {
      server.claim();
      await control.listen(textOption(input, 'socket') ?? controlPath(stateDir));
      const bound = await server.listen(host, port);
      say(`witness listens on ${host}:${bound}`);
      if (input.json) print(input, '', { address: `${host}:${bound}` });
      return await untilSignal();
    } finally {
      control.close();
      await server.close();
    }
  },
};

export const ethernetSwitch: Command = {
  name: 'switch',
  args: '',
  about: 'run a small Ethernet switch for stream: NICs',
  service: true,
  options: { listen, insecure },
  async run(input: Input): Promise<number> {
    noArgs(input);
    const { host, port } = listenAddress(input);
    const server = new EthernetSwitch();
    const bound = await server.listen(host, port);
    say(`switch listens on ${bound.host}:${bound.port}`);
    if (input.json) print(input, '', { address: `${bound.host}:${bound.port}` });
    const code = await untilSignal();
    await server.close();
    return code;
  },
};
