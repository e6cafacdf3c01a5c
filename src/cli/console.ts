/** `mirror console`: the VM's serial line, every byte once, from either of its hosts. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from './control-client.js';
import { TypedInput } from './typed-input.js';
import { countOption, print, socketOf, vmArg, type Command } from './command.js';

const POLL_MS = 50;

export interface ConsoleRead {
  readonly offset: number;
  readonly bytes: string;
  readonly gap: boolean;
}

function show(read: ConsoleRead, bytes: Uint8Array, from: number): void {
  if (read.gap) process.stderr.write(`[bytes ${from} to ${read.offset} are no longer kept]\n`);
  process.stdout.write(bytes);
}

export const console_: Command = {
  name: 'console',
  args: '<vm>',
  about: "the VM's serial line; what is typed goes to it",
  options: {
    from: { type: 'string', about: 'place in the stream to read from, 0 unless given' },
    'no-follow': { type: 'boolean', about: 'print what is there and end' },
  },
  async run(input) {
    const vm = vmArg(input);
    const client = new ControlClient(socketOf(input));
    let from = countOption(input, 'from', 0);
    const follow = input.options['no-follow'] !== true;
    const typed = follow ? new TypedInput(client, vm, process.stdin) : null;
    for (;;) {
      await typed?.send();
      const read = await client.vm<ConsoleRead>(vm, 'console-read', { from });
      const bytes = Buffer.from(read.bytes, 'base64');
      if (input.json && (read.gap || bytes.length > 0)) print(input, '', { vm, ...read });
      else if (!input.json) show(read, bytes, from);
      from = read.offset + bytes.length;
      if (!follow) return 0;
      await sleep(POLL_MS);
    }
  },
};
