/**
 * One VM on one host: joins the protocol core to the machine, the standby's replica, the links, the
 * arbiter and the note on disk. Each effect of the core has one handler here.
 */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Command, CoreConfig, CoreStatus, Effect, SessionId } from '../core/events.js';
import type { PeerMessage } from '../core/messages.js';
import { createPrimary, createSecondary } from '../core/member.js';
import type { HostNote } from '../core/record.js';
import type { EncodedPart } from '../checkpoint/epoch-loop.js';
import type { InputState } from '../gate/serial-input.js';
import { SerialRing } from '../gate/serial-ring.js';
import type { Machine } from '../machine/machine.js';
import { openArbiter, type Arbiter } from '../pool/arbiter.js';
import { readyLinks, type ReadyLink } from '../network/nic-link.js';
import { joinPart } from '../replica/part.js';
import { Replica } from '../replica/replica.js';
import { loadFrameCodec, type FrameCodec } from '../wire/frame.js';
import { Security } from '../wire/security.js';
import { DaemonArbiter } from './daemon-arbiter.js';
import { chooseEngine } from './engine-choice.js';
import { FileStore } from './file-store.js';
import { refuseUnsafeDisks } from './local-disks.js';
import { MachineSource } from './machine-source.js';
import { NoteStore } from './note-store.js';
import { probePeer } from './peer-control.js';
import { asideDir } from './pair-store.js';
import { PrimarySide } from './primary-side.js';
import { guardStandby, guardStart } from './room-guard.js';
import { monotonicMs, VmDriver, type EffectHandlers } from './vm-driver.js';
import { acceptVm, dialVm, type ProvenPeer, type VmConnection } from './vm-dial.js';
import { VmLink } from './vm-link.js';
import { describe, VmProcessError } from './vm-process-error.js';
import type { DaemonToVm, InitMessage, VmToDaemon } from './vm-protocol.js';
import { answerRequest } from './vm-requests.js';

type CaptureEffect = Extract<Effect, { type: 'capture' }>;
type CasEffect = Extract<Effect, { type: 'arbiter-cas' }>;
type NoteEffect = Extract<Effect, { type: 'save-note' }>;
type ProbeEffect = Extract<Effect, { type: 'probe-image' }>;

const ACK_MS_PER_DETECT_MS = 3;
const UNACKED_EPOCHS_MAX = 2;
const WARNINGS_MAX = 20;
const NOTE_RETRY_MS = 200;
const EXIT_GRACE_MS = 50;
/** An image that takes longer to be kept aside is not kept. */
const ASIDE_MS_MAX = 120_000;

/** An epoch of which some parts are here: how many, and how many it has. */
export interface PartialEpoch {
  readonly epoch: number;
  readonly parts: number;
  readonly partCount: number;
}

/** How the takeover by this process went. */
export interface TakeoverFigures {
  readonly epoch: number;
  /** From the decision to the VM running. */
  readonly promoteMs: number;
  /** The epoch that was arriving when the owner was lost. */
  readonly partial: PartialEpoch | null;
}

interface VmTools {
  readonly codec: FrameCodec;
  readonly files: FileStore;
  readonly source: MachineSource;
  readonly notes: NoteStore;
  readonly links: ReadyLink[];
  readonly security: Security;
}

export class VmProcess {
  readonly incarnation: string;
  readonly init: InitMessage;
  readonly driver: VmDriver;
  readonly security: Security;
  serial = new SerialRing();
  lastTakeover: TakeoverFigures | null = null;
  readonly warnings: { code: string; text: string }[] = [];
  primary: PrimarySide | null = null;
  replica: Replica | null = null;
  /** On a standby, the epoch that is arriving. */
  arriving: PartialEpoch | null = null;
  source: MachineSource;
  private readonly codec: FrameCodec;
  private readonly arbiter: Arbiter;
  private readonly notes: NoteStore;
  private readonly files: FileStore;
  private cables: readonly ReadyLink[];
  private readonly links = new Map<SessionId, VmLink>();
  private readonly epochSession = new Map<number, SessionId>();
  private readonly answers = new Map<string, ((error: string | null) => void)[]>();
  /** Settles once the image is kept aside, if it is to be. */
  private aside: Promise<void> = Promise.resolve();
  private nextSession = 1;
  private stagedGeneration = 0;
  private releasedThrough = 0;
  private dialing = false;
  /** Whom the core dials: the peer, also of a VM that came here by a takeover. */
  private peerAddress: string | null;

