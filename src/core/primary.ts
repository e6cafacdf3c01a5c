/**
 * The owner of a VM: decides when output may leave, when to go on alone, and how a pair is made.
 * DESIGN's rules for mirrored VMs are kept here and in `secondary.ts`; no clock takes part in them.
 */
import { ArbiterClient } from './arbiter-client.js';
import { MirrorError } from './errors.js';
import type { Command, Core, CoreConfig, CoreStatus, Effect, Event, SessionId } from './events.js';
import { Flight } from './flight.js';
import type { Ack, PeerMessage } from './messages.js';
import { PeerWatch } from './peer-watch.js';
import { pairProposal, soloProposal, stopProposal, vouchedProposal } from './proposals.js';
import type { HostNote, VmRecord } from './record.js';
import { Sync } from './sync.js';

export type PrimaryPhase =
  /** The record names this process; the machine is being made. */
  | 'booting'
  | 'solo'
  | 'paired'
  /** The peer is lost (or no longer wanted): the CAS for solo is under way and never taken back. */
  | 'leaving'
  /** Everything is released: the CAS for `stopped` is under way. */
  | 'stopping'
  | 'ended';

const MOVES: Record<PrimaryPhase, readonly PrimaryPhase[]> = {
  booting: ['solo', 'ended'],
  solo: ['paired', 'leaving', 'stopping', 'ended'],
  paired: ['leaving', 'stopping', 'ended'],
  leaving: ['solo', 'stopping', 'ended'],
  stopping: ['ended'],
  ended: [],
};

const RESENDS_MAX = 5;
/** An owner that runs looks at the record now and then: a person may have forced another. */
const RECORD_CHECK_DETECTIONS = 10;
/** A planned switch-over that has not happened by then is given up, in detection times. */
const HANDOVER_DETECTIONS = 3;

export interface PrimaryStart {
  /** Names this process as the owner. */
  readonly record: VmRecord;
  readonly note: HostNote;
  /** Address of the standby's host; `null`: run alone until told otherwise. */
  readonly peer: string | null;
  /** The epoch that the VM goes on from. */
  readonly epoch: number;
  /** Of the arbiter, by what this process was before: late answers must not be mistaken. */
  readonly requestsUsed: number;
}

export class Primary implements Core {
  private readonly config: CoreConfig;
  private readonly arbiter: ArbiterClient;
  private readonly flight: Flight;
  private phase: PrimaryPhase = 'booting';
  private record: VmRecord;
  private wantedPeer: string | null;
  private watch: PeerWatch | null = null;
  private sync: Sync | null = null;
  private redialAtMs: number | null = null;
  private dialing = false;
  private resends = 0;
  /** Set by `stop` or the guest's power-off: the epoch whose ack lets the VM end. */
  private ending: { epoch: number | null; command: boolean } | null = null;
  private handover: { epoch: number; sent: boolean; untilMs: number } | null = null;
  private unprotecting = false;
  private reseeding = false;
  private recordCheckAtMs = 0;
  private endState: 'stopped' | 'superseded' | 'failed' = 'stopped';
  private out: Effect[] = [];
  private nowMs = 0;

