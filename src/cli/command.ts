/** What a command is: one entry in the table that also makes the help. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MirrorError } from '../core/errors.js';
import { controlPath } from '../host/control-socket.js';
import { requireSecure } from '../host/host-config.js';
import { NOT_A_SIZE, parseSize } from '../host/sizes.js';
import { parseAddress, type Address } from '../wire/address.js';

export interface Option {
  readonly type: 'string' | 'boolean';
  readonly about: string;
}

export interface Command {
  /** Words on the command line, such as `guest client`. */
  readonly name: string;
  readonly args: string;
  readonly about: string;
  readonly options: Record<string, Option>;
  /** Runs until a signal ends it, and then in order. */
  readonly service?: boolean;
  /** Settles with the exit code. */
  run(input: Input): Promise<number>;
}

export interface Input {
  readonly args: string[];
  readonly options: Record<string, string | boolean | undefined>;
  readonly json: boolean;
}

export class UsageError extends MirrorError {
  constructor(message: string) {
    super('USAGE', message);
  }
}

export const COMMON: Record<string, Option> = {
  json: { type: 'boolean', about: 'one JSON object on stdout' },
  socket: { type: 'string', about: 'control socket of the daemon' },
  'state-dir': { type: 'string', about: 'state directory of the host' },
  help: { type: 'boolean', about: 'this text' },
};

export function parseInput(command: Command, argv: string[]): Input {
  try {
    const options = { ...COMMON, ...command.options };
    const plain = Object.fromEntries(
      Object.entries(options).map(([name, option]) => [name, { type: option.type }]),
    );
    const { values, positionals } = parseArgs({
      args: argv,
      options: plain,
      allowPositionals: true,
    });
    const known = values as Record<string, string | boolean | undefined>;
    return { args: positionals, options: known, json: known['json'] === true };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

export function textOption(input: Input, name: string): string | undefined {
  const value = input.options[name];
  return typeof value === 'string' ? value : undefined;
}

export function need(input: Input, name: string): string {
  const value = textOption(input, name);
  if (value === undefined) throw new UsageError(`--${name} is missing`);
  return value;
}

export function vmArg(input: Input): string {
  const [vm, ...more] = input.args;
  if (vm === undefined) throw new UsageError('which VM? give its name (see mirror list)');
  if (more.length > 0) throw new UsageError(`too many arguments: ${more.join(' ')}`);
  return vm;
}

export function noArgs(input: Input): void {
  if (input.args.length > 0) throw new UsageError(`too many arguments: ${input.args.join(' ')}`);
}

export function optionalCount(input: Input, name: string): number | undefined {
  const value = textOption(input, name);
  if (value === undefined) return undefined;
  const count = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(count))
    throw new UsageError(`--${name} ${value}: not a whole number`);
  return count;
}

export function countOption(input: Input, name: string, standard: number): number {
  return optionalCount(input, name) ?? standard;
}

export function sizeOption(input: Input, name: string): number | undefined {
  const value = textOption(input, name);
  if (value === undefined) return undefined;
  const bytes = parseSize(value);
  if (bytes === null) throw new UsageError(`--${name} ${value}: ${NOT_A_SIZE}`);
  return bytes;
}

/** `10s`, `500ms` or plain seconds, in `ms`. */
export function durationOption(input: Input, name: string, standardMs: number): number {
  const value = textOption(input, name);
  if (value === undefined) return standardMs;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(value);
  if (!match) throw new UsageError(`--${name} ${value}: not a time such as 30s`);
  const unit = { ms: 1, s: 1_000, m: 60_000 }[match[2] ?? 's'] ?? 1_000;
  return Number(match[1]) * unit;
}

export function stateDirOf(input: Input): string {
  const given = textOption(input, 'state-dir');
  if (given !== undefined) return given;
  if (process.getuid?.() === 0) return '/var/lib/mirror';
  return join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local/state'), 'mirror');
}

export function socketOf(input: Input): string {
  const given = textOption(input, 'socket') ?? process.env['MIRROR_SOCKET'];
  return given ?? controlPath(stateDirOf(input));
}

/** Splits HOST:PORT, and refuses what is open to others unless told to. */
export function listenAddress(input: Input): Address {
  const text = need(input, 'listen');
  requireSecure(text, input.options['insecure'] === true);
  return parseAddress(text);
}

export function print(input: Input, human: string, json: unknown): void {
  process.stdout.write(input.json ? `${JSON.stringify(json)}\n` : `${human}\n`);
}