  static async create(init: InitMessage): Promise<VmProcess> {
    const codec = await loadFrameCodec();
    const files = new FileStore(init.host.stateDir);
    const source = new MachineSource(files, init.host, init.auditEvery);
    const security = new Security(init.host);
    const ask = { security, deadlineMs: init.host.detectMs };
    const choice = init.vm && (await chooseEngine(init.vm, init.peer, ask));
    if (init.vm && choice) {
      await source.fromConfig({ ...init.vm, engine: choice.engine });
      await guardStart(security, init, source.description);
    }
    const links = init.vm ? await readyLinks(init.vm.nics) : [];
    const incarnation = randomUUID();
    const notes = new NoteStore(init.host.stateDir, init.vmUuid, incarnation);
    const tools = { codec, files, source, notes, links, security };
    const vm = new VmProcess(init, incarnation, tools, await notes.load());
    if (choice && choice.why !== '') vm.warn('ENGINE_CHOICE', choice.why);
    return vm;
  }

  private constructor(
    init: InitMessage,
    incarnation: string,
    { codec, files, source, notes, links, security }: VmTools,
    note: HostNote | null,
  ) {
    this.init = init;
    this.codec = codec;
    this.files = files;
    this.security = security;
    this.source = source;
    this.cables = links;
    this.incarnation = incarnation;
    this.arbiter = this.arbiterOf(init);
    this.notes = notes;
    this.peerAddress = init.peer;
    const config = this.coreConfig();
    const core =
      init.role === 'primary'
        ? createPrimary(config, note, {
            ...{ start: init.start, peer: init.peer, forcedOver: init.forcedOver ?? null },
          })
        : createSecondary(config, note);
    this.driver = new VmDriver(core, this.handlers(), (status) => this.statusChanged(status));
    this.driver.dispatch({ type: 'tick' });
  }

  handle(message: DaemonToVm, socket: Socket | null): void {
    if (message.type === 'session') {
      if (!socket) return;
      const rest = Buffer.from(message.rest, 'base64');
      if (rest.length > 0) socket.unshift(rest);
      void this.acceptSession(socket, message.peer);
    } else if (message.type === 'record-reply') {
      if (this.arbiter instanceof DaemonArbiter) this.arbiter.answered(message.id, message.reply);
    } else if (message.type === 'look') this.driver.dispatch({ type: 'look' });
    else if (message.type === 'request') {
      answerRequest(this, message.method, message.params).then(
        (result) => this.tell({ type: 'reply', id: message.id, result }),
        (error: unknown) => this.tell({ type: 'reply', id: message.id, error: describe(error) }),
      );
    }
  }

