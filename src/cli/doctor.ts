/** `mirror doctor`: what this host can do. */
import { accessSync, constants, existsSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { print, type Command } from './command.js';

function kvm(): string {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return 'present';
  } catch {
    return 'not usable';
  }
}

export const doctor: Command = {
  name: 'doctor',
  args: '',
  about: 'what this host can do',
  options: {},
  run(input) {
    const patched = existsSync(new URL('../../wasm/v86-dirty.wasm', import.meta.url));
    const report = {
      node: process.version,
      processors: availableParallelism(),
      memoryMiB: Math.round(totalmem() / (1 << 20)),
      freeMiB: Math.round(freemem() / (1 << 20)),
      engines: { v86: patched ? 'ready, dirty pages by patched wasm' : 'ready, by comparing' },
      kvm: kvm(),
      setpriv: existsSync('/usr/bin/setpriv') ? 'present' : 'absent: apt install util-linux',
    };
    const text = Object.entries(report).map(([key, value]) => {
      return `${key.padEnd(12)}${typeof value === 'object' ? `v86: ${value.v86}` : value}`;
    });
    print(input, text.join('\n'), report);
    return Promise.resolve(0);
  },
};
