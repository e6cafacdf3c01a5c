/**
 * The standby of a VM: takes in epochs, acknowledges what is durable (DESIGN rule 4), and takes
 * over by one CAS when its owner is lost. From the moment it suspects, it never acknowledges again
 * (rule 2).
 */
import { ArbiterClient, type Outcome } from './arbiter-client.js';
import { MirrorError } from './errors.js';
import type { Command, Core, CoreConfig, CoreStatus, Effect, Event, SessionId } from './events.js';
import type { EpochPart, Hello, PeerMessage } from './messages.js';
import { PeerWatch } from './peer-watch.js';
import type { PrimaryStart } from './primary.js';
import { forcedProposal, soloProposal, vouchedProposal } from './proposals.js';
import type { HostNote, VmRecord } from './record.js';

export type SecondaryPhase =
  | 'waiting'
  /** `hello` came; the record is read to see whether its sender owns the VM. */
  | 'checking'
  | 'following'
  /** The owner is lost: the CAS for the takeover is under way and never taken back. */
  | 'taking'
  | 'promoting'
  | 'ended';

const MOVES: Record<SecondaryPhase, readonly SecondaryPhase[]> = {
  waiting: ['checking', 'ended'],
  checking: ['following', 'ended'],
  following: ['taking', 'ended'],
  taking: ['promoting', 'ended'],
  promoting: [],
  ended: [],
};

const STANDBY_REFUSAL = 'this host is the standby: give the command to the owner';

interface Staging {
  readonly generation: number;
  readonly epoch: number;
  readonly partCount: number;
  readonly complete: boolean;
  nextPart: number;
  verifying: boolean;
}

export class Secondary implements Core {
  /** Set once the takeover is won. */
  promotion: PrimaryStart | null = null;
  private readonly config: CoreConfig;
  private readonly arbiter: ArbiterClient;
  private phase: SecondaryPhase = 'waiting';
  private watch: PeerWatch | null = null;
  private hello: Hello | null = null;
  /** The newest record that was read and that names the session's owner. */
  private record: VmRecord | null = null;
  private staging: Staging | null = null;
  /** Last epoch that is durable here; `complete` once the image covers all of memory. */
  private durable: { epoch: number; complete: boolean } | null = null;
  /** Durable, but under a generation whose record has not been read yet. */
  private ackWithheld: { generation: number; epoch: number } | null = null;
  private readAgain = false;
  private forced = false;
  private warned = false;
  private out: Effect[] = [];
  private nowMs = 0;

  constructor(config: CoreConfig, note: HostNote | null) {
    this.config = config;
    this.arbiter = new ArbiterClient(config, note);
  }

  step(event: Event, nowMs: number): Effect[] {
    this.out = [];
    this.nowMs = nowMs;
    if (this.phase !== 'ended') this.take(event);
    if (this.phase !== 'ended') this.onTime();
    return this.out;
  }

  status(): CoreStatus {
    return {
      role: 'secondary',
      state: this.state(),
      generation: this.record?.generation ?? 0,
      epoch: this.staging?.epoch ?? this.durable?.epoch ?? 0,
      committedEpoch: this.durable?.epoch ?? 0,
      owner: this.hello?.host ?? '',
      peer: this.config.host,
    };
  }

  private state(): CoreStatus['state'] {
    if (this.phase === 'ended') return 'superseded';
    if (this.phase === 'taking') return this.arbiter.lost ? 'waiting-arbiter' : 'taking-over';
    if (this.phase === 'promoting') return 'taking-over';
    return this.record?.mode === 'paired' ? 'standby' : 'syncing';
  }

  private become(phase: SecondaryPhase): void {
    if (!MOVES[this.phase].includes(phase))
      throw new MirrorError('CORE_BUG', `a secondary cannot go from ${this.phase} to ${phase}`);
    this.phase = phase;
  }

  private emit(...effects: Effect[]): void {
    this.out.push(...effects);
  }

