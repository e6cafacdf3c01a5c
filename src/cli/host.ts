/**
 * `mirror host`, `mirror witness`, `mirror switch`: what runs in the foreground until it is told
 * to end.
 */
import { ControlServer, controlPath } from '../host/control-server.js';
import { Daemon } from '../host/daemon.js';
import { EthernetSwitch } from '../network/switch.js';
import { WitnessServer } from '../pool/witness-server.js';
import {
  countOption,
  listenAddress,
  need,
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
function untilSignal(close: () => Promise<void> | void): Promise<number> {
  return new Promise((resolve) => {
    const end = (): void => {
      void Promise.resolve(close()).then(() => resolve(0));
    };
    process.once('SIGTERM', end);
    process.once('SIGINT', end);
  });
}

export const host: Command = {
  name: 'host',
  args: '',
  about: "run this host's daemon in the foreground",
  options: {
    name: { type: 'string', about: 'name of this host in its pool' },
    listen,
    arbiter: { type: 'string', about: 'witness:HOST:PORT' },
    'detect-ms': { type: 'string', about: 'silence that counts as loss, 1000 unless given' },
    insecure,
  },
  async run(input: Input): Promise<number> {
    const name = need(input, 'name');
    if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(name)) throw new UsageError(`--name ${name}: not a name`);
    const { host, port } = listenAddress(input);
    const arbiter = need(input, 'arbiter');
    if (!/^witness:.+:\d+$/.test(arbiter))
      throw new UsageError(`--arbiter ${arbiter}: not witness:HOST:PORT`);
    const detectMs = countOption(input, 'detect-ms', 1_000);
    if (detectMs < 100) throw new UsageError('--detect-ms: at least 100');
    const stateDir = stateDirOf(input);
    const address = `${host}:${port}`;
    const daemon = new Daemon({ name, address, stateDir, arbiter, detectMs });
    const control = new ControlServer(daemon);
    await control.listen(controlPath(stateDir));
    await daemon.listen(host, port);
    say(`host ${name} listens on ${address}, control socket ${controlPath(stateDir)}`);
    return untilSignal(() => {
      control.close();
      daemon.close();
    });
  },
};

export const witness: Command = {
  name: 'witness',
  args: '',
  about: 'run the small third vote',
  options: { listen, insecure },
  async run(input: Input): Promise<number> {
    const { host, port } = listenAddress(input);
    const server = new WitnessServer(textOption(input, 'state-dir') ?? stateDirOf(input), say);
    const bound = await server.listen(host, port);
    say(`witness listens on ${host}:${bound}`);
    return untilSignal(() => server.close());
  },
};

export const ethernetSwitch: Command = {
  name: 'switch',
  args: '',
  about: 'run a small Ethernet switch for stream: NICs',
  options: { listen, insecure },
  async run(input: Input): Promise<number> {
    const { host, port } = listenAddress(input);
    const server = new EthernetSwitch();
    const bound = await server.listen(host, port);
    say(`switch listens on ${bound.host}:${bound.port}`);
    return untilSignal(() => server.close());
  },
};
