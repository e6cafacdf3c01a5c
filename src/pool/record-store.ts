/**
 * The witness's records on disk: one file a VM, replaced whole and fsynced before anybody hears of
 * it.
 */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';
import type { Proposal, VmRecord } from '../core/record.js';

const UUID = /^[0-9a-f-]{36}$/;

export class RecordStore {
  private readonly dir: string;
  private readonly known = new Map<string, VmRecord | null>();
  private readonly turn = new Map<string, Promise<unknown>>();

  constructor(dir: string) {
    this.dir = dir;
  }

  async prepare(): Promise<void> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
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
      if ((current?.revision ?? 0) !== expectRevision) return { won: false, record: current };
      const record = { ...proposal, vmUuid, revision: expectRevision + 1 };
      // From here on until the file is replaced nothing is known for sure.
      this.known.delete(vmUuid);
      await this.write(vmUuid, record);
      this.known.set(vmUuid, record);
      return { won: true, record };
    });
  }

  private inTurn<T>(vmUuid: string, work: () => Promise<T>): Promise<T> {
    const before = this.turn.get(vmUuid) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.turn.set(
      vmUuid,
      mine.catch(() => {}),
    );
    return mine;
  }

  private async load(vmUuid: string): Promise<VmRecord | null> {
    const known = this.known.get(vmUuid);
    if (known !== undefined) return known;
    let text: string;
    try {
      text = await readFile(this.path(vmUuid), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      this.known.set(vmUuid, null);
      return null;
    }
    const record = parseRecord(text, this.path(vmUuid));
    this.known.set(vmUuid, record);
    return record;
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

function parseRecord(text: string, path: string): VmRecord {
  try {
    const record = JSON.parse(text) as VmRecord;
    if (Number.isInteger(record.revision) && Number.isInteger(record.generation)) return record;
  } catch {
    // Told below.
  }
  throw new MirrorError(
    'BAD_RECORD',
    `${path} is damaged: this VM is not served until it is mended`,
  );
}
