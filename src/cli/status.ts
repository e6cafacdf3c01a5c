/** `mirror status`, `list` and `wait`. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ToldStatus } from '../host/child-status.js';
import { ControlClient } from './control-client.js';
import {
  durationOption,
  need,
  print,
  socketOf,
  UsageError,
  vmArg,
  type Command,
  type Input,
} from './command.js';

const POLL_MS = 50;
const WATCH_MS = 500;
const FINAL = ['failed', 'stopped', 'superseded'];
const STATES = [
  ...['starting', 'syncing', 'protected', 'solo', 'standby', 'taking-over', 'waiting-arbiter'],
  ...FINAL,
];

function line(status: ToldStatus): string {
  const { name, state, role, host, peer, epoch, committedEpoch, pauseMs, commitMs } = status;
  const pair = peer ? ` with ${peer}` : '';
  const figures =
    status.epochMs > 0
      ? `  pause ${pauseMs.p50.toFixed(2)}/${pauseMs.p99.toFixed(2)} ms` +
        `  commit ${commitMs.p50.toFixed(1)} ms  ${status.bytesPerEpoch} bytes an epoch`
      : '';
  const place = `(${role} on ${host})  epoch ${epoch}/${committedEpoch}`;
  const why = status.reason ? `: ${status.reason}` : '';
  return `${name}  ${state}${pair}  ${place}${figures}${why}`;
}

const warningLines = ({ warnings }: ToldStatus): string[] =>
  (warnings ?? []).map(({ code, text }) => `  ${code}: ${text}`);

export const status: Command = {
  name: 'status',
  args: '[vm]',
  about: 'what a VM, or each of them, is doing',
  options: {
    watch: { type: 'boolean', about: 'again and again' },
    check: { type: 'boolean', about: 'exit code 5 unless protected' },
  },
  async run(input) {
    const client = new ControlClient(socketOf(input));
    const vm = input.args.length === 0 ? null : vmArg(input);
    for (;;) {
      const all =
        vm === null
          ? await client.call<ToldStatus[]>('list')
          : [await client.call<ToldStatus>('status', { vm })];
      for (const one of all) print(input, [line(one), ...warningLines(one)].join('\n'), one);
      if (all.length === 0) process.stderr.write('there are no VMs on this host\n');
      if (input.options['check'] === true)
        return all.every((one) => one.state === 'protected' || one.state === 'standby') ? 0 : 5;
      if (input.options['watch'] !== true) return 0;
      await sleep(WATCH_MS);
    }
  },
};

export const list: Command = {
  name: 'list',
  args: '',
  about: 'the VMs of this host',
  options: {},
  async run(input) {
    const all = await new ControlClient(socketOf(input)).call<ToldStatus[]>('list');
    print(input, all.map(line).join('\n') || 'no VMs', { vms: all });
    return 0;
  },
};

const lastWarning = (told: ToldStatus): string => told.warnings?.at(-1)?.text ?? '';

/** Polls until the state is there; 124 when time is up, 1 when it can no longer come. */
export async function waitForState(
  client: ControlClient,
  input: Input,
  vm: string,
  wanted: string,
  timeoutMs: number,
): Promise<number> {
  const endAt = performance.now() + timeoutMs;
  for (;;) {
    const now = await client.call<ToldStatus>('status', { vm });
    if (now.state === wanted) {
      print(input, line(now), now);
      return 0;
    }
    if (FINAL.includes(now.state)) {
      const why = now.reason ?? lastWarning(now);
      process.stderr.write(`${vm} is ${now.state}, it will not be ${wanted}: ${why}\n`);
      return 1;
    }
    if (performance.now() > endAt) {
      const why = lastWarning(now) ? `; last warning: ${lastWarning(now)}` : '';
      process.stderr.write(
        `${vm} is ${now.state}, not ${wanted} yet; it goes on by itself${why}\n`,
      );
      return 124;
    }
    await sleep(POLL_MS);
  }
}

export const wait: Command = {
  name: 'wait',
  args: '<vm>',
  about: 'wait until a VM is in a state',
  options: {
    for: { type: 'string', about: 'such as protected' },
    timeout: { type: 'string', about: 'such as 30s; past it exit code 124' },
  },
  run(input) {
    const client = new ControlClient(socketOf(input));
    const timeoutMs = durationOption(input, 'timeout', 60_000);
    const wanted = need(input, 'for');
    if (!STATES.includes(wanted))
      throw new UsageError(`--for ${wanted}: no state; there are ${STATES.join(', ')}`);
    return waitForState(client, input, vmArg(input), wanted, timeoutMs);
  },
};
