/**
 * Checkpoints as a QEMU in COLO sends them, made as fast as can be: the child process of the bench
 * of their reader. `node colo-stream.js SOCKET PAGES CHECKPOINTS` writes so many and ends.
 */
import { connect } from 'node:net';
import { pathToFileURL } from 'node:url';
import { PAGE_BYTES } from '../src/machine/machine.js';

const Message = { request: 1, send: 3, size: 4 } as const;
const Section = { eof: 0, part: 2, footer: 0x7e } as const;
const Flag = { page: 0x08, endOfSection: 0x10, sameBlock: 0x20 } as const;
const RAM_NAME = 'ram';
const SECTION_ID = 2;
const DEVICES_BYTES = 13_000;

const be32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

const be64 = (value: number): Buffer => Buffer.concat([be32(value / 2 ** 32), be32(value)]);

function pageRecord(page: number): Buffer {
  const first = page === 0;
  const flags = Flag.page | (first ? 0 : Flag.sameBlock);
  const name = first ? Buffer.from(`\x03${RAM_NAME}`, 'latin1') : Buffer.alloc(0);
  return Buffer.concat([be64(page * PAGE_BYTES + flags), name, Buffer.alloc(PAGE_BYTES, page + 1)]);
}

/** One checkpoint, of the first `pages` pages, each of them whole. */
export function checkpoint(pages: number): Buffer {
  return Buffer.concat([
    ...[be32(Message.request), be32(Message.send)],
    ...[Buffer.of(Section.part), be32(SECTION_ID)],
    ...Array.from({ length: pages }, (_, page) => pageRecord(page)),
    ...[be64(Flag.endOfSection), Buffer.of(Section.footer), be32(SECTION_ID)],
    Buffer.of(Section.eof),
    ...[be32(Message.size), be64(DEVICES_BYTES), Buffer.alloc(DEVICES_BYTES, 0x55)],
  ]);
}

function send(path: string, pages: number, checkpoints: number): void {
  const bytes = checkpoint(pages);
  const socket = connect(path);
  let left = checkpoints;
  const next = (): void => {
    if (left === 0) return void socket.end();
    left -= 1;
    socket.write(bytes, next);
  };
  next();
}

const [, main, path, pages, checkpoints] = process.argv;
if (path && main && import.meta.url === pathToFileURL(main).href)
  send(path, Number(pages), Number(checkpoints));
