/** `mirror doctor`: what this host can do. */
import { existsSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { builtinKernel } from '../guest/builtin.js';
import {
  QemuChooser,
  type AcceleratorSetting,
  type QemuChoice,
} from '../machine/qemu/qemu-choice.js';
import { kvmIsUsable, whatKvmNeeds, whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import { print, textOption, UsageError, type Command } from './command.js';

function kvm(): string {
  if (kvmIsUsable()) return 'usable';
  return whatKvmNeeds() || 'there, but in software: most guests do not run on it';
}

/** Tried here and now. */
async function qemu(
  setting: AcceleratorSetting,
): Promise<{ text: string; choice: QemuChoice | null }> {
  const missing = whatQemuNeeds();
  if (missing !== '') return { text: missing, choice: null };
  const choice = await new QemuChooser(builtinKernel, null).choose(setting);
  const { accelerator, driver } = choice;
  return { text: `ready with ${accelerator}, captures by ${driver.name}: ${driver.why}`, choice };
}

function isAccelerator(text: string): text is AcceleratorSetting {
  return ['auto', 'kvm', 'tcg'].includes(text);
}

export const doctor: Command = {
  name: 'doctor',
  args: '',
  about: 'what this host can do',
  options: { accelerator: { type: 'string', about: 'auto, kvm or tcg: what to try QEMU with' } },
  async run(input) {
    const accelerator = textOption(input, 'accelerator') ?? 'auto';
    if (!isAccelerator(accelerator))
      throw new UsageError(`--accelerator ${accelerator}: must be auto, kvm or tcg`);
    const patched = existsSync(new URL('../../wasm/v86-dirty.wasm', import.meta.url));
    const { text: qemuText, choice } = await qemu(accelerator);
    const report = {
      node: process.version,
      processors: availableParallelism(),
      memoryMiB: Math.round(totalmem() / (1 << 20)),
      freeMiB: Math.round(freemem() / (1 << 20)),
      v86: patched ? 'ready, dirty pages by patched wasm' : 'ready, by comparing',
      qemu: qemuText,
      kvm: kvm(),
      setpriv: existsSync('/usr/bin/setpriv') ? 'present' : 'absent: apt install util-linux',
    };
    const text = Object.entries(report).map(([key, value]) => {
      return `${key.padEnd(12)}${value}`;
    });
    print(input, text.join('\n'), { ...report, qemuChoice: choice });
    return 0;
  },
};
