/** What a host durably knows of its VMs, so that a daemon that starts again finds them. */
import { readFileSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HostError } from './host-error.js';
import { replaceFile } from './note-store.js';
import { NAME, type VmConfig } from './vm-config.js';

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
  private readonly written = new Map<string, string>();
  private turn: Promise<void> = Promise.resolve();

  constructor(stateDir: string) {
    this.dir = join(stateDir, 'vms');
  }

  /** All that can be read; what cannot is told to `onFault` and left as it is. */
  load(onFault: (error: HostError) => void): KnownVm[] {
    const found: KnownVm[] = [];
    for (const name of this.names()) {
      try {
        const known = this.find(name);
        if (known) found.push(known);
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        onFault(error);
      }
    }
    return found;
  }

  /** Throws on a damaged file: to take it for absent would give a known VM a new identity. */
  find(name: string): KnownVm | null {
    const path = join(this.dir, `${name}.json`);
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    const known = parsed(text);
    if (known?.name === name) return known;
    throw new HostError(
      'BAD_STATE',
      `${path} is damaged: VM ${name} was left alone; put the file back from a backup, or remove ` +
        'it if no host runs this VM',
    );
  }

  save(vm: KnownVm): Promise<void> {
    const text = `${JSON.stringify(vm)}\n`;
    return this.inTurn(async () => {
      if (this.written.get(vm.name) === text) return;
      this.written.delete(vm.name);
      await replaceFile(this.dir, `${vm.name}.json`, text);
      this.written.set(vm.name, text);
    });
  }

  forget(name: string): Promise<void> {
    return this.inTurn(async () => {
      this.written.delete(name);
      await rm(join(this.dir, `${name}.json`), { force: true });
    });
  }

  /** Settles once all that was asked for so far is done. */
  async settled(): Promise<void> {
    await this.turn;
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const mine = this.turn.then(work);
    this.turn = mine.catch(() => {});
    return mine;
  }

  private names(): string[] {
    try {
      return readdirSync(this.dir)
        .filter((file) => file.endsWith('.json'))
        .map((file) => file.slice(0, -'.json'.length))
        .filter((name) => NAME.test(name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }
}

/** As an older version wrote it. */
const NO_DISKS = { disks: [], unsafeDisks: false };

function parsed(text: string): KnownVm | null {
  try {
    const known = JSON.parse(text) as Partial<KnownVm> | null;
    const { name, vmUuid, config, peer, owner } = known ?? {};
    const whole =
      typeof name === 'string' &&
      typeof vmUuid === 'string' &&
      typeof config?.memoryBytes === 'number' &&
      (typeof config.boot?.kernel === 'string' || typeof config.boot?.disk === 'string') &&
      (peer === null || typeof peer === 'string') &&
      typeof owner === 'boolean';
    return whole ? ({ ...known, config: { ...NO_DISKS, ...config } } as KnownVm) : null;
  } catch {
    return null;
  }
}
