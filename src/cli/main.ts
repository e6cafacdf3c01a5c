#!/usr/bin/env node
/**
 * The command line: finds the command, parses its options, and turns every error into one exit
 * code.
 */
import { Exit, exitCodeOf } from '../host/error-map.js';
import { describe } from '../host/vm-process-error.js';
import { COMMON, parseInput, UsageError, type Command } from './command.js';
import { console_ } from './console.js';
import { demo } from './demo.js';
import { doctor } from './doctor.js';
import { guestBuild, guestClient } from './guest.js';
import { arbiterInit } from './arbiter.js';
import { ethernetSwitch, host, witness } from './host.js';
import { list, status, wait } from './status.js';
import { forget, hosts, join, rotate, token } from './trust.js';
import { version } from './version.js';
import { protect, reseed, start, stop, takeover, unprotect } from './vm.js';

const COMMANDS: readonly Command[] = [
  demo,
  host,
  witness,
  arbiterInit,
  token,
  join,
  hosts,
  rotate,
  forget,
  start,
  stop,
  status,
  list,
  wait,
  protect,
  unprotect,
  takeover,
  reseed,
  console_,
  ethernetSwitch,
  guestClient,
  guestBuild,
  doctor,
  version,
];

function help(): string {
  const rows = COMMANDS.map((command) => {
    return `  mirror ${`${command.name} ${command.args}`.padEnd(24)} ${command.about}`;
  });
  return (
    `Mirror keeps a VM alive through the loss of its host.\n\n${rows.join('\n')}\n\n` +
    '  mirror help <command>           its options\n\n' +
    'Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such VM or no daemon, 4 refused for\n' +
    'safety or capacity, 5 not protected, 124 timed out, 130 interrupted.\n'
  );
}

function helpOf(command: Command): string {
  const rows = Object.entries({ ...command.options, ...COMMON }).map(([name, option]) => {
    return `  --${name.padEnd(14)} ${option.about}`;
  });
  return `mirror ${command.name} ${command.args}\n  ${command.about}\n\n${rows.join('\n')}\n`;
}

function find(argv: string[]): { command: Command; rest: string[] } {
  for (const words of [2, 1]) {
    const command = COMMANDS.find((known) => known.name === argv.slice(0, words).join(' '));
    if (command) return { command, rest: argv.slice(words) };
  }
  throw new UsageError(`there is no command ${argv[0]}; see mirror help`);
}

async function run(argv: string[]): Promise<number> {
  const [first, ...more] = argv;
  const asked = first === undefined || first === 'help' || first === '--help';
  if (asked && more.length === 0) {
    const out = first === undefined ? process.stderr : process.stdout;
    out.write(help());
    return first === undefined ? Exit.usage : Exit.done;
  }
  const words = first === '--version' ? ['version', ...more] : argv;
  const { command, rest } = find(first === 'help' ? more : words);
  const input = parseInput(command, rest);
  if (first === 'help' || input.options['help'] === true) {
    process.stdout.write(helpOf(command));
    return Exit.done;
  }
  if (command.service !== true) process.once('SIGINT', () => process.exit(Exit.interrupted));
  return command.run(input);
}

// Whoever reads our output may have seen enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? Exit.done : Exit.failed);
});

run(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    const { code, message } = describe(error);
    process.stderr.write(`mirror: ${message}\n`);
    if (process.argv.includes('--json'))
      process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
    process.exit(exitCodeOf(code));
  },
);
