/** `mirror doctor`: what this host can do. */
import { existsSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { kvmIsUsable, pickAccelerator, whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import { print, type Command } from './command.js';

function kvm(): string {
  if (kvmIsUsable()) return 'usable';
  return existsSync('/dev/kvm') ? 'no hardware KVM, or not allowed' : 'absent';
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
      v86: patched ? 'ready, dirty pages by patched wasm' : 'ready, by comparing',
      qemu: whatQemuNeeds() || `ready with ${pickAccelerator()}, dirty pages by comparing`,
      kvm: kvm(),
      setpriv: existsSync('/usr/bin/setpriv') ? 'present' : 'absent: apt install util-linux',
    };
    const text = Object.entries(report).map(([key, value]) => {
      return `${key.padEnd(12)}${value}`;
    });
    print(input, text.join('\n'), report);
    return Promise.resolve(0);
  },
};