  /** Gives the core a command; settles with its answer. */
  command(command: Command): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting = this.answers.get(command.type) ?? [];
      this.answers.set(command.type, waiting);
      waiting.push((error) => {
        if (error !== null) return reject(new VmProcessError('REFUSED', error));
        if (command.type === 'protect') this.peerIs(command.peer);
        if (command.type === 'unprotect') this.unprotected();
        resolve();
      });
      this.driver.dispatch({ type: 'command', command });
    });
  }

  /** What was allowed of its disks was so for the mirror that there is no more. */
  private unprotected(): void {
    this.source.allowUnsafeDisks(false);
    this.peerIs(null);
  }

  private arbiterOf({ host, forcedOver }: InitMessage): Arbiter {
    const { security } = this;
    const { arbiter, stateDir, detectMs: deadlineMs } = host;
    if (arbiter === 'none')
      return new DaemonArbiter({
        ...{ deadlineMs, forced: forcedOver !== undefined },
        peer: () => this.peerAddress,
        tell: (message) => this.tell(message),
      });
    const onFault = (text: string): void => this.warn('ARBITER_FAULT', text);
    return openArbiter(arbiter, { deadlineMs, stateDir, security, onFault });
  }

  private coreConfig(): CoreConfig {
    const { init } = this;
    return {
      vm: init.vmName,
      vmUuid: init.vmUuid,
      host: init.host.name,
      address: init.host.address,
      incarnation: this.incarnation,
      detectMs: init.host.detectMs,
      ackMsMax: init.host.detectMs * ACK_MS_PER_DETECT_MS,
      redialMs: Math.max(100, init.host.detectMs / 2),
      arbiterRetryMs: Math.max(50, init.host.detectMs / 4),
      unackedEpochsMax: UNACKED_EPOCHS_MAX,
      onPeerLoss: init.vm?.onPeerLoss ?? 'solo',
      recordAtOwner: init.host.arbiter === 'none',
    };
  }

  private handlers(): EffectHandlers {
    return {
      ...this.machineHandlers(),
      ...this.standbyHandlers(),
      ...this.linkHandlers(),
      ...this.durableHandlers(),
      'wake-at': (effect) => this.driver.wakeAt(effect.atMs),
      answer: (effect) => {
        for (const settle of this.answers.get(effect.command) ?? []) settle(effect.error);
        this.answers.delete(effect.command);
      },
      warn: ({ code, text }) => this.warn(code, text),
      exit: (effect) => this.exit(effect.state),
    };
  }

  /** For `status` and for the daemon's log; one that repeats moves to the end. */
  private warn(code: string, text: string): void {
    const known = this.warnings.findIndex((kept) => kept.code === code && kept.text === text);
    if (known >= 0) this.warnings.splice(known, 1);
    this.warnings.push({ code, text });
    if (this.warnings.length > WARNINGS_MAX) this.warnings.shift();
    this.tell({ type: 'warning', code, text });
  }

  /** What they warned of is over. */
  private forgetWarnings(code: string): void {
    const kept = this.warnings.filter((warning) => warning.code !== code);
    this.warnings.splice(0, this.warnings.length, ...kept);
  }

  private machineHandlers() {
    return {
      boot: () => void this.boot(),
      run: () => this.primary?.run(),
      pause: () => this.primary?.pause(),
      'keep-aside': ({ generation }: { generation: number }) => {
        this.aside = this.keepAside(generation);
      },
      'kill-machine': () => void this.aside.then(() => this.primary?.kill()),
      'gate-close': () => this.primary?.gate.close(),
      'gate-open': () => this.primary?.gate.open(),
      'gate-release': ({ epoch }: { epoch: number }) => {
        this.releasedThrough = epoch;
        this.primary?.gate.release(epoch);
      },
    };
  }

  /** Before the machine goes: a person may want to look at what it was. */
  private async keepAside(generation: number): Promise<void> {
    const dir = asideDir(this.init.host.stateDir, this.init.vmName, generation);
    try {
      await this.primary?.keepImage(dir);
      this.warn('KEPT_ASIDE', `the image of this side is kept in ${dir}`);
    } catch (error) {
      this.warn('NOT_KEPT', `the image of this side is not kept: ${describe(error).message}`);
    }
  }

  private observeCommit(epoch: number): void {
    const { primary } = this;
    const figures = primary?.loop?.figures;
    if (!primary || !figures) return;
    figures.committed(epoch);
    primary.pacer.observe(figures.pauseMs.last, figures.commitMs.last);
  }

  private async boot(): Promise<void> {
    try {
      const machine = await this.source.create();
      await machine.boot();
      this.becomePrimary(machine);
      this.driver.dispatch({ type: 'machine-ready' });
    } catch (error) {
      this.machineFailed(error);
    }
  }

  private becomePrimary(machine: Machine): void {
    const { nics, epochMs } = this.source.description;
    this.primary = new PrimarySide(
      machine,
      this.serial,
      { nics, epochMs, links: this.cables },
      {
        epochDue: () => this.driver.dispatch({ type: 'epoch-due' }),
        gateFull: () => this.driver.dispatch({ type: 'gate-full' }),
        gateDrained: () => this.driver.dispatch({ type: 'gate-drained' }),
        poweredOff: () => this.driver.dispatch({ type: 'powered-off' }),
        machineFailed: (error) => this.machineFailed(error),
        captured: (epoch, sweep) => this.driver.dispatch({ type: 'captured', epoch, ...sweep }),
        encoded: (part) => this.sendPart(part),
        missed: (epoch, pageCount) =>
          this.warn('PAGES_MISSED', `an audit found ${pageCount} unseen pages in epoch ${epoch}`),
        failed: (epoch, error) =>
          this.driver.dispatch({ type: 'capture-failed', epoch, reason: error.message }),
      },
    );
  }

  private machineFailed(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.driver.dispatch({ type: 'machine-failed', reason });
  }

  private standbyHandlers() {
    return {
      stage: () => this.stage(),
      verify: ({ epoch }: { epoch: number }) => {
        const ok = this.replica?.verify(this.stagedGeneration, epoch) ?? false;
        this.driver.dispatch({ type: 'verified', epoch, ok });
      },
      commit: ({ epoch }: { epoch: number }) => this.replica?.commit(epoch),
      'drop-staged': () => this.replica?.dropStaged(),
      'output-released': ({ epoch }: { epoch: number }) =>
        this.replica?.outputs.releasedThrough(epoch),
      promote: ({ epoch }: { epoch: number }) => void this.promote(epoch),
    };
  }

  /** The part that came with the message that the core is looking at. */
  private stage(): void {
    const event = this.driver.event;
    if (event?.type !== 'message' || event.message.type !== 'epoch-part')
      throw new Error('stage without a part');
    const part = event.message;
    if (part.base && part.part === 0) this.replica?.reset();
    const parts = part.part + 1;
    const whole = parts === part.partCount;
    this.arriving = whole ? null : { epoch: part.epoch, parts, partCount: part.partCount };
    this.stagedGeneration = part.generation;
    this.replica?.stage(part.part, this.driver.payload ?? new Uint8Array(0));
  }

  private async promote(epoch: number): Promise<void> {
    try {
      const { replica } = this;
      if (!replica) throw new Error('promoted without a replica');
      const startedAtMs = monotonicMs();
      await replica.promote();
      this.serial = replica.outputs.serial;
      this.becomePrimary(replica.machine);
      this.primary?.adopt(replica.outputs);
      this.primary?.announce();
      this.replica = null;
      this.driver.dispatch({ type: 'machine-ready' });
      const promoteMs = monotonicMs() - startedAtMs;
      this.lastTakeover = { epoch, promoteMs, partial: this.arriving };
    } catch (error) {
      this.machineFailed(error);
    }
  }

  private linkHandlers() {
    return {
      capture: (effect: CaptureEffect) => {
        this.epochSession.set(effect.epoch, effect.session);
        this.primary?.order(effect);
      },
      resend: ({ epoch }: { epoch: number }) => this.sendEpoch(epoch),
      forget: ({ epoch }: { epoch: number }) => {
        this.observeCommit(epoch);
        this.primary?.loop?.forgetThrough(epoch);
        for (const known of this.epochSession.keys())
          if (known <= epoch) this.epochSession.delete(known);
      },
      dial: ({ peer }: { peer: string }) => void this.dial(peer),
      'hang-up': ({ session }: { session: SessionId }) => {
        this.primary?.loop?.figures.restart();
        this.links.get(session)?.close();
      },
      send: ({ session, message }: { session: SessionId; message: PeerMessage }) =>
        this.links.get(session)?.send(message),
    };
  }

  /** Sends a retained epoch again, on the session that it was captured for. */
  private sendEpoch(epoch: number): void {
    for (const part of this.primary?.loop?.retained.get(epoch) ?? []) this.sendPart(part);
  }

  private sendPart(encoded: EncodedPart): void {
    const { epoch, generation, base, complete, part, partCount, pages, output } = encoded;
    const link = this.links.get(this.epochSession.get(epoch) ?? 0);
    const { releasedThrough } = this;
    const header = { generation, epoch, part, partCount, base, complete, releasedThrough };
    link?.send({ type: 'epoch-part', ...header }, joinPart(part, output, pages));
  }

  private async dial(peer: string): Promise<void> {
    if (this.dialing) return;
    this.dialing = true;
    this.peerIs(peer);
    try {
      const { vmName, vmUuid, host } = this.init;
      const { config } = this.source.description;
      refuseUnsafeDisks(config, config.unsafeDisks, 'It was not mirrored');
      const { generation } = this.driver.status();
      const claim = { vmName, vmUuid, incarnation: this.incarnation, generation };
      const link = this.linkOn(await dialVm(this.security, peer, claim, host.detectMs));
      const { specJson, files, contents } = this.source.offer();
      await link.offer({ specJson, files, address: host.address }, contents);
      this.addLink(link);
      this.forgetWarnings('DIAL_FAILED');
    } catch (error) {
      this.warn('DIAL_FAILED', describe(error).message);
      this.driver.dispatch({ type: 'dial-failed' });
    } finally {
      this.dialing = false;
    }
  }

  private linkOn({ socket, peer }: VmConnection): VmLink {
    const link = new VmLink(socket, this.codec, peer);
    link.onFault = (code, text) => this.warn(code, text);
    return link;
  }

  private async acceptSession(raw: Socket, peer: ProvenPeer): Promise<void> {
    let link: VmLink | null = null;
    try {
      link = this.linkOn(await acceptVm(this.security, raw, peer));
      const offer = await link.accept(this.files);
      this.peerAddress = offer.address;
      if (!this.replica) {
        await this.source.fromOffer(offer.specJson);
        guardStandby(this.init, this.source.description);
        this.cables = await readyLinks(this.source.description.nics);
        this.replica = await Replica.create(await this.standbyMachine());
      }
      this.addLink(link);
      link.accepted();
    } catch (error) {
      const { message } = describe(error);
      link?.refuse(`host ${this.init.host.name}: ${message}`);
      this.warn('OFFER_FAILED', message);
      // A standby lives for one connection: without it there is nothing to wait for.
      if (this.links.size === 0 && !this.primary) this.exit('released');
    }
  }

  /** Ready for a takeover; without it this process is of no use to the owner. */
  private async standbyMachine(): Promise<Machine> {
    const machine = await this.source.create();
    machine.onFailure = (error) => {
      this.warn('MACHINE_FAILED', error.message);
      this.exit('released');
    };
    await machine.standBy();
    return machine;
  }

  private addLink(link: VmLink): void {
    const session = this.nextSession;
    this.nextSession += 1;
    this.links.set(session, link);
    link.listener = {
      message: (message, payload) =>
        this.driver.dispatch({ type: 'message', session, message }, payload),
      serialIn: (offset, bytes) => this.primary?.serialIn(offset, bytes) ?? null,
      down: () => {
        this.links.delete(session);
        this.driver.dispatch({ type: 'session-down', session });
      },
    };
    this.driver.dispatch({ type: 'session-up', session });
  }

  private durableHandlers() {
    const { vmUuid } = this.init;
    return {
      'arbiter-read': ({ request }: { request: number }) => {
        void this.arbiter
          .read(vmUuid)
          .then((reply) => this.driver.dispatch({ type: 'arbiter-reply', request, reply }));
      },
      'arbiter-cas': ({ request, expectRevision, proposal }: CasEffect) => {
        void this.arbiter
          .cas(vmUuid, expectRevision, proposal)
          .then((reply) => this.driver.dispatch({ type: 'arbiter-reply', request, reply }));
      },
      'save-note': ({ request, note }: NoteEffect) => void this.saveNote(request, note),
      'probe-image': (effect: ProbeEffect) => void this.probe(effect),
    };
  }

  /** A peer whose address is not known cannot be asked: then only a person can say. */
  private async probe({ incarnation, host }: ProbeEffect): Promise<void> {
    const { peer, vmUuid } = this.init;
    const { name, local, detectMs } = this.init.host;
    const address = (host === name ? local : peer) ?? '';
    const probe = { vmUuid, incarnation, host };
    const alive = await probePeer(this.security, address, probe, detectMs);
    this.driver.dispatch({ type: 'image-alive', alive });
  }

  /**
   * A note that cannot be saved stops what waits for it, not the VM; it is tried until it works.
   */
  private async saveNote(request: number, note: HostNote): Promise<void> {
    for (;;) {
      try {
        await this.notes.save(note);
        break;
      } catch (error) {
        this.tell({ type: 'warning', code: 'NOTE_NOT_SAVED', text: describe(error).message });
        await new Promise((resolve) => setTimeout(resolve, NOTE_RETRY_MS));
      }
    }
    this.driver.dispatch({ type: 'note-saved', request });
  }

  /** Serial input for the VM, here or at its owner. */
  async serialIn(offset: number, bytes: Uint8Array): Promise<InputState> {
    if (this.primary) return this.primary.serialIn(offset, bytes);
    const [link] = this.links.values();
    if (!link) throw new VmProcessError('NOT_OWNER', 'the owner of the VM is not in reach');
    return link.relayInput(offset, bytes, this.init.host.detectMs);
  }

  /** How long each connection to the peer has been silent. */
  silencesMs(): number[] {
    return [...this.links.values()].map((link) => Math.round(monotonicMs() - link.lastHeardMs));
  }

  private peerIs(address: string | null): void {
    if (this.peerAddress === address) return;
    this.peerAddress = address;
    this.statusChanged(this.driver.status());
  }

  private statusChanged(status: CoreStatus): void {
    const { peerAddress } = this;
    this.tell({ type: 'state', status, vm: this.source.known, peerAddress });
  }

  private exit(state: string): void {
    this.driver.end();
    this.tell({ type: 'exit-state', state, reason: '' });
    const late = new Promise((resolve) => setTimeout(resolve, ASIDE_MS_MAX).unref());
    void Promise.race([this.aside, late]).then(() => {
      void this.primary?.kill();
      // Links close a moment later, so that the last messages leave.
      setTimeout(() => process.exit(0), EXIT_GRACE_MS);
    });
  }

  private tell(message: VmToDaemon): void {
    if (process.connected) process.send?.(message);
  }
}
