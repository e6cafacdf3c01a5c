/**
 * How a record is changed by claims on shared storage, step by step: the same steps run on real
 * folders (`file-arbiter.ts`) and in the simulator.
 */
import type { ArbiterReply } from '../core/events.js';
import { mayFollow, type Proposal, type VmRecord } from '../core/record.js';

export type ClaimStep =
  /** Find the claim of the highest revision. */
  | { readonly do: 'newest' }
  /** Make the record's revision its own, unless somebody has. */
  | { readonly do: 'claim'; readonly record: VmRecord }
  /** Take away claims of revisions below this one. */
  | { readonly do: 'clear'; readonly below: number };

export interface ClaimResult {
  /** Of `newest`. */
  readonly record?: VmRecord | null;
  /** Of `claim`: nobody had it. */
  readonly linked?: boolean;
}

/**
 * A claim is never taken back, and places are only freed `kept` behind the newest. A writer that
 * slept so long that its place was freed can claim it again; so it looks once more, and has won
 * only if nothing stands so much newer. What it claimed in vain is never the newest.
 */
export function* changeByClaim(
  expectRevision: number,
  proposal: Proposal,
  kept: number,
): Generator<ClaimStep, ArbiterReply, ClaimResult> {
  const current = (yield { do: 'newest' }).record ?? null;
  if (!mayFollow(current, expectRevision, proposal))
    return { outcome: 'conflict', record: current };
  const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
  const { linked } = yield { do: 'claim', record };
  const standing = (yield { do: 'newest' }).record ?? null;
  const newest = standing?.revision ?? 0;
  if (!linked || newest - record.revision >= kept) return { outcome: 'conflict', record: standing };
  if (newest === record.revision) yield { do: 'clear', below: newest - kept };
  return { outcome: 'ok', record };
}
