/**
 * The arbiter as a core sees it: one operation at a time, each pursued until its outcome is known.
 *
 * When a CAS has no known outcome, reading the same revision back settles nothing: the request may
 * still be on its way and land later. An owner that went back to releasing output on such a
 * reading could find itself paired, behind its back, with a peer that holds an older image. So the
 * client tries the proposal again, or lets the core put another in its place *on the same
 * revision*, until a newer revision is seen: then whatever was in flight can only lose.
 */
import { MirrorError } from './errors.js';
import type { ArbiterReply, CoreConfig, Effect } from './events.js';
import { mayFollow, type HostNote, type Proposal, type VmRecord } from './record.js';

export type Outcome =
  | { readonly type: 'read'; readonly record: VmRecord | null }
  | { readonly type: 'won'; readonly record: VmRecord }
  | { readonly type: 'lost'; readonly record: VmRecord }
  /** The arbiter shows an older record than this host has seen, or none: refused. */
  | { readonly type: 'amnesia'; readonly record: VmRecord | null }
  | { readonly type: 'unreachable' };

type Operation =
  | { readonly kind: 'read' }
  | { readonly kind: 'cas'; readonly proposal: Proposal; readonly expectRevision: number };

type Stage = 'idle' | 'saving' | 'reading' | 'swapping' | 'reading-back' | 'waiting';

export class ArbiterClient {
  private readonly config: CoreConfig;
  private note_: HostNote;
  private operation: Operation | null = null;
  private stage: Stage = 'idle';
  private request = 0;
  private retryAtMs: number | null = null;
  private override = false;
  private refused = false;
  private lost_ = false;

  /** `requestsUsed`: by an earlier client of this process, whose answers may still come. */
  constructor(config: CoreConfig, note: HostNote | null, requestsUsed = 0) {
    this.config = config;
    this.request = requestsUsed;
    this.note_ = note ?? { vmUuid: config.vmUuid, generationSeen: 0, generationAttempted: 0 };
  }

  get note(): HostNote {
    return this.note_;
  }

  get requestsUsed(): number {
    return this.request;
  }

  get busy(): boolean {
    return this.operation !== null;
  }

  /** The last thing asked has had no answer that could be believed. */
  get lost(): boolean {
    return this.lost_;
  }

  /** A compare-and-swap is under way. */
  get proposing(): boolean {
    return this.operation?.kind === 'cas';
  }

  get generationSeen(): number {
    return this.note.generationSeen;
  }

  get generationAttempted(): number {
    return this.note.generationAttempted;
  }

  get wakeAtMs(): number | null {
    return this.retryAtMs;
  }

  read(): Effect[] {
    if (this.operation?.kind === 'cas') return [];
    this.operation = { kind: 'read' };
    return this.startRead('reading');
  }

  /** Replaces a proposal that is not settled yet; both rest on the same revision. */
  propose(proposal: Proposal, expectRevision: number): Effect[] {
    if (proposal.generation < this.note.generationSeen)
      throw new MirrorError('CORE_BUG', 'a proposal must not lower the generation');
    this.operation = { kind: 'cas', proposal, expectRevision };
    this.retryAtMs = null;
    if (proposal.generation <= this.note.generationAttempted) return this.startSwap();
    this.note_ = { ...this.note, generationAttempted: proposal.generation };
    this.stage = 'saving';
    this.request += 1;
    return [{ type: 'save-note', request: this.request, note: this.note }];
  }

  /** Drops what is under way; only for a person's act that rests on a fresh reading. */
  abandon(): void {
    this.operation = null;
    this.stage = 'idle';
    this.retryAtMs = null;
  }

  /** The arbiter's last answer was refused as older than what this host has seen. */
  get forgetful(): boolean {
    return this.refused;
  }

  /** A person vouches for this proposal although the arbiter shows something older. */
  overrideAmnesia(): void {
    this.override = true;
  }

  noteSaved(request: number): Effect[] {
    if (this.stage !== 'saving' || request !== this.request) return [];
    return this.startSwap();
  }

