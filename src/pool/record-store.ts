/**
 * The witness's records on disk: one file a VM, replaced whole and fsynced before anybody hears of
 * it.
 */
import { mkdir, open, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';
import { mayFollow, type Proposal, type VmRecord } from '../core/record.js';
import { parseRecord } from './witness-protocol.js';

const UUID = /^[0-9a-f-]{36}$/;
const RECORDS_MAX = 10_000;

export class RecordStore {
  private readonly dir: string;
  private readonly known = new Map<string, VmRecord>();
  private readonly turn = new Map<string, Promise<unknown>>();
  private fileCount = 0;

  constructor(dir: string) {
    this.dir = dir;
  }

  /** Looks through what is there; what is damaged is named, and not served. */
  async prepare(onFault: (text: string) => void): Promise<void> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
    for (const file of await readdir(this.dir)) {
      const vmUuid = file.replace(/\.json$/, '');
      if (vmUuid === file || !UUID.test(vmUuid)) continue;
      this.fileCount += 1;
      await this.read(vmUuid).catch((error: unknown) => onFault(String(error)));
    }
  }

  read(vmUuid: string): Promise<VmRecord | null> {
    return this.inTurn(vmUuid, () => this.load(vmUuid));
  }

  cas(
    vmUuid: string,
    expectRevision: number,
    proposal: Proposal,
  ): Promise<{ won: boolean; record: VmRecord | null }> {
    return this.inTurn(vmUuid, async () => {
      const current = await this.load(vmUuid);
      if (proposal.vmUuid !== vmUuid)
        throw new MirrorError('BAD_PROPOSAL', `a change of ${vmUuid} for another VM`);
      if (!mayFollow(current, expectRevision, proposal)) return { won: false, record: current };
      if (!current && this.fileCount >= RECORDS_MAX)
        throw new MirrorError('TOO_MANY_RECORDS', `there are ${RECORDS_MAX} records already`);
      const record = { ...proposal, revision: expectRevision + 1 };
      // From here on until the file is replaced nothing is known for sure.
      this.known.delete(vmUuid);
      await this.write(vmUuid, record);
      if (!current) this.fileCount += 1;
      this.known.set(vmUuid, record);
      return { won: true, record };
    });
  }

  private inTurn<T>(vmUuid: string, work: () => Promise<T>): Promise<T> {
    const before = this.turn.get(vmUuid) ?? Promise.resolve();
    const mine = before.then(work, work);
    const settled = mine
      .catch(() => {})
      .then(() => {
        if (this.turn.get(vmUuid) === settled) this.turn.delete(vmUuid);
      });
    this.turn.set(vmUuid, settled);
    return mine;
  }

  private async load(vmUuid: string): Promise<VmRecord | null> {
    const known = this.known.get(vmUuid);
    if (known) return known;
    const path = this.path(vmUuid);
    let text: string;
    try {
      text = await this.readDurably(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
    const record = recordOf(text, vmUuid, path);
    this.known.set(vmUuid, record);
    return record;
  }

  /** What an interrupted writer left may not be on stable storage: nobody hears of it before. */
  private async readDurably(path: string): Promise<string> {
    const file = await open(path, 'r');
    try {
      const text = await file.readFile('utf8');
      await file.sync();
      await this.syncDir();
      return text;
    } finally {
      await file.close();
    }
  }

  private async write(vmUuid: string, record: VmRecord): Promise<void> {
    const path = this.path(vmUuid);
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(record)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await this.syncDir();
  }

  private async syncDir(): Promise<void> {
    const dir = await open(this.dir, 'r');
    try {
      await dir.sync();
    } finally {
      await dir.close();
    }
  }

  private path(vmUuid: string): string {
    if (!UUID.test(vmUuid)) throw new MirrorError('BAD_UUID', 'not the UUID of a VM');
    return join(this.dir, `${vmUuid}.json`);
  }
}

function recordOf(text: string, vmUuid: string, path: string): VmRecord {
  try {
    const record = parseRecord(text);
    if (record.vmUuid === vmUuid) return record;
  } catch {
    // Told below.
  }
  throw new MirrorError(
    'BAD_RECORD',
    `${path} is damaged: its VM is not served, the others are; put the file back from a backup, ` +
      "or remove it and have the VM's owner run mirror reseed",
  );
}
