/** Boot files by their SHA-256: what a VM starts from travels to its peer once and stays there. */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export const sha256 = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');

export class FileStore {
  private readonly dir: string;

  constructor(stateDir: string) {
    this.dir = join(stateDir, 'files');
  }

  /** The file with this digest, or null; a file that does not match its name counts as absent. */
  async get(digest: string): Promise<Uint8Array | null> {
    try {
      const bytes = await readFile(this.path(digest));
      return sha256(bytes) === digest ? bytes : null;
    } catch {
      return null;
    }
  }

  async put(bytes: Uint8Array): Promise<string> {
    const digest = sha256(bytes);
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
    const temporary = `${this.path(digest)}.${randomUUID()}`;
    await writeFile(temporary, bytes, { mode: 0o600 });
    await rename(temporary, this.path(digest));
    return digest;
  }

  private path(digest: string): string {
    if (!/^[0-9a-f]{64}$/.test(digest)) throw new Error('not a SHA-256 digest');
    return join(this.dir, digest);
  }
}
