/**
 * Which accelerator and which way of capture this host uses, found by trying, and why. What was
 * found is kept in a file: it holds for one QEMU on one kernel.
 */
import { statSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { kvmIsUsable, QEMU_BINARY, qemuPath, whatKvmNeeds, whatQemuNeeds } from './qemu-host.js';
import type { Accelerator } from './qemu-args.js';
import { QemuError } from './qemu-error.js';

export type AcceleratorSetting = 'auto' | Accelerator;

export interface QemuChoice {
  readonly accelerator: Accelerator;
  readonly driver: { readonly name: 'colo' | 'savedev'; readonly why: string };
}

const CACHE_NAME = 'qemu-self-test.json';

export class QemuChooser {
  private readonly kernel: () => Uint8Array;
  private readonly cachePath: string | null;

  /** `kernel`: the guest of the self-test. `folder`: where findings are kept, if anywhere. */
  constructor(kernel: () => Uint8Array, folder: string | null) {
    this.kernel = kernel;
    this.cachePath = folder === null ? null : join(folder, CACHE_NAME);
  }

  /** Throws `QEMU_MISSING` if QEMU, or the accelerator that is asked for, is not here. */
  async choose(setting: AcceleratorSetting): Promise<QemuChoice> {
    const missing = whatQemuNeeds();
    if (missing !== '') throw new QemuError('QEMU_MISSING', missing);
    const noKvm = whatKvmNeeds();
    if (setting === 'kvm' && noKvm !== '')
      throw new QemuError('QEMU_MISSING', `KVM is asked for, but ${noKvm}`);
    if (setting === 'tcg') return tcg('TCG is asked for, and COLO needs KVM');
    if (setting === 'auto' && noKvm !== '') return tcg(`COLO needs KVM, and ${noKvm}`);
    if (setting === 'auto' && !kvmIsUsable())
      return tcg('the KVM of this host is one in software, on which most guests do not run');
    return this.remembered() ?? this.remember(await this.tryKvm(setting));
  }

  private async tryKvm(setting: AcceleratorSetting): Promise<QemuChoice> {
    const colo = await this.fault('colo');
    if (colo === '')
      return { accelerator: 'kvm', driver: { name: 'colo', why: 'its self-test passed' } };
    const why = `the self-test of COLO failed: ${colo}`;
    const savedev = await this.fault('savedev');
    if (savedev === '') return { accelerator: 'kvm', driver: { name: 'savedev', why } };
    if (setting === 'auto') return tcg(`the self-test of KVM failed: ${savedev}`);
    throw new QemuError('QEMU_MISSING', `KVM is asked for, but its self-test failed: ${savedev}`);
  }

  private async fault(name: 'colo' | 'savedev'): Promise<string> {
    try {
      // Loaded when it is needed: hosts without KVM need nothing that only Linux has.
      const { selfTest } = await import('./self-test.js');
      await selfTest('kvm', name, this.kernel());
      return '';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  private remembered(): QemuChoice | null {
    if (this.cachePath === null) return null;
    try {
      const { here, choice } = JSON.parse(readFileSync(this.cachePath, 'utf8')) as {
        here: string;
        choice: QemuChoice;
      };
      return here === thisHost() ? choice : null;
    } catch {
      return null;
    }
  }

  private remember(choice: QemuChoice): QemuChoice {
    if (this.cachePath !== null)
      writeFileSync(this.cachePath, JSON.stringify({ here: thisHost(), choice }), { mode: 0o600 });
    return choice;
  }
}

function tcg(why: string): QemuChoice {
  return { accelerator: 'tcg', driver: { name: 'savedev', why } };
}

/** Another QEMU, or another kernel, makes what was found void. */
function thisHost(): string {
  const path = qemuPath();
  const { mtimeMs, size } = statSync(path);
  return [QEMU_BINARY, path, mtimeMs, size, release(), kvmIsUsable()].join(' ');
}
