/**
 * A process that wants to own a VM and does not yet: it creates the VM's record, or boots the VM
 * anew after its memory was lost. Once the record names it, `claim` is set and a primary begins.
 */
import { ArbiterClient } from './arbiter-client.js';
import { ColdBoot, type ColdBootStep } from './cold-boot.js';
import { MirrorError } from './errors.js';
import type { Command, Core, CoreConfig, CoreStatus, Effect, Event } from './events.js';
import type { PrimaryStart } from './primary.js';
import { createProposal, forcedProposal, soloProposal, vouchedProposal } from './proposals.js';
import type { HostNote, VmRecord } from './record.js';

export interface ClaimantStart {
  readonly start: 'create' | 'cold-boot';
  /** Cold boot on a person's word: over the record of this generation and no other. */
  readonly forcedOver?: number | null;
  /** Address of the standby's host; `null`: run alone until told otherwise. */
  readonly peer: string | null;
}

type Phase = 'creating' | 'recovering' | 'claimed' | 'ended';

const MOVES: Record<Phase, readonly Phase[]> = {
  creating: ['claimed', 'ended'],
  recovering: ['claimed', 'ended'],
  claimed: [],
  ended: [],
};

export class Claimant implements Core {
  claim: PrimaryStart | null = null;
  private readonly config: CoreConfig;
  private readonly arbiter: ArbiterClient;
  private readonly coldBoot: ColdBoot;
  private peer: string | null;
  private phase: Phase;
  private record: VmRecord | null = null;
  private lookAtMs = 0;
  /** A cold boot has asked a daemon and waits for its answer. */
  private probing = false;
  private reseeding = false;
  /** On a person's word, with no arbiter to say otherwise. */
  private readonly forced: boolean;
  private out: Effect[] = [];
  private nowMs = 0;

  constructor(config: CoreConfig, note: HostNote | null, start: ClaimantStart) {
    this.config = config;
    this.arbiter = new ArbiterClient(config, note);
    this.coldBoot = new ColdBoot(config.host, start.forcedOver ?? null);
    this.peer = start.peer;
    this.forced = config.recordAtOwner && (start.forcedOver ?? null) !== null;
    this.phase = start.start === 'create' ? 'creating' : 'recovering';
  }

  step(event: Event, nowMs: number): Effect[] {
    this.out = [];
    this.nowMs = nowMs;
    if (this.isClaiming) this.take(event);
    if (this.isClaiming) this.onTime();
    return this.out;
  }

  status(): CoreStatus {
    const waits = this.arbiter.lost && this.arbiter.busy;
    return {
      role: 'primary',
      state: this.phase === 'ended' ? 'stopped' : waits ? 'waiting-arbiter' : 'starting',
      generation: this.record?.generation ?? 0,
      epoch: 0,
      committedEpoch: 0,
      owner: this.config.host,
      peer: '',
    };
  }

  private get isClaiming(): boolean {
    return this.phase === 'creating' || this.phase === 'recovering';
  }

  private become(phase: Phase): void {
    if (!MOVES[this.phase].includes(phase))
      throw new MirrorError('CORE_BUG', `a claimant cannot go from ${this.phase} to ${phase}`);
    this.phase = phase;
  }

  private emit(...effects: Effect[]): void {
    this.out.push(...effects);
  }

  private take(event: Event): void {
    switch (event.type) {
      case 'arbiter-reply':
        return this.arbiterReply(event);
      case 'note-saved':
        return this.emit(...this.arbiter.noteSaved(event.request));
      case 'image-alive':
        return this.imageAlive(event.alive);
      case 'session-up':
        return this.emit({ type: 'hang-up', session: event.session });
      case 'command':
        return this.command(event.command);
      default:
        return;
    }
  }

