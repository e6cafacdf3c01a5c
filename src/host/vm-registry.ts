/** What a host durably knows of its VMs, so that a daemon that starts again finds them. */
import { readFileSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from './note-store.js';
import type { VmConfig } from './vm-config.js';

export interface KnownVm {
  readonly name: string;
  readonly vmUuid: string;
  readonly config: VmConfig;
  /** Address of the other host, if one is wanted. */
  readonly peer: string | null;
  /** This host owned the VM when last seen. */
  readonly owner: boolean;
}

export class VmRegistry {
  private readonly dir: string;
  private turn: Promise<void> = Promise.resolve();

  constructor(stateDir: string) {
    this.dir = join(stateDir, 'vms');
  }

  load(): KnownVm[] {
    try {
      return readdirSync(this.dir)
        .filter((name) => name.endsWith('.json'))
        .map((name) => JSON.parse(readFileSync(join(this.dir, name), 'utf8')) as KnownVm);
    } catch {
      return [];
    }
  }

  save(vm: KnownVm): Promise<void> {
    const mine = this.turn.then(() =>
      replaceFile(this.dir, `${vm.name}.json`, `${JSON.stringify(vm)}\n`),
    );
    this.turn = mine.catch(() => {});
    return mine;
  }

  forget(name: string): Promise<void> {
    return rm(join(this.dir, `${name}.json`), { force: true });
  }
}
