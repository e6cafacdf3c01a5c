/**
 * Bytes on the wire against dirty bytes, for real dirty pages: each file holds what one epoch of a
 * real guest changed, before and after. The folder is not part of the package; without it the rows
 * are left out.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { PageEncoder } from '../src/page/page-encoder.js';
import type { Row } from './row.js';

const FOLDER = process.env['MIRROR_SAMPLES'] ?? join('..', 'shared', 'samples');
const PAGE_BYTES = 4096;

export async function samplesBench(): Promise<Row[]> {
  if (!existsSync(FOLDER)) {
    process.stderr.write(`no samples in ${FOLDER} (MIRROR_SAMPLES): their rows are left out\n`);
    return [];
  }
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.pages.gz'));
  const rows: Row[] = [];
  for (const name of files.toSorted()) rows.push(await ratioOf(name));
  return rows;
}

/** u32 count, count x u32 page number, count x page before, count x page after. */
async function ratioOf(name: string): Promise<Row> {
  const bytes = gunzipSync(readFileSync(join(FOLDER, name)));
  const pageCount = bytes.readUInt32LE(0);
  const beforeAt = 4 + pageCount * 4;
  const afterAt = beforeAt + pageCount * PAGE_BYTES;
  const encoder = await PageEncoder.create(pageCount);
  // Page numbers of a 640 MiB guest, packed: the encoder of a small one does the same work.
  const pageIndices = Uint32Array.from({ length: pageCount }, (_, index) => index);
  const deviceState = new Uint8Array(0);
  const common = { generation: 1, pageIndices, pageCount, deviceState };
  const startedAt = performance.now();
  encoder.encode({ ...common, epoch: 1, pageBytes: bytes.subarray(beforeAt, afterAt) });
  const betweenAt = performance.now();
  const { wireBytes, dirtyBytes } = encoder.encode({
    ...common,
    epoch: 2,
    pageBytes: bytes.subarray(afterAt, afterAt + pageCount * PAGE_BYTES),
  });
  const ms = performance.now() - betweenAt;
  const firstMs = betweenAt - startedAt;
  return {
    ...{ name: `wire bytes: ${name.replace('.pages.gz', '')}`, unit: '% of dirty bytes' },
    value: (wireBytes / dirtyBytes) * 100,
    reference: `${pageCount} pages, ${ms.toFixed(1)} ms; without a base ${firstMs.toFixed(1)} ms`,
  };
}
