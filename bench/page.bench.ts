/** What the page codec costs, against a memcpy of the same pages in the same run. */
import { Bench } from 'tinybench';
import { PageDecoder } from '../src/page/page-decoder.js';
import { PageEncoder } from '../src/page/page-encoder.js';
import type { Row } from './row.js';

const PAGE_BYTES = 4096;
const PAGES = 1_024;

type Pattern = 'sparse' | 'full' | 'random' | 'zero';

function fill(pages: Uint8Array, pattern: Pattern, round: number): void {
  let state = round + 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  if (pattern === 'zero') pages.fill(0);
  else if (pattern === 'full') pages.fill(round);
  else if (pattern === 'random') for (let i = 0; i < pages.length; i += 1) pages[i] = next();
  else
    for (let page = 0; page < PAGES; page += 1) pages[page * PAGE_BYTES + (next() % 4096)] = round;
}

export async function pageBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const pattern of ['sparse', 'full', 'random', 'zero'] as const)
    rows.push(...(await benchPattern(pattern)));
  return rows;
}

async function benchPattern(pattern: Pattern): Promise<Row[]> {
  const encoder = await PageEncoder.create(PAGES);
  const memory = new WebAssembly.Memory({ initial: PAGES / 16 });
  const decoder = await PageDecoder.create({ memory, offset: 0, bytes: PAGES * PAGE_BYTES });
  const pageIndices = Uint32Array.from({ length: PAGES }, (_, page) => page);
  const pageBytes = new Uint8Array(PAGES * PAGE_BYTES);
  const copy = new Uint8Array(pageBytes.length);
  let epoch = 0;
  let ratio = 0;
  const encode = (): Uint8Array[] => {
    epoch += 1;
    fill(pageBytes, pattern, epoch);
    const deviceState = new Uint8Array(0);
    const input = { generation: 1, epoch, pageIndices, pageBytes, pageCount: PAGES, deviceState };
    const encoded = encoder.encode(input);
    ratio = encoded.wireBytes / encoded.dirtyBytes;
    return encoded.parts;
  };
  const bench = new Bench({ time: 300, throws: true });
  bench.add('memcpy', () => copy.set(pageBytes));
  bench.add('fill', () => fill(pageBytes, pattern, 1));
  bench.add('encode and decode', () => {
    for (const part of encode()) decoder.stage(part);
    if (!decoder.verify(1, epoch)) throw new Error('an epoch did not verify');
    decoder.commit();
  });
  await bench.run();
  const meanMs = (name: string): number => {
    const result = bench.getTask(name)?.result;
    return result && 'latency' in result ? result.latency.mean : Number.NaN;
  };
  const bothMs = meanMs('encode and decode') - meanMs('fill');
  const most = { sparse: 10, random: 101, full: null, zero: null }[pattern];
  return [
    {
      ...{
        name: `${pattern}: encode and decode`,
        value: bothMs / meanMs('memcpy'),
        unit: 'memcpys',
      },
      reference: `${bothMs.toFixed(2)} ms for ${PAGES} pages`,
    },
    {
      ...{
        name: `wire bytes of made pages: ${pattern}`,
        value: ratio * 100,
        unit: '% of dirty bytes',
      },
      ...(most === null ? {} : { target: { atMost: most } }),
    },
  ];
}
