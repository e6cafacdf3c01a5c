/**
 * `mirror host`, `mirror witness`, `mirror switch`: what runs in the foreground until it is told
 * to end.
 */
import { readFileSync } from 'node:fs';
import { ControlServer, controlPath } from '../host/control-server.js';
import { Daemon } from '../host/daemon.js';
import { hostConfig, parseHostSettings, type HostSettings } from '../host/host-config.js';
import { EthernetSwitch } from '../network/switch.js';
import { WitnessServer } from '../pool/witness-server.js';
import {
  optionalCount,
  listenAddress,
  noArgs,
  print,
  stateDirOf,
  textOption,
  UsageError,
  type Command,
  type Input,
} from './command.js';

const listen = { type: 'string', about: 'HOST:PORT to listen on' } as const;
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
    insecure: input.options['insecure'] === true ? true : undefined,
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
    advertise: { type: 'string', about: 'HOST:PORT where peers dial it, if not the same' },
    arbiter: {
      type: 'string',
      about: 'witness:HOST:PORT, etcd:HOST:PORT,..., file:/PATH, device:/PATH or none',
    },
    'detect-ms': { type: 'string', about: 'silence that counts as loss, 1000 unless given' },
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
  options: { listen, insecure },
  async run(input: Input): Promise<number> {
    noArgs(input);
    const { host, port } = listenAddress(input);
    const server = new WitnessServer(stateDirOf(input), say);
    try {
      const bound = await server.listen(host, port);
      say(`witness listens on ${host}:${bound}`);
      if (input.json) print(input, '', { address: `${host}:${bound}` });
      return await untilSignal();
    } finally {
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