  private take(event: Event): void {
    switch (event.type) {
      case 'session-up':
        if (this.watch || this.phase !== 'waiting')
          return this.emit({ type: 'hang-up', session: event.session });
        this.watch = new PeerWatch(event.session, this.config.detectMs, this.nowMs);
        return;
      case 'session-down':
        if (this.watch?.session === event.session) this.suspect();
        return;
      case 'message':
        return this.message(event.session, event.message);
      case 'verified':
        return this.verified(event.epoch, event.ok);
      case 'arbiter-reply':
        return this.arbiterReply(event);
      case 'note-saved':
        return this.emit(...this.arbiter.noteSaved(event.request));
      case 'command':
        return this.command(event.command);
      case 'machine-failed':
        this.emit({ type: 'warn', code: 'MACHINE_FAILED', text: event.reason });
        return this.end('failed');
      default:
        return;
    }
  }

  private onTime(): void {
    this.emit(...this.arbiter.tick(this.nowMs));
    const { watch } = this;
    if (watch && this.phase !== 'taking') {
      this.emit(...watch.beat(this.nowMs, 0));
      if (watch.silent(this.nowMs)) this.suspect();
    }
    const times = [this.nowMs + this.config.detectMs];
    for (const atMs of [this.arbiter.wakeAtMs, this.watch?.wakeAtMs ?? null])
      if (atMs !== null && atMs > this.nowMs) times.push(atMs);
    this.emit({ type: 'wake-at', atMs: Math.min(...times) });
  }

  private message(session: SessionId, message: PeerMessage): void {
    if (this.watch?.session !== session || this.phase === 'taking') return;
    this.watch.heard(this.nowMs);
    switch (message.type) {
      case 'hello':
        return this.greeted(message);
      case 'epoch-part':
        return this.part(session, message);
      case 'heartbeat':
        return this.released(message.releasedThrough);
      case 'paired-hint':
      case 'release':
        // Only hints: what they say counts once the record says it too.
        return this.readRecord();
      case 'handover':
        if (this.phase === 'following' && this.durable?.epoch === message.epoch) this.suspect();
        return;
      default:
        return;
    }
  }

  // --- The record -----------------------------------------------------------------------------

  private readRecord(): void {
    if (this.arbiter.busy) this.readAgain = true;
    else this.emit(...this.arbiter.read());
  }

  private greeted(hello: Hello): void {
    if (this.phase !== 'waiting') return;
    this.hello = hello;
    this.become('checking');
    this.readRecord();
  }

  private arbiterReply(event: Extract<Event, { type: 'arbiter-reply' }>): void {
    const { effects, outcome } = this.arbiter.reply(event.request, event.reply, this.nowMs);
    this.emit(...effects);
    if (!outcome) return;
    this.settle(outcome);
    if (this.readAgain && !this.arbiter.busy && this.phase === 'following') {
      this.readAgain = false;
      this.emit(...this.arbiter.read());
    }
  }

  private settle(outcome: Outcome): void {
    if (outcome.type === 'won') return this.promote(outcome.record);
    if (outcome.type === 'lost') return this.end('superseded');
    if (outcome.type === 'unreachable') return this.waitLoudly();
    if (outcome.type !== 'read') return;
    const { record } = outcome;
    if (this.phase === 'checking') this.checkOwner(record);
    else if (this.phase === 'following') this.follow(record);
    else if (this.phase === 'taking') this.decide(record);
  }

  /** No third vote: silence alone says nothing of the owner, which may well run on. */
  private waitLoudly(): void {
    if (!this.config.recordAtOwner || this.phase !== 'taking' || this.warned) return;
    this.warned = true;
    const text =
      `host ${this.hello?.host} is out of reach, or keeps the VM, and there is no arbiter: this ` +
      'host waits; if that host is gone for good, run mirror takeover --force here';
    this.emit({ type: 'warn', code: 'WAITING_FOR_FORCE', text });
  }

  /** Rule 3: the record says who owns the VM, and under which generation. */
  private ownedBySender(record: VmRecord | null): record is VmRecord {
    const { hello } = this;
    if (!record || !hello || record.mode === 'stopped') return false;
    return record.owner === hello.host && record.ownerIncarnation === hello.incarnation;
  }

