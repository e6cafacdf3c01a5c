/** The notes that a host keeps of its VMs: durable before they count. */
import { mkdir, open, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostNote } from '../core/record.js';
import { HostError } from './host-error.js';

/** Replaces a file whole; when this settles, it is on stable storage. */
export async function replaceFile(dir: string, name: string, text: string): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, name);
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  const folder = await open(dir, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Notes of processes long gone are cleared away beyond this number. */
const NOTES_KEPT = 16;

/**
 * Each process has a file of its own: an owner that was frozen and the standby beside it both keep
 * notes of one VM, and neither may undo the other's. What the host remembers is the highest of all.
 */
export class NoteStore {
  private readonly dir: string;
  private readonly name: string;
  private turn: Promise<void> = Promise.resolve();

  constructor(stateDir: string, vmUuid: string, incarnation: string) {
    this.dir = join(stateDir, 'notes', vmUuid);
    this.name = `${incarnation}.json`;
  }

  /** Notes are saved one after the other, so that an older one never replaces a newer. */
  save(note: HostNote): Promise<void> {
    const mine = this.turn.then(() =>
      replaceFile(this.dir, this.name, `${JSON.stringify(note)}\n`),
    );
    this.turn = mine.catch(() => {});
    return mine;
  }

  /** What this host remembers of the VM, by whichever process; `null` if nothing. */
  async load(): Promise<HostNote | null> {
    const notes: { name: string; note: HostNote }[] = [];
    for (const name of await this.names()) {
      const note = await this.read(name);
      if (note) notes.push({ name, note });
    }
    if (notes.length === 0) return null;
    const highest = (key: 'generationSeen' | 'generationAttempted'): number =>
      Math.max(...notes.map(({ note }) => note[key]));
    notes.sort((one, other) => other.note.generationSeen - one.note.generationSeen);
    for (const { name } of notes.slice(NOTES_KEPT)) await rm(join(this.dir, name), { force: true });
    return {
      vmUuid: notes[0].note.vmUuid,
      generationSeen: highest('generationSeen'),
      generationAttempted: highest('generationAttempted'),
    };
  }

  private async names(): Promise<string[]> {
    try {
      return (await readdir(this.dir)).filter((name) => name.endsWith('.json'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }

  /** `null` for one that was cleared away meanwhile. */
  private async read(name: string): Promise<HostNote | null> {
    const path = join(this.dir, name);
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (text === null) return null;
    const note = parsed(text);
    if (note) return note;
    throw new HostError(
      'BAD_STATE',
      `${path} is damaged: the VM was left alone, since without this note a forgetful arbiter ` +
        'could not be told; put it back from a backup, or remove it if the arbiter kept its memory',
    );
  }
}

function parsed(text: string): HostNote | null {
  try {
    const note = JSON.parse(text) as Partial<HostNote> | null;
    const { vmUuid, generationSeen, generationAttempted } = note ?? {};
    const whole =
      typeof vmUuid === 'string' &&
      Number.isSafeInteger(generationSeen) &&
      Number.isSafeInteger(generationAttempted);
    return whole ? (note as HostNote) : null;
  } catch {
    return null;
  }
}
