/** The notes that a host keeps of its VMs: durable before they count. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostNote } from '../core/record.js';

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

export class NoteStore {
  private readonly dir: string;
  private turn: Promise<void> = Promise.resolve();

  constructor(stateDir: string, vmUuid: string) {
    this.dir = join(stateDir, 'notes', vmUuid);
  }

  /** Notes are saved one after the other, so that an older one never replaces a newer. */
  save(note: HostNote): Promise<void> {
    const mine = this.turn.then(() =>
      replaceFile(this.dir, 'note.json', `${JSON.stringify(note)}\n`),
    );
    this.turn = mine.catch(() => {});
    return mine;
  }

  async load(): Promise<HostNote | null> {
    try {
      return JSON.parse(await readFile(join(this.dir, 'note.json'), 'utf8')) as HostNote;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }
}
