/** A disk that boots: the code in its first sector says over COM1 what its second one holds. */
import { writeFileSync } from 'node:fs';

const SECTOR_BYTES = 512;
const TEXT_BYTES_MAX = 64;

/**
 * At each tick of the BIOS's clock (18 a second) it reads sector 2 by INT 13h and prints
 * `tick NNNN` and the text there, or ` FAULT` if it cannot be read. At 0x7c00:
 */
const CODE = [
  ['31c0 8ed8 8ec0 8ed0', 'ds, es, ss = 0'],
  ['bc007c', 'mov sp, 0x7c00'],
  ['8816007e', 'mov [0x7e00], dl: the disk booted from'],
  ['a3027e fb', 'mov [0x7e02], 0: the count; sti'],
  ['a16c04', 'next: mov ax, [0x46c]: the clock'],
  ['f4 3b066c04 74f9', 'wait: hlt; cmp ax, [0x46c]; je wait'],
  ['ff06027e', 'inc word [0x7e02]'],
  ['be8b7c e84800', 'puts tick'],
  ['8b1e027e e82900', 'hex [0x7e02]'],
  ['c606008000', 'mov byte [0x8000], 0'],
  ['b80102 bb0080 b90200 b600', 'read 1 sector to 0x8000, cylinder 0, sector 2, head 0'],
  ['8a16007e cd13', 'mov dl, [0x7e00]; int 0x13'],
  ['be0080 7303 be917c', 'si = 0x8000, or fault if carry'],
  ['e82000', 'puts si'],
  ['be987c e81a00 ebbc', 'puts crlf; jmp next'],
  ['b90400', 'hex: mov cx, 4'],
  ['c1c304 88d8 240f', 'digit: rol bx, 4; mov al, bl; and al, 15'],
  ['0430 3c39 7602 0407', "add al, '0'; cmp al, '9'; jbe ok; add al, 7"],
  ['e80e00 e2ec c3', 'ok: putc; loop digit; ret'],
  ['ac 84c0 7405', 'puts: lodsb; test al, al; jz done'],
  ['e80300 ebf6 c3', 'putc; jmp puts; done: ret'],
  ['bafd03 88c4', 'putc: mov dx, 0x3fd; mov ah, al'],
  ['ec a820 74fb', 'full: in al, dx; test al, 0x20; jz full'],
  ['88e0 baf803 ee c3', 'mov al, ah; mov dx, 0x3f8; out dx, al; ret'],
  ['7469636b2000', '"tick "'],
  ['204641554c5400', '" FAULT"'],
  ['0d0a00', '"\\r\\n"'],
] as const;

/** Writes a raw image of `bytes` that boots and says `text`, which may be changed as it runs. */
export function writeBootDisk(path: string, bytes: number, text: string): void {
  const image = Buffer.alloc(bytes);
  Buffer.from(CODE.map(([hex]) => hex.replaceAll(' ', '')).join(''), 'hex').copy(image);
  image.set([0x55, 0xaa], SECTOR_BYTES - 2);
  if (text.length >= TEXT_BYTES_MAX) throw new Error(`too long: ${text}`);
  image.write(`${text}\0`, SECTOR_BYTES, 'latin1');
  writeFileSync(path, image);
}

/** The numbers of the ticks that say `text`. */
export function ticksSaying(text: string, output: string): number[] {
  const pattern = new RegExp(`^tick ([0-9A-F]{4})${text}\\r?$`, 'gm');
  return [...output.matchAll(pattern)].map((match) => Number.parseInt(match[1], 16));
}
