/** The witness speaks one JSON object a line, at most 64 KiB, requests matched to answers by id. */
import type { Proposal, VmRecord } from '../core/record.js';

export const LINE_BYTES_MAX = 64 << 10;

export type WitnessRequest =
  | { readonly id: number; readonly op: 'read'; readonly vmUuid: string }
  | {
      readonly id: number;
      readonly op: 'cas';
      readonly vmUuid: string;
      readonly expectRevision: number;
      readonly proposal: Proposal;
    };

export interface WitnessAnswer {
  readonly id: number;
  readonly outcome: 'ok' | 'conflict' | 'error';
  readonly record: VmRecord | null;
}

/** Cuts a byte stream into lines; throws on a line longer than allowed. */
export class LineReader {
  private rest = '';

  feed(chunk: string): string[] {
    const lines = (this.rest + chunk).split('\n');
    this.rest = lines.pop() ?? '';
    if (this.rest.length > LINE_BYTES_MAX || lines.some((line) => line.length > LINE_BYTES_MAX))
      throw new Error('line too long');
    return lines.filter((line) => line !== '');
  }
}
