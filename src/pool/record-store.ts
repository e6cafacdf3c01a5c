/**
 * The witness's records on disk: one file a VM, replaced whole and fsynced before anybody hears of
 * it.
 */
import { mkdir, open, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';
import { mayFollow, type Proposal, type VmRecord } from '../core/record.js';
import { parseRecord } from './witness-protocol.js';

const UUID = /^[0-9a-f-]{36}$/;
const RECORDS_MAX = 10_000;
/** Hosts that have had a part in one VM. */
const NAMED_MAX = 64;

/** Throws to refuse a change; `named` are the hosts that the VM's records have named so far. */
export type ProposalCheck = (current: VmRecord | null, named: readonly string[]) => void;

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
    check: ProposalCheck = () => {},
  ): Promise<{ won: boolean; record: VmRecord | null }> {
    return this.inTurn(vmUuid, async () => {
      const current = await this.load(vmUuid);
      if (proposal.vmUuid !== vmUuid)
        throw new MirrorError('BAD_PROPOSAL', `a change of ${vmUuid} for another VM`);
      const named = await this.namedSoFar(vmUuid, current);
      check(current, named);
      if (!mayFollow(current, expectRevision, proposal)) return { won: false, record: current };
      if (!current && this.fileCount >= RECORDS_MAX)
        throw new MirrorError('TOO_MANY_RECORDS', `there are ${RECORDS_MAX} records already`);
      const record = { ...proposal, revision: expectRevision + 1 };
      // Before the record: one that names a host must never be without it.
      await this.addNamed(vmUuid, named, proposal);
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

  /** Of a record from before this was kept, those that it names itself. */
  private async namedSoFar(vmUuid: string, current: VmRecord | null): Promise<string[]> {
    const kept = await readFile(this.namedPath(vmUuid), 'utf8').catch(() => '');
    const now = current ? [current.owner, current.peer] : [];
    return unique([...kept.split('\n'), ...now]);
  }

  private async addNamed(
    vmUuid: string,
    named: readonly string[],
    { owner, peer }: Proposal,
  ): Promise<void> {
    const all = unique([...named, owner, peer]).slice(-NAMED_MAX);
    if (all.join() === named.join()) return;
    await this.replace(this.namedPath(vmUuid), `${all.join('\n')}\n`);
  }

  private async write(vmUuid: string, record: VmRecord): Promise<void> {
    await this.replace(this.path(vmUuid), `${JSON.stringify(record)}\n`);
  }

  private async replace(path: string, text: string): Promise<void> {
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(text);
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

  private namedPath(vmUuid: string): string {
    return this.path(vmUuid).replace(/\.json$/, '.hosts');
  }

  private path(vmUuid: string): string {
    if (!UUID.test(vmUuid)) throw new MirrorError('BAD_UUID', 'not the UUID of a VM');
    return join(this.dir, `${vmUuid}.json`);
  }
}

const unique = (names: readonly string[]): string[] => [
  ...new Set(names.filter((name) => name !== '')),
];

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
