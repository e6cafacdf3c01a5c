/** The commands about who knows whom: token, join, hosts, rotate, forget. */
import type { Alarm, PeerRow, Rotation } from '../wire/trust-keeper.js';
import { parseAddress } from '../wire/address.js';
import { shortForm } from '../wire/security.js';
import { ControlClient } from './control-client.js';
import {
  durationOption,
  need,
  noArgs,
  print,
  socketOf,
  UsageError,
  type Command,
  type Input,
} from './command.js';

const clientOf = (input: Input): ControlClient => new ControlClient(socketOf(input));

interface Joined {
  readonly name: string;
  readonly kind: string;
  readonly address: string;
  readonly alarms: readonly Alarm[];
}

function sayAlarms(alarms: readonly Alarm[]): void {
  for (const { text } of alarms) process.stderr.write(`${text}\n`);
}

const TOKEN_MS_STANDARD = 600_000;

export const token: Command = {
  name: 'token',
  args: '',
  about: 'print a token with which one other host can join this one, once',
  options: { for: { type: 'string', about: 'how long it is good, 10m unless given' } },
  async run(input) {
    noArgs(input);
    const forMs = durationOption(input, 'for', TOKEN_MS_STANDARD);
    const given = await clientOf(input).call<{
      token: string;
      expiresAtMs: number;
      address: string;
    }>('token', { forMs });
    const expires = new Date(given.expiresAtMs).toISOString();
    process.stderr.write(
      `good once, until ${expires}; on the other host: ` +
        `mirror join ${given.address || 'HOST:PORT'} --token T\n`,
    );
    print(input, given.token, { token: given.token, expires, address: given.address });
    return 0;
  },
};

export const join: Command = {
  name: 'join',
  args: '[HOST:PORT]',
  about: 'pair with the host or witness that gave a token',
  options: { token: { type: 'string', about: 'what mirror token printed there' } },
  async run(input) {
    const [address, ...more] = input.args;
    if (more.length > 0) throw new UsageError(`too many arguments: ${more.join(' ')}`);
    if (address !== undefined) parseAddress(address);
    const asked = { address: address ?? null, token: need(input, 'token') };
    const peer = await clientOf(input).call<Joined>('join', asked);
    print(input, `paired with ${peer.kind} ${peer.name} at ${peer.address}`, peer);
    sayAlarms(peer.alarms);
    return 0;
  },
};

export const hosts: Command = {
  name: 'hosts',
  args: '',
  about: 'the hosts and the witness that this one is paired with',
  options: {},
  async run(input) {
    noArgs(input);
    const told = await clientOf(input).call<{ hosts: PeerRow[]; alarms: Alarm[] }>('hosts');
    print(input, told.hosts.map(row).join('\n'), told);
    sayAlarms(told.alarms);
    return 0;
  },
};

function row({ name, kind, self, address, fingerprint, expires, reachable, rotating }: PeerRow) {
  const reach = self ? 'this one' : reachable ? 'in reach' : 'NOT in reach';
  const changing = rotating ? '  its next certificate is on its way' : '';
  const until = `until ${expires.slice(0, 10)}`;
  return `${name}  ${kind}  ${address}  ${shortForm(fingerprint)}  ${until}  ${reach}${changing}`;
}

export const rotate: Command = {
  name: 'rotate',
  args: '',
  about: 'make a new key and certificate, and use it once all paired hosts know it',
  options: {
    force: { type: 'boolean', about: 'use it now: hosts that do not know it must join anew' },
  },
  async run(input) {
    noArgs(input);
    const force = input.options['force'] === true;
    const rotation = await clientOf(input).call<Rotation>('rotate', { force });
    const { done, waitingFor, fingerprint } = rotation;
    const missed = waitingFor.join(', ');
    const text = !done
      ? `${missed} has yet to hear of the new certificate: the old one counts until then`
      : `the certificate is ${shortForm(fingerprint)} now` +
        (missed ? `; ${missed} must be paired anew` : '');
    print(input, text, rotation);
    return 0;
  },
};

export const forget: Command = {
  name: 'forget',
  args: '<host>',
  about: 'refuse a paired host or witness from now on',
  options: {},
  async run(input) {
    const [host, ...more] = input.args;
    if (host === undefined || more.length > 0) throw new UsageError('which host? see mirror hosts');
    await clientOf(input).call('forget', { host });
    print(input, `${host} is forgotten`, { name: host });
    return 0;
  },
};