  constructor(config: CoreConfig, start: PrimaryStart) {
    this.config = config;
    this.arbiter = new ArbiterClient(config, start.note, start.requestsUsed);
    this.flight = new Flight(start.epoch);
    this.record = start.record;
    this.wantedPeer = start.peer;
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
      role: 'primary',
      state: this.state(),
      generation: this.record.generation,
      epoch: this.flight.epoch,
      committedEpoch: this.flight.ackedEpoch,
      owner: this.config.host,
      peer: this.phase === 'paired' ? this.record.peer : (this.sync?.peer.host ?? ''),
      yields: this.handover?.sent === true || (this.phase === 'leaving' && this.stalls),
    };
  }

  private state(): CoreStatus['state'] {
    if (this.phase === 'ended') return this.endState;
    const runs = this.phase === 'solo' || this.phase === 'paired';
    const waits = runs ? this.arbiter.proposing : this.arbiter.busy;
    if (this.arbiter.lost && waits) return 'waiting-arbiter';
    if (this.phase === 'paired') return 'protected';
    if (this.phase === 'solo') return this.sync ? 'syncing' : 'solo';
    // The record has yet to say who goes on, or that nobody does; with `stall`, a person has.
    if (this.phase === 'leaving' || this.phase === 'stopping') return 'waiting-arbiter';
    return 'starting';
  }

  private become(phase: PrimaryPhase): void {
    if (!MOVES[this.phase].includes(phase))
      throw new MirrorError('CORE_BUG', `a primary cannot go from ${this.phase} to ${phase}`);
    this.phase = phase;
  }

  private emit(...effects: Effect[]): void {
    this.out.push(...effects);
  }

  private take(event: Event): void {
    switch (event.type) {
      case 'machine-ready':
        return this.machineReady();
      case 'epoch-due':
        return this.epochDue();
      case 'captured':
        return this.captured(event);
      case 'capture-failed':
        this.flight.failed();
        this.emit({ type: 'warn', code: 'CAPTURE_FAILED', text: event.reason });
        return this.peerLost();
      case 'session-up':
        return this.sessionUp(event.session);
      case 'session-down':
        if (this.watch?.session === event.session) this.peerLost();
        return;
      case 'dial-failed':
        this.dialing = false;
        this.redialAtMs = this.nowMs + this.config.redialMs;
        return;
      case 'message':
        return this.message(event.session, event.message);
      case 'arbiter-reply':
        return this.arbiterReply(event);
      case 'note-saved':
        return this.emit(...this.arbiter.noteSaved(event.request));
      case 'powered-off':
        return this.beginEnding(false);
      case 'machine-failed':
        this.emit({ type: 'warn', code: 'MACHINE_FAILED', text: event.reason });
        return this.end('failed');
      case 'command':
        return this.command(event.command);
      case 'look':
        this.recordCheckAtMs = this.nowMs;
        return;
      case 'tick':
      case 'gate-full':
      case 'gate-drained':
      case 'verified':
      case 'image-alive':
        return;
    }
  }

  /** Everything that is due by the clock, and the next time to look. */
  private onTime(): void {
    if (this.phase === 'leaving') this.watchRecord();
    if (this.phase === 'solo' || this.phase === 'paired') this.checkRecord();
    this.emit(...this.arbiter.tick(this.nowMs));
    if (this.watch) this.watchPeer(this.watch);
    const { handover } = this;
    if (handover && this.nowMs > handover.untilMs) this.handoverFailed('the standby did not act');
    const mayDial = this.phase === 'solo' && !this.watch && !this.dialing && !this.ending;
    if (mayDial && this.wantedPeer !== null && this.nowMs >= (this.redialAtMs ?? 0)) {
      this.dialing = true;
      this.emit({ type: 'dial', peer: this.wantedPeer });
    }
    this.emit({ type: 'wake-at', atMs: this.nextWakeMs() });
  }

  private nextWakeMs(): number {
    const times = [this.nowMs + this.config.detectMs];
    const add = (atMs: number | null): void => {
      if (atMs !== null && atMs > this.nowMs) times.push(atMs);
    };
    add(this.arbiter.wakeAtMs);
    add(this.watch?.wakeAtMs ?? null);
    add(this.redialAtMs);
    const oldest = this.flight.oldestAtMs;
    add(oldest === null ? null : oldest + this.config.ackMsMax + 1);
    return Math.min(...times);
  }

  private watchPeer(watch: PeerWatch): void {
    this.emit(...watch.beat(this.nowMs, this.flight.releasedThrough));
    const oldest = this.flight.oldestAtMs;
    const stuck = oldest !== null && this.nowMs - oldest > this.config.ackMsMax;
    // Heartbeats alone are no progress: a standby that never welcomes is as good as none.
    const { sync } = this;
    const ignored =
      sync?.stage === 'greeting' && this.nowMs - sync.startedAtMs > this.config.ackMsMax;
    if (watch.silent(this.nowMs) || stuck || ignored) this.peerLost();
  }

  // --- The record -----------------------------------------------------------------------------

  /** With the policy `stall` the owner only watches whether somebody else was promoted. */
  private watchRecord(): void {
    if (this.arbiter.busy || this.nowMs < (this.redialAtMs ?? 0)) return;
    this.redialAtMs = this.nowMs + this.config.redialMs;
    this.emit(...this.arbiter.read());
  }

  private checkRecord(): void {
    if (this.arbiter.busy || this.nowMs < this.recordCheckAtMs) return;
    this.recordCheckAtMs = this.nowMs + this.config.detectMs * RECORD_CHECK_DETECTIONS;
    this.emit(...this.arbiter.read());
  }

  private arbiterReply(event: Extract<Event, { type: 'arbiter-reply' }>): void {
    const { effects, outcome } = this.arbiter.reply(event.request, event.reply, this.nowMs);
    this.emit(...effects);
    if (!outcome) return;
    if (outcome.type === 'read') this.readBack(outcome.record);
    else if (outcome.type === 'won') this.won(outcome.record);
    else if (outcome.type === 'lost') this.lost(outcome.record);
  }

  private readBack(record: VmRecord | null): void {
    if (this.reseeding) return this.reseedOn(record);
    if (!record) return;
    if (record.ownerIncarnation !== this.config.incarnation) return this.superseded(record);
    // Only the meeting of two hosts without an arbiter changes it behind our back.
    if (this.phase === 'solo' && record.revision > this.record.revision) this.record = record;
  }

  private won(record: VmRecord): void {
    this.record = record;
    switch (this.phase) {
      case 'solo':
        return record.mode === 'paired' ? this.paired(record) : this.alone();
      case 'leaving':
        return record.mode === 'solo' ? this.alone() : this.goSolo();
      case 'stopping':
        return this.stopped();
      case 'booting':
      case 'paired':
      case 'ended':
        throw new MirrorError('CORE_BUG', `a CAS won in phase ${this.phase}`);
    }
  }

  /** Somebody's record stands. If it is an earlier proposal of ours, go on from there. */
  private lost(record: VmRecord): void {
    if (record.ownerIncarnation !== this.config.incarnation) return this.superseded(record);
    this.record = record;
    if (this.phase === 'stopping')
      this.emit(...this.arbiter.propose(stopProposal(record), record.revision));
    else this.goSolo();
  }

  private machineReady(): void {
    if (this.phase !== 'booting') return;
    this.become('solo');
    this.emit({ type: 'gate-open' }, { type: 'run' });
    if (this.ending) this.proposeStop();
  }

  // --- Making a pair --------------------------------------------------------------------------

  private sessionUp(session: SessionId): void {
    this.dialing = false;
    if (this.phase !== 'solo' || this.watch || this.wantedPeer === null || this.ending)
      return this.emit({ type: 'hang-up', session });
    this.watch = new PeerWatch(session, this.config.detectMs, this.nowMs);
    this.sync = new Sync(session, this.nowMs);
    const { vmUuid, host, address, incarnation } = this.config;
    const { generation } = this.record;
    const hello = { type: 'hello', vmUuid, host, address, incarnation, generation } as const;
    this.emit({ type: 'send', session, message: hello });
  }

  private message(session: SessionId, message: PeerMessage): void {
    if (this.watch?.session !== session) return;
    this.watch.heard(this.nowMs);
    if (message.type === 'welcome' && this.sync?.stage === 'greeting') {
      this.sync.peer = { host: message.host, incarnation: message.incarnation };
      this.sync.advance('streaming');
    } else if (message.type === 'refuse') this.refused();
    else if (message.type === 'ack') this.acked(message);
    else if (message.type === 'nack') this.resend(session, message.epoch);
  }

  /** The peer may know of a newer record. */
  private refused(): void {
    this.recordCheckAtMs = this.nowMs;
    this.peerLost();
  }

  private epochDue(): void {
    const { flight, watch, sync } = this;
    if (!watch || flight.capturing || this.ending || this.handover) return;
    if (flight.size >= this.config.unackedEpochsMax) return;
    if (this.phase === 'paired') return this.capture(false, false);
    if (this.phase !== 'solo' || !sync) return;
    if (sync.stage === 'streaming') this.capture(false, false);
    else if (sync.stage === 'ready') {
      // Rule 5: first the gate, then the capture that the pair rests on.
      this.emit({ type: 'gate-close' });
      this.capture(true, false);
      sync.finalEpoch = flight.epoch;
      sync.advance('final');
    }
  }

  private capture(final: boolean, hold: boolean): void {
    const { watch, sync, flight } = this;
    if (!watch) throw new MirrorError('CORE_BUG', 'capture without a session');
    const base = sync !== null && !sync.started;
    if (sync) sync.started = true;
    const { generation } = this.record;
    const epoch = flight.begin();
    const { session } = watch;
    this.emit({ type: 'capture', session, generation, epoch, base, final, hold });
  }

  private captured(event: Extract<Event, { type: 'captured' }>): void {
    if (!this.flight.capturing) return;
    this.flight.captured(event.epoch, this.nowMs);
    if (!this.watch) this.flight.abandon();
    const { sync } = this;
    if (sync?.stage === 'streaming' && event.ready) sync.advance('ready');
    if (sync?.stage === 'final' && event.epoch === sync.finalEpoch && !event.complete)
      throw new MirrorError('CORE_BUG', 'the final epoch of a sync does not cover all of memory');
    if (this.ending?.epoch === null && this.phase === 'paired') this.captureLast();
  }

  /** Rule 1: only an ack for this generation, from the incarnation that the record names. */
  private acked(ack: Ack): void {
    const { sync } = this;
    const peerIncarnation = sync ? sync.peer.incarnation : this.record.peerIncarnation;
    if (ack.incarnation !== peerIncarnation || ack.generation !== this.record.generation) return;
    if (!this.flight.acked(ack.epoch)) return;
    this.resends = 0;
    this.emit({ type: 'forget', epoch: ack.epoch });
    const named = this.record.mode === 'paired' && !sync;
    if (named) this.release(ack.epoch);
    else if (sync?.stage === 'final' && ack.epoch >= sync.finalEpoch) this.proposePair(sync);
  }

  private release(epoch: number): void {
    this.flight.releasedThrough = epoch;
    this.emit({ type: 'gate-release', epoch });
    if (this.ending?.epoch === epoch && this.phase === 'paired') this.proposeStop();
    if (this.handover?.epoch === epoch) this.sendHandover(this.handover);
  }

  private proposePair(sync: Sync): void {
    sync.advance('pairing');
    const proposal = pairProposal(this.record, sync.peer, sync.finalEpoch);
    this.emit(...this.arbiter.propose(proposal, this.record.revision));
  }

  private paired(record: VmRecord): void {
    if (!this.sync || !this.watch) throw new MirrorError('CORE_BUG', 'paired without a peer');
    this.become('paired');
    this.sync = null;
    const { session } = this.watch;
    const { generation } = record;
    this.emit({ type: 'send', session, message: { type: 'paired-hint', generation } });
    this.release(record.baseEpoch);
    if (this.ending) this.captureLast();
  }

  private resend(session: SessionId, epoch: number): void {
    this.resends += 1;
    if (this.resends > RESENDS_MAX) return this.peerLost();
    for (const kept of this.flight.from(epoch)) this.emit({ type: 'resend', session, epoch: kept });
  }

  // --- Losing the peer ------------------------------------------------------------------------

  private peerLost(): void {
    const { watch, sync } = this;
    if (!watch) return;
    this.watch = null;
    this.flight.abandon();
    this.resends = 0;
    this.emit({ type: 'hang-up', session: watch.session });
    this.redialAtMs = this.nowMs + this.config.redialMs;
    if (this.phase === 'paired') return this.leave();
    this.sync = null;
    if (this.phase !== 'solo' || !sync) return;
    // A CAS for the pair may be under way: only a newer record makes sure that it cannot win.
    if (sync.stage === 'pairing') this.leave();
    else this.emit({ type: 'gate-open' });
  }

  private get stalls(): boolean {
    return this.config.onPeerLoss === 'stall' && !this.unprotecting;
  }

  private leave(): void {
    this.become('leaving');
    if (this.stalls) {
      const text = 'the peer is lost and the policy is to stall: the VM waits for a person';
      this.emit({ type: 'warn', code: 'STALLED', text });
      return this.emit(...this.arbiter.read());
    }
    this.goSolo();
  }

  private goSolo(): void {
    if (this.phase === 'solo') this.become('leaving');
    this.emit(
      ...this.arbiter.propose(soloProposal(this.config, this.record), this.record.revision),
    );
  }

  /** The durable record names this process as the only owner: output may leave at once. */
  private alone(): void {
    if (this.phase === 'leaving') this.become('solo');
    this.emit({ type: 'forget', epoch: this.flight.epoch }, { type: 'gate-open' });
    this.flight.abandon();
    if (this.handover) this.handoverFailed('the peer was lost');
    if (this.unprotecting) this.unprotected();
    if (this.ending) this.proposeStop();
    else this.emit({ type: 'run' });
  }

  private superseded(by: VmRecord): void {
    if ((by.forcedAt ?? 0) > (this.record.forcedAt ?? 0)) this.forcedElsewhere(by);
    if (this.handover) this.emit({ type: 'answer', command: 'handover', error: null });
    this.emit({ type: 'gate-close' }, { type: 'kill-machine' });
    this.end('superseded');
  }

  /** What this side did since then is not what goes on; a person may want to look at it. */
  private forcedElsewhere({ owner }: VmRecord): void {
    const { generation } = this.record;
    const text = `host ${owner} was forced to take over: this side stops, its image is kept aside`;
    this.emit({ type: 'gate-close' }, { type: 'warn', code: 'FORCED_ELSEWHERE', text });
    this.emit({ type: 'keep-aside', generation });
  }

  private end(state: 'stopped' | 'superseded' | 'failed'): void {
    this.become('ended');
    this.endState = state;
    this.emit({ type: 'exit', state });
  }

  // --- Commands -------------------------------------------------------------------------------

  private command(command: Command): void {
    const refuse = (error: string): void =>
      this.emit({ type: 'answer', command: command.type, error });
    if (this.phase !== 'solo' && this.phase !== 'paired' && command.type !== 'reseed')
      if (command.type !== 'stop' && command.type !== 'unprotect')
        return refuse(`not while the VM is ${this.state()}`);
    switch (command.type) {
      case 'protect':
        if (this.phase === 'paired') return refuse('the VM is protected already');
        this.wantedPeer = command.peer;
        this.redialAtMs = null;
        return this.emit({ type: 'answer', command: 'protect', error: null });
      case 'unprotect':
        return this.unprotect();
      case 'stop':
        return this.beginEnding(true);
      case 'handover':
        return this.beginHandover(refuse);
      case 'reseed':
        return this.reseed(refuse);
      case 'force':
        return refuse('this host owns the VM already');
    }
  }

  private unprotect(): void {
    this.wantedPeer = null;
    this.unprotecting = true;
    if (this.phase === 'paired') return this.leave();
    if (this.phase === 'leaving' && !this.arbiter.proposing) return this.goSolo();
    if (this.sync) this.peerLost();
    if (this.phase === 'solo') this.unprotected();
  }

  private unprotected(): void {
    this.unprotecting = false;
    if (this.watch) this.sayGoodbye(this.watch);
    this.emit({ type: 'answer', command: 'unprotect', error: null });
  }

  private sayGoodbye(watch: PeerWatch): void {
    const { session } = watch;
    this.emit({ type: 'send', session, message: { type: 'release' } });
    this.emit({ type: 'hang-up', session });
    this.watch = null;
  }

  /** Rule 6: the last output is gated like any other, then the record says `stopped`. */
  private beginEnding(command: boolean): void {
    if (this.ending) return;
    this.ending = { epoch: null, command };
    if (this.phase === 'paired') {
      if (!this.flight.capturing) this.captureLast();
    } else if (this.phase === 'solo') {
      const pairing = this.sync?.stage === 'pairing';
      if (pairing) return;
      if (this.sync) this.peerLost();
      this.proposeStop();
    }
  }

  private captureLast(): void {
    if (!this.ending) return;
    this.capture(false, true);
    this.ending.epoch = this.flight.epoch;
  }

  private proposeStop(): void {
    this.become('stopping');
    this.emit({ type: 'pause' });
    this.emit(...this.arbiter.propose(stopProposal(this.record), this.record.revision));
  }

  private stopped(): void {
    if (this.watch) this.sayGoodbye(this.watch);
    if (this.ending?.command) this.emit({ type: 'answer', command: 'stop', error: null });
    this.emit({ type: 'kill-machine' });
    this.end('stopped');
  }

  private beginHandover(refuse: (error: string) => void): void {
    if (this.phase !== 'paired') return refuse('the VM is not protected');
    if (this.flight.capturing || this.handover) return refuse('busy, try again');
    this.capture(false, true);
    const untilMs = this.nowMs + this.config.detectMs * HANDOVER_DETECTIONS;
    this.handover = { epoch: this.flight.epoch, sent: false, untilMs };
  }

  private sendHandover(handover: { epoch: number; sent: boolean }): void {
    if (!this.watch || handover.sent) return;
    handover.sent = true;
    const { session } = this.watch;
    this.emit({ type: 'send', session, message: { type: 'handover', epoch: handover.epoch } });
  }

  private handoverFailed(reason: string): void {
    this.handover = null;
    this.emit({ type: 'answer', command: 'handover', error: `not switched over: ${reason}` });
    // The standby may have decided: only the record can tell who owns the VM now.
    this.peerLost();
  }

  private reseed(refuse: (error: string) => void): void {
    if (this.phase === 'booting') return refuse(`not while the VM is ${this.state()}`);
    if (this.watch) this.emit({ type: 'hang-up', session: this.watch.session });
    this.watch = null;
    this.sync = null;
    this.flight.abandon();
    if (this.phase === 'paired' || this.phase === 'solo') this.become('leaving');
    this.reseeding = true;
    this.arbiter.abandon();
    this.arbiter.overrideAmnesia();
    this.emit({ type: 'gate-close' }, ...this.arbiter.read());
  }

  /** The arbiter lost its memory: our own record counts, on top of whatever is there now. */
  private reseedOn(record: VmRecord | null): void {
    this.reseeding = false;
    this.arbiter.overrideAmnesia();
    const stopping = this.phase === 'stopping';
    const wish = stopping ? stopProposal(this.record) : soloProposal(this.config, this.record);
    const proposal = vouchedProposal(wish, this.arbiter.generationSeen);
    this.emit(...this.arbiter.propose(proposal, record?.revision ?? 0));
    this.emit({ type: 'answer', command: 'reseed', error: null });
  }
}
