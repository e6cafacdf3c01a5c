/** The record of each VM as this host has it, where two hosts have no arbiter: one file a VM. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RecordCopy } from '../core/pair-record.js';
import { parseRecord } from '../pool/witness-protocol.js';
import { HostError } from './host-error.js';
import { replaceFile } from './note-store.js';

const UUID = /^[0-9a-f-]{36}$/;
const HOLDS = ['holds', 'gave', 'seen'] as const;

export class PairStore {
  private readonly stateDir: string;

  constructor(stateDir: string) {
    this.stateDir = stateDir;
  }

  async load(vmUuid: string): Promise<RecordCopy | null> {
    const path = join(this.dir, this.nameOf(vmUuid));
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (text === null) return null;
    try {
      return parseCopy(JSON.parse(text));
    } catch (cause) {
      throw new HostError(
        'BAD_STATE',
        `${path} is damaged: its VM is left alone; put the file back from a backup, or remove it ` +
          'and run mirror reseed on the host that runs the VM',
        { cause },
      );
    }
  }

  /** On stable storage when this settles. */
  save(vmUuid: string, copy: RecordCopy): Promise<void> {
    return replaceFile(this.dir, this.nameOf(vmUuid), `${JSON.stringify(copy)}\n`);
  }

  /** What is about to be replaced by the record of the side that was forced. */
  async keepAside({ record }: RecordCopy): Promise<string> {
    const dir = asideDir(this.stateDir, record.vm, record.generation);
    await replaceFile(dir, 'record.json', `${JSON.stringify(record, null, 2)}\n`);
    return dir;
  }

  private get dir(): string {
    return join(this.stateDir, 'records');
  }

  private nameOf(vmUuid: string): string {
    if (!UUID.test(vmUuid)) throw new HostError('BAD_UUID', 'not the UUID of a VM');
    return `${vmUuid}.json`;
  }
}

/** Never deleted by Mirror: what a VM was that had to stop for one that was forced. */
export const asideDir = (stateDir: string, vm: string, generation: number): string =>
  join(stateDir, 'aside', `${vm}-${generation}`);

export function parseCopy(value: unknown): RecordCopy | null {
  if (value === null) return null;
  const { hold, record } = value as Record<string, unknown>;
  const known = HOLDS.find((one) => one === hold);
  if (!known) throw new HostError('BAD_LINE', 'a copy of a record with a bad hold');
  return { hold: known, record: parseRecord(JSON.stringify(record)) };
}