  private checkOwner(record: VmRecord | null): void {
    const { watch, hello } = this;
    if (!watch || !hello) return this.end('released');
    const { session } = watch;
    if (!this.ownedBySender(record) || record.generation !== hello.generation) {
      this.emit({ type: 'send', session, message: { type: 'refuse', reason: 'stale' } });
      this.emit({ type: 'hang-up', session });
      return this.end('released');
    }
    this.record = record;
    this.become('following');
    const { host, incarnation } = this.config;
    this.emit({ type: 'send', session, message: { type: 'welcome', host, incarnation } });
  }

  private follow(record: VmRecord | null): void {
    if (!this.ownedBySender(record)) return this.end('released');
    if (record.mode === 'paired' && record.peerIncarnation !== this.config.incarnation)
      return this.end('released');
    const unpaired = this.record?.mode === 'paired' && record.mode === 'solo';
    if (unpaired) return this.end('released');
    this.record = record;
    const { ackWithheld } = this;
    if (ackWithheld?.generation === record.generation) {
      this.ackWithheld = null;
      this.ack(ackWithheld.generation, ackWithheld.epoch);
    }
  }

  // --- Epochs ---------------------------------------------------------------------------------

  private part(session: SessionId, part: EpochPart): void {
    if (this.phase !== 'following' || !this.record) return;
    if (part.generation < this.record.generation || this.staging?.verifying) return;
    if (part.generation > this.record.generation) this.readRecord();
    if (this.alreadyDurable(part)) return;
    if (part.part === 0 && !this.open(session, part)) return;
    const { staging } = this;
    const fits =
      staging?.epoch === part.epoch &&
      staging.generation === part.generation &&
      staging.partCount === part.partCount &&
      staging.nextPart === part.part;
    if (!fits) return this.reject(session, part.generation);
    this.emit({ type: 'stage', epoch: part.epoch, part: part.part });
    staging.nextPart += 1;
    this.released(part.releasedThrough);
    if (staging.nextPart < staging.partCount) return;
    staging.verifying = true;
    this.emit({ type: 'verify', epoch: part.epoch });
  }

  /** An epoch that came again because its ack was lost. */
  private alreadyDurable(part: EpochPart): boolean {
    if (!this.durable || part.base || part.epoch > this.durable.epoch) return false;
    if (part.part === part.partCount - 1 && part.epoch === this.durable.epoch)
      this.acknowledge(part.generation, part.epoch);
    return true;
  }

  /** The first part of an epoch: it must follow what is durable, or begin a sync. */
  private open(session: SessionId, part: EpochPart): boolean {
    const follows = this.durable !== null && part.epoch === this.durable.epoch + 1;
    const begins = part.base && this.durable === null;
    if (part.partCount < 1 || !(part.base ? begins : follows)) {
      this.reject(session, part.generation);
      return false;
    }
    if (this.staging) this.emit({ type: 'drop-staged' });
    const { generation, epoch, partCount, complete } = part;
    this.staging = { generation, epoch, partCount, complete, nextPart: 0, verifying: false };
    return true;
  }

  /** What does not fit is dropped whole, and the owner is asked to send from the gap on. */
  private reject(session: SessionId, generation: number): void {
    if (this.staging) this.emit({ type: 'drop-staged' });
    this.staging = null;
    const epoch = (this.durable?.epoch ?? -1) + 1;
    this.emit({ type: 'send', session, message: { type: 'nack', generation, epoch } });
  }

  private verified(epoch: number, ok: boolean): void {
    const { staging, watch } = this;
    if (!staging?.verifying || staging.epoch !== epoch) return;
    if (!ok || this.phase !== 'following' || !watch) {
      staging.verifying = false;
      if (watch && this.phase === 'following') this.reject(watch.session, staging.generation);
      return;
    }
    const complete = staging.complete || (this.durable?.complete ?? false);
    if (this.durable && epoch !== this.durable.epoch + 1)
      throw new MirrorError('CORE_BUG', 'durability must go on without a gap');
    this.durable = { epoch, complete };
    this.staging = null;
    this.emit({ type: 'commit', epoch });
    this.acknowledge(staging.generation, epoch);
  }

  private acknowledge(generation: number, epoch: number): void {
    if (generation === this.record?.generation) this.ack(generation, epoch);
    else {
      this.ackWithheld = { generation, epoch };
      this.readRecord();
    }
  }