  tick(nowMs: number): Effect[] {
    if (this.retryAtMs === null || nowMs < this.retryAtMs || !this.operation) return [];
    this.retryAtMs = null;
    if (this.operation.kind === 'read') return this.startRead('reading');
    return this.startRead('reading-back');
  }

  reply(
    request: number,
    reply: ArbiterReply,
    nowMs: number,
  ): { effects: Effect[]; outcome: Outcome | null } {
    if (request !== this.request || !this.operation) return { effects: [], outcome: null };
    if (reply.outcome === 'unknown') return this.unknown(nowMs);
    const { record } = reply;
    this.refused = this.forgotten(record);
    if (this.refused) return this.amnesia(record, nowMs);
    const effects = this.see(record);
    const { operation, stage } = this;
    if (operation.kind === 'read') return { effects, outcome: this.done({ type: 'read', record }) };
    if (stage === 'swapping' && reply.outcome === 'ok' && record)
      return { effects, outcome: this.done({ type: 'won', record }) };
    if (record && sameAs(operation.proposal, record))
      return { effects, outcome: this.done({ type: 'won', record }) };
    if (record && !mayFollow(record, operation.expectRevision, operation.proposal))
      return { effects, outcome: this.done({ type: 'lost', record }) };
    // The same revision: nothing is settled, see above.
    return { effects: [...effects, ...this.startSwap()], outcome: null };
  }

  private done(outcome: Outcome): Outcome {
    this.operation = null;
    this.stage = 'idle';
    this.override = false;
    this.lost_ = false;
    return outcome;
  }

  private unknown(nowMs: number): { effects: Effect[]; outcome: Outcome } {
    this.lost_ = true;
    this.waitToRetry(nowMs);
    return { effects: [], outcome: { type: 'unreachable' } };
  }

  private amnesia(record: VmRecord | null, nowMs: number): { effects: Effect[]; outcome: Outcome } {
    const text = 'the arbiter shows an older record than this host has seen: it is refused';
    const effects: Effect[] = this.lost_ ? [] : [{ type: 'warn', code: 'ARBITER_AMNESIA', text }];
    this.lost_ = true;
    this.waitToRetry(nowMs);
    return { effects, outcome: { type: 'amnesia', record } };
  }

  private waitToRetry(nowMs: number): void {
    this.stage = 'waiting';
    this.retryAtMs = nowMs + this.config.arbiterRetryMs;
  }

  private forgotten(record: VmRecord | null): boolean {
    if (this.override) return false;
    return (record?.generation ?? 0) < this.note.generationSeen;
  }

  /** Remembers the highest generation; nothing waits for this to be durable, see `propose`. */
  private see(record: VmRecord | null): Effect[] {
    if (!record || record.generation <= this.note.generationSeen) return [];
    this.note_ = { ...this.note, generationSeen: record.generation };
    return [{ type: 'save-note', request: -1, note: this.note }];
  }

  private startRead(stage: 'reading' | 'reading-back'): Effect[] {
    this.stage = stage;
    this.retryAtMs = null;
    this.request += 1;
    return [{ type: 'arbiter-read', request: this.request }];
  }

  private startSwap(): Effect[] {
    if (this.operation?.kind !== 'cas') throw new MirrorError('CORE_BUG', 'no proposal to swap');
    this.stage = 'swapping';
    this.request += 1;
    const { expectRevision, proposal } = this.operation;
    return [{ type: 'arbiter-cas', request: this.request, expectRevision, proposal }];
  }
}

/** True if the record is what this proposal asked for: then an earlier try of it has won. */
export function sameAs(proposal: Proposal, record: VmRecord): boolean {
  return (
    record.generation === proposal.generation &&
    record.mode === proposal.mode &&
    record.owner === proposal.owner &&
    record.ownerIncarnation === proposal.ownerIncarnation &&
    record.peer === proposal.peer &&
    record.peerIncarnation === proposal.peerIncarnation &&
    record.baseEpoch === proposal.baseEpoch
  );
}
