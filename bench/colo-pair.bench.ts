/**
 * A mirrored VM side by side with a pair of stock QEMUs in COLO: the same guest, as many dirty
 * pages, the same epochs, in turn on the same machine.
 */
import { existsSync } from 'node:fs';
import { ourPair } from './our-pair.js';
import type { PairFigures, PairTask } from './pair-figures.js';
import { COLO_PAIR, leftOut, whatTinyNeeds, type TinyPages } from './peers.js';
import { rivalPair } from './rival-pair.js';
import { median, type Row } from './row.js';

const ROUNDS = Number(process.env['MIRROR_COLO_ROUNDS'] ?? 3);
const SECONDS = Number(process.env['MIRROR_COLO_SECONDS'] ?? 6);
const KILLS = Number(process.env['MIRROR_COLO_KILLS'] ?? 2);
const PAGES = (process.env['MIRROR_COLO_PAGES'] ?? '16,500,5000').split(',').map(Number);
const EPOCH_MS: Record<TinyPages, number> = { 16: 25, 500: 25, 5_000: 100 };

export async function coloPairBench(): Promise<Row[]> {
  if (leftOut('the COLO pair', whatIsMissing())) return [];
  const rows: Row[] = [];
  for (const pages of PAGES) rows.push(...(await sideBySide(pages as TinyPages)));
  return rows;
}

function whatIsMissing(): string {
  return whatTinyNeeds() || (existsSync(COLO_PAIR) ? '' : `no ${COLO_PAIR}`);
}

async function sideBySide(pages: TinyPages): Promise<Row[]> {
  const task: PairTask = { pages, epochMs: EPOCH_MS[pages], seconds: SECONDS, kills: KILLS };
  const [ours, theirs]: PairFigures[][] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    theirs.push(await rivalPair(task));
    ours.push(await ourPair(task));
  }
  return rowsOf(pages, ours, theirs);
}

type Figure = Exclude<keyof PairFigures, 'outputMs'>;

function rowsOf(pages: TinyPages, ours: PairFigures[], theirs: PairFigures[]): Row[] {
  const of = (side: PairFigures[], figure: Figure): number =>
    median(side.map((each) => each[figure]));
  const ratio = (what: string, figure: Figure, target: Pick<Row, 'target'>): Row => {
    const [we, they] = [of(ours, figure), of(theirs, figure)];
    const digits = we > 1_000 ? 0 : 2;
    return {
      ...{ name: `against a COLO pair, ${pages} pages: ${what}`, value: we / they, unit: 'x' },
      ...{ reference: `${we.toFixed(digits)} to ${they.toFixed(digits)}`, ...target },
    };
  };
  const most = (atMost: number, when = true): Pick<Row, 'target'> =>
    when ? { target: { atMost } } : {};
  return [
    ratio('pause p50, ms', 'pauseP50Ms', most(0.4, pages <= 500)),
    ratio('pause p99, ms', 'pauseP99Ms', {}),
    ratio('guest loops/s', 'loopsPerSecond', pages <= 500 ? { target: { atLeast: 1.2 } } : {}),
    ratio('epochs/s', 'epochsPerSecond', {}),
    ratio('bytes an epoch', 'bytesPerEpoch', most(0.333, pages === 500)),
    ratio('CPU, s/s', 'cpuSeconds', {}),
    outputRow(pages, ours, theirs),
  ];
}

/** Theirs is told of the loss by hand, so that what ours takes to notice is added to it. */
function outputRow(pages: TinyPages, ours: PairFigures[], theirs: PairFigures[]): Row {
  const we = median(ours.flatMap(({ outputMs }) => outputMs));
  const they = median(theirs.flatMap(({ outputMs }) => outputMs));
  const detectedMs = median(ours.map((each) => each.detectedMs));
  const failed = theirs.length * KILLS - theirs.flatMap(({ outputMs }) => outputMs).length;
  const also = failed > 0 ? `, which failed in ${failed} runs` : '';
  return {
    ...{ name: `against a COLO pair, ${pages} pages: first output after SIGKILL`, value: we },
    ...{ unit: 'ms', target: { atMost: Number((they + detectedMs).toFixed(1)) } },
    reference: `noticed after ${detectedMs.toFixed(0)} ms; theirs ${they.toFixed(0)} ms${also}`,
  };
}