  private ack(generation: number, epoch: number): void {
    if (this.phase !== 'following' || !this.watch) return;
    if (!this.durable || epoch > this.durable.epoch)
      throw new MirrorError('CORE_BUG', 'ack of an epoch that is not durable');
    const { incarnation } = this.config;
    const message = { type: 'ack', generation, epoch, incarnation } as const;
    this.emit({ type: 'send', session: this.watch.session, message });
  }

  private released(epoch: number): void {
    if (this.durable && epoch > 0)
      this.emit({ type: 'output-released', epoch: Math.min(epoch, this.durable.epoch) });
  }

  // --- Taking over ----------------------------------------------------------------------------

  private suspect(): void {
    const { watch } = this;
    if (this.phase === 'taking' || this.phase === 'promoting') return;
    const raw = this.phase !== 'following' || !this.durable?.complete;
    if (raw) {
      if (watch) this.emit({ type: 'hang-up', session: watch.session });
      return this.end('released');
    }
    this.become('taking');
    if (this.staging) this.emit({ type: 'drop-staged' });
    this.staging = null;
    this.ackWithheld = null;
    // A reading from before the suspicion may be under way; what it says is as good.
    if (!this.arbiter.busy) this.emit(...this.arbiter.read());
  }

  /** Eligible by the record alone: it must name this incarnation, and an epoch that is here. */
  private decide(record: VmRecord | null): void {
    if (this.forced) return this.takeAnyway(record);
    if (!this.eligible(record)) return this.end('released');
    this.emit(...this.arbiter.propose(soloProposal(this.config, record), record.revision));
  }

  private eligible(record: VmRecord | null): record is VmRecord {
    return (
      record?.mode === 'paired' &&
      record.peer === this.config.host &&
      record.peerIncarnation === this.config.incarnation &&
      this.durable !== null &&
      this.durable.epoch >= record.baseEpoch
    );
  }

  // --- A person's word ------------------------------------------------------------------------

  private command({ type: command }: Command): void {
    const error = command === 'force' ? this.force() : STANDBY_REFUSAL;
    this.emit({ type: 'answer', command, error });
  }

  /** The reason why not, or `null`: the image here is taken for the newest there is. */
  private force(): string | null {
    if (this.phase !== 'taking')
      return 'the owner is in reach: use mirror takeover without --force';
    if (this.config.recordAtOwner && this.arbiter.lost) return this.forceAlone();
    if (!this.arbiter.forgetful) return 'the arbiter decides who owns the VM: nothing to force';
    if (!this.eligible(this.record)) return 'the image here was never part of a pair';
    this.arbiter.abandon();
    this.arbiter.overrideAmnesia();
    this.forced = true;
    this.emit(...this.arbiter.read());
    return null;
  }

  /** The record cannot be asked for: a person says that nobody else goes on with the VM. */
  private forceAlone(): string | null {
    const { record } = this;
    if (!this.eligible(record)) return 'the image here was never part of a pair';
    this.arbiter.abandon();
    const proposal = forcedProposal(this.config, record, this.arbiter.generationSeen);
    this.emit(...this.arbiter.propose(proposal, record.revision));
    return null;
  }

  private takeAnyway(shown: VmRecord | null): void {
    this.forced = false;
    if (!this.record) throw new MirrorError('CORE_BUG', 'forced without a record');
    this.arbiter.overrideAmnesia();
    const wish = soloProposal(this.config, this.record);
    const proposal = vouchedProposal(wish, this.arbiter.generationSeen);
    this.emit(...this.arbiter.propose(proposal, shown?.revision ?? 0));
  }

  private promote(record: VmRecord): void {
    if (!this.durable || !this.hello) throw new MirrorError('CORE_BUG', 'promoted without image');
    this.become('promoting');
    if (this.watch) this.emit({ type: 'hang-up', session: this.watch.session });
    this.watch = null;
    const { epoch } = this.durable;
    const { note, requestsUsed } = this.arbiter;
    this.promotion = { record, epoch, peer: this.hello.address, note, requestsUsed };
    const { generation } = record;
    this.emit({ type: 'promote', epoch, generation });
  }

  private end(state: 'superseded' | 'released' | 'failed'): void {
    this.become('ended');
    this.emit({ type: 'exit', state });
  }
}
