/**
 * A folder on storage that all hosts share, as the arbiter. Revision r of a record is the file
 * `r.json`, claimed by `link()` of a file that is already whole and fsynced: of all who try, one
 * wins, and the others get EEXIST. Why that is safe under any pause is told by `changeByClaim`.
 *
 * A reply that got lost (NFS repeats a `link` and is told EEXIST by its own first try) is settled
 * by comparing inodes. Sources: open(2) on O_EXCL and NFS; Disk Paxos is for raw devices.
 */
import { randomUUID } from 'node:crypto';
import { link, open, mkdir, readdir, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal, VmRecord } from '../core/record.js';
import type { ArbiterOptions } from './arbiter.js';
import { changeByClaim, type ClaimResult, type ClaimStep } from './file-claims.js';
import { parseRecord } from './witness-protocol.js';

/** Without it a folder is no arbiter: a mount point with nothing mounted is an empty folder. */
const MARKER = 'mirror-arbiter';
const CLAIM = /^(\d{12})\.json$/;
/** How many claims behind the newest are kept. */
const CLAIMS_KEPT = 64;
const WAITING_MAX = 64;

/** The steps that can fail in ways of their own; tests put others in their place. */
export interface FileSteps {
  link(from: string, to: string): Promise<void>;
}

export class FileArbiter {
  private readonly root: string;
  private readonly options: ArbiterOptions;
  private readonly steps: FileSteps;
  private waiting = 0;
  private closed = false;

  constructor(root: string, options: ArbiterOptions, steps: FileSteps = { link }) {
    this.root = root;
    this.options = options;
    this.steps = steps;
  }

  /** A person makes a folder an arbiter, once. */
  static async init(root: string): Promise<void> {
    const found = await readdir(root).catch((cause: Error) => {
      throw new MirrorError('REFUSED', `${root} cannot be read: nothing was done`, { cause });
    });
    if (found.includes(MARKER)) return;
    if (found.length > 0)
      throw new MirrorError(
        'REFUSED',
        `${root} is not empty: give the arbiter a folder of its own`,
      );
    await writeFile(join(root, MARKER), 'version 1\n', { flush: true, mode: 0o600 });
    await syncDir(root);
  }

  read(vmUuid: string): Promise<ArbiterReply> {
    return this.inTime(async () => ({ outcome: 'ok', record: await this.newest(vmUuid) }));
  }

  cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    return this.inTime(async () => {
      const steps = changeByClaim(expectRevision, proposal, CLAIMS_KEPT);
      let next = steps.next();
      while (next.done !== true) next = steps.next(await this.carryOut(vmUuid, next.value));
      return next.value;
    });
  }

  private async carryOut(vmUuid: string, step: ClaimStep): Promise<ClaimResult> {
    switch (step.do) {
      case 'newest':
        return { record: await this.newest(vmUuid) };
      case 'claim':
        return { linked: await this.claim(vmUuid, step.record) };
      case 'clear':
        await this.clearAway(vmUuid, step.below);
        return {};
    }
  }

  close(): void {
    this.closed = true;
  }

  /** Whole and durable before it is linked; durable in its folder before anybody is told. */
  private async claim(vmUuid: string, record: VmRecord): Promise<boolean> {
    const dir = this.dirOf(vmUuid);
    await mkdir(dir, { mode: 0o700 }).catch(unlessThere);
    const mine = join(dir, `${randomUUID()}.new`);
    const target = join(dir, nameOf(record.revision));
    const file = await open(mine, 'wx', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(record)}\n`);
      await file.sync();
      const won = await this.steps.link(mine, target).then(
        () => true,
        (error: NodeJS.ErrnoException) => this.linkedAfterAll(mine, target, error),
      );
      await syncDir(dir);
      return won;
    } finally {
      await file.close();
      await unlink(mine).catch(() => {});
    }
  }

  private async linkedAfterAll(
    mine: string,
    target: string,
    error: NodeJS.ErrnoException,
  ): Promise<boolean> {
    const [own, there] = await Promise.all([stat(mine), stat(target).catch(() => null)]);
    if (there?.ino === own.ino && there.dev === own.dev) return true;
    if (error.code === 'EEXIST') return false;
    throw error;
  }

  /** Durable before it is told: who wrote it may have died before its own fsync of the folder. */
  private async newest(vmUuid: string): Promise<VmRecord | null> {
    await stat(join(this.root, MARKER));
    const dir = this.dirOf(vmUuid);
    const claims = await this.claims(dir);
    const [last] = claims.slice(-1);
    if (last === undefined) return null;
    const path = join(dir, last);
    const file = await open(path, 'r');
    try {
      const text = await file.readFile('utf8');
      await file.sync();
      await syncDir(dir);
      return recordOf(text, vmUuid, last, path);
    } finally {
      await file.close();
    }
  }

  private async claims(dir: string): Promise<string[]> {
    const names = await readdir(dir).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return names.filter((name) => CLAIM.test(name)).sort();
  }

  private async clearAway(vmUuid: string, below: number): Promise<void> {
    const dir = this.dirOf(vmUuid);
    const claims = await this.claims(dir);
    const old = claims.filter((name) => name < nameOf(Math.max(0, below)));
    await Promise.all(old.map((name) => unlink(join(dir, name)).catch(() => {})));
  }

  private dirOf(vmUuid: string): string {
    if (!/^[0-9a-f-]{36}$/.test(vmUuid)) throw new MirrorError('BAD_UUID', 'not the UUID of a VM');
    return join(this.root, vmUuid);
  }

  /** Storage may hang for ever: the caller is told `unknown`, whatever becomes of the work. */
  private async inTime(work: () => Promise<ArbiterReply>): Promise<ArbiterReply> {
    const unknown: ArbiterReply = { outcome: 'unknown' };
    if (this.closed || this.waiting >= WAITING_MAX) return unknown;
    this.waiting += 1;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<ArbiterReply>((resolve) => {
      timer = setTimeout(() => resolve(unknown), this.options.deadlineMs);
    });
    const done = work()
      .catch((error: unknown) => {
        this.options.onFault?.(error instanceof Error ? error.message : String(error));
        return unknown;
      })
      .finally(() => (this.waiting -= 1));
    const reply = await Promise.race([done, late]);
    clearTimeout(timer);
    return reply;
  }
}

const nameOf = (revision: number): string => `${String(revision).padStart(12, '0')}.json`;

function recordOf(text: string, vmUuid: string, name: string, path: string): VmRecord {
  const record = parseRecord(text);
  if (record.vmUuid === vmUuid && nameOf(record.revision) === name) return record;
  throw new MirrorError('BAD_RECORD', `${path} is not the record that its name says`);
}

function unlessThere(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}

async function syncDir(path: string): Promise<void> {
  const dir = await open(path, 'r');
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}
