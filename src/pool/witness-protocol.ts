/**
 * The witness speaks one JSON object a line, at most 64 KiB, requests matched to answers by id.
 * Either side checks all of what it is told before it believes any of it.
 */
import * as v from 'valibot';
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal, VmRecord } from '../core/record.js';

export const LINE_BYTES_MAX = 64 << 10;
const NAME_CHARS_MAX = 256;
const REASON_CHARS_MAX = 1_024;
const DISKS_MAX = 64;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const name = v.pipe(v.string(), v.maxLength(NAME_CHARS_MAX));
const uuid = v.pipe(v.string(), v.regex(/^[0-9a-f-]{36}$/));

const proposalFields = {
  vm: name,
  vmUuid: uuid,
  generation: v.pipe(count, v.minValue(1)),
  mode: v.picklist(['paired', 'solo', 'stopped']),
  owner: name,
  ownerIncarnation: name,
  peer: name,
  peerIncarnation: name,
  baseEpoch: count,
  diskLegs: v.pipe(
    v.record(name, v.pipe(v.array(name), v.maxLength(DISKS_MAX))),
    v.check((legs) => Object.keys(legs).length <= DISKS_MAX),
  ),
  forcedAt: v.exactOptional(count),
};
const proposal = v.strictObject(proposalFields);
const record = v.strictObject({ ...proposalFields, revision: v.pipe(count, v.minValue(1)) });

const request = v.variant('op', [
  v.strictObject({ id: count, op: v.literal('read'), vmUuid: uuid }),
  v.strictObject({
    ...{ id: count, op: v.literal('cas'), vmUuid: uuid },
    ...{ expectRevision: count, proposal },
  }),
]);

const answer = v.strictObject({
  id: count,
  outcome: v.picklist(['ok', 'conflict', 'error']),
  record: v.nullable(record),
  reason: v.optional(v.pipe(v.string(), v.maxLength(REASON_CHARS_MAX))),
});

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
  /** `error`: not served; whether a CAS was carried out is not known. */
  readonly outcome: 'ok' | 'conflict' | 'error';
  readonly record: VmRecord | null;
  /** Why it was refused, for an operator. */
  readonly reason?: string | undefined;
}

export const parseRequest = (line: string): WitnessRequest => parsed(request, line, 'request');
export const parseAnswer = (line: string): WitnessAnswer => parsed(answer, line, 'answer');
/** Of an arbiter, as it is passed on between daemons. */
const reply = v.variant('outcome', [
  v.strictObject({ outcome: v.literal('unknown') }),
  v.strictObject({ outcome: v.picklist(['ok', 'conflict']), record: v.nullable(record) }),
]);

export const parseProposal = (value: unknown): Proposal =>
  parsed(proposal, JSON.stringify(value), 'proposal');
export const parseReply = (value: unknown): ArbiterReply =>
  parsed(reply, JSON.stringify(value), 'reply');
export const parseRecord = (text: string): VmRecord => parsed(record, text, 'record');

const refusal = v.object({
  error: v.object({ message: v.pipe(v.string(), v.maxLength(REASON_CHARS_MAX)) }),
});

/** The last line to a host that is not let in: why. */
export function refusalIn(line: string): string | null {
  try {
    return v.parse(refusal, JSON.parse(line)).error.message;
  } catch {
    return null;
  }
}

function parsed<T>(schema: v.GenericSchema<unknown, T>, text: string, what: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MirrorError('BAD_LINE', `a ${what} that is not JSON`, { cause });
  }
  const { success, output, issues } = v.safeParse(schema, value);
  if (success) return output;
  const path = v.getDotPath(issues[0]) ?? what;
  throw new MirrorError('BAD_LINE', `a ${what} with a bad ${path}`);
}

/** Cuts a byte stream into lines; throws on a line longer than allowed. */
export class LineReader {
  private rest = '';

  feed(chunk: string): string[] {
    const lines = (this.rest + chunk).split('\n');
    this.rest = lines.pop() ?? '';
    if (this.rest.length > LINE_BYTES_MAX || lines.some((line) => line.length > LINE_BYTES_MAX))
      throw new MirrorError('BAD_LINE', 'a line longer than allowed');
    return lines.filter((line) => line !== '');
  }
}
