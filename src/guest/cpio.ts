/** Writes cpio archives in the "newc" format, as the kernel unpacks them for its initramfs. */

export interface CpioEntry {
  /** Without a leading slash; parents come before what they hold. */
  readonly path: string;
  readonly kind: 'folder' | 'file' | 'link' | 'device';
  readonly mode?: number;
  /** What a file holds, or where a link points. */
  readonly data?: Uint8Array | string;
  /** Character device numbers. */
  readonly major?: number;
  readonly minor?: number;
}

const TYPE_BITS = { folder: 0o040000, file: 0o100000, link: 0o120000, device: 0o020000 };
const DEFAULT_MODE = { folder: 0o755, file: 0o644, link: 0o777, device: 0o600 };

function padded(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array((bytes.length + 3) & ~3);
  out.set(bytes);
  return out;
}

function record(entry: CpioEntry, inode: number): Uint8Array[] {
  const { path, kind, data = '', major = 0, minor = 0 } = entry;
  const body = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  const name = new TextEncoder().encode(`${path}\0`);
  const mode = TYPE_BITS[kind] | (entry.mode ?? DEFAULT_MODE[kind]);
  const links = kind === 'folder' ? 2 : 1;
  const fields = [inode, mode, 0, 0, links, 0, body.length, 0, 0, major, minor, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  const head = new Uint8Array(header.length + name.length);
  head.set(new TextEncoder().encode(header));
  head.set(name, header.length);
  return [padded(head), padded(body)];
}

/** The same entries give the same bytes: no times, no owners. */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array {
  const parts = entries.flatMap((entry, i) => record(entry, i + 1));
  parts.push(...record({ path: 'TRAILER!!!', kind: 'file', mode: 0 }, 0));
  return new Uint8Array(Buffer.concat(parts));
}