  private onTime(): void {
    if (!this.arbiter.busy && !this.probing && this.nowMs >= this.lookAtMs)
      this.emit(...this.arbiter.read());
    this.emit(...this.arbiter.tick(this.nowMs));
    const times = [this.nowMs + this.config.detectMs];
    for (const atMs of [this.arbiter.wakeAtMs, this.lookAtMs])
      if (atMs !== null && atMs > this.nowMs) times.push(atMs);
    this.emit({ type: 'wake-at', atMs: Math.min(...times) });
  }

  private arbiterReply(event: Extract<Event, { type: 'arbiter-reply' }>): void {
    const { effects, outcome } = this.arbiter.reply(event.request, event.reply, this.nowMs);
    this.emit(...effects);
    if (!outcome) return;
    if (outcome.type === 'read') this.look(outcome.record);
    else if (outcome.type === 'won') this.claimed(outcome.record);
    else if (outcome.type === 'lost') this.look(outcome.record);
  }

  private look(record: VmRecord | null): void {
    if (this.reseeding) this.reseedOn(record);
    else if (record?.ownerIncarnation === this.config.incarnation) this.claimed(record);
    else if (this.phase === 'creating') this.create(record);
    else this.coldBootStep(this.coldBoot.consider(record));
  }

  private create(record: VmRecord | null): void {
    if (record && record.mode !== 'stopped') {
      const text = `the VM is already ${record.mode} on host ${record.owner}`;
      this.emit({ type: 'warn', code: 'ALREADY_RUNNING', text });
      return this.end('failed');
    }
    const proposal = createProposal(this.config, record);
    this.emit(...this.arbiter.propose(proposal, record?.revision ?? 0));
  }

  private coldBootStep(step: ColdBootStep): void {
    switch (step.do) {
      case 'probe':
        this.probing = true;
        return this.emit({ type: 'probe-image', host: step.host, incarnation: step.incarnation });
      case 'wait':
        this.lookAtMs = this.nowMs + this.config.redialMs;
        return;
      case 'leave':
        this.emit({ type: 'warn', code: 'NOT_BOOTED', text: step.reason });
        return this.end('released');
      case 'boot': {
        this.record = step.record;
        const proposal = this.forced
          ? forcedProposal(this.config, step.record, this.arbiter.generationSeen)
          : soloProposal(this.config, step.record);
        return this.emit(...this.arbiter.propose(proposal, step.record.revision));
      }
    }
  }

  private imageAlive(alive: boolean | 'unknown'): void {
    this.probing = false;
    if (this.phase !== 'recovering' || this.arbiter.busy) return;
    this.coldBootStep(this.coldBoot.heard(alive, this.arbiter.generationAttempted));
  }

  private claimed(record: VmRecord): void {
    const memoryLost = this.phase === 'recovering';
    this.become('claimed');
    const { note, requestsUsed } = this.arbiter;
    this.claim = { record, note, peer: this.peer, epoch: 0, requestsUsed };
    this.emit({ type: 'boot', memoryLost });
  }

  private end(state: 'failed' | 'released'): void {
    this.become('ended');
    this.emit({ type: 'exit', state });
  }

  // --- Commands -------------------------------------------------------------------------------

  private command({ type: command }: Command): void {
    const answer = (error: string | null): void => this.emit({ type: 'answer', command, error });
    if (command === 'unprotect') {
      this.peer = null;
      return answer(null);
    }
    if (command !== 'reseed' || this.phase !== 'recovering')
      return answer(`not while the VM is ${this.status().state}`);
    this.reseeding = true;
    this.arbiter.abandon();
    this.arbiter.overrideAmnesia();
    this.emit(...this.arbiter.read());
  }

  /** A person says that this host owns the VM: whatever the arbiter shows now is built upon. */
  private reseedOn(shown: VmRecord | null): void {
    this.reseeding = false;
    this.arbiter.overrideAmnesia();
    const wish = createProposal(this.config, shown);
    const proposal = vouchedProposal(wish, this.arbiter.generationSeen);
    this.emit(...this.arbiter.propose(proposal, shown?.revision ?? 0));
    this.emit({ type: 'answer', command: 'reseed', error: null });
  }
}
