/**
 * The daemon of one host: owns the port and the state directory, starts VM processes and hands them
 * their connections. It is not on any VM's data path.
 */
import { randomUUID } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { DirLock } from '../pool/dir-lock.js';
import { openArbiter, type Arbiter } from '../pool/arbiter.js';
import { parseAddress } from '../wire/address.js';
import { readPreamble } from '../wire/preamble.js';
import { requireSecure, type HostConfig } from './host-config.js';
import { HostError } from './host-error.js';
import { OrphanWatch } from './orphan-watch.js';
import { whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import { keptAside } from './aside.js';
import { statusOf, type ToldStatus } from './child-status.js';
import { answerPair } from './pair-link.js';
import { PairRecords } from './pair-records.js';
import { answerProbe } from './peer-control.js';
import { claimStateDir } from './state-dir.js';
import { VmChild } from './vm-child.js';
import { NAME, type VmConfig } from './vm-config.js';
import { VmFamily } from './vm-family.js';
import type { HostIdentity, InitMessage } from './vm-protocol.js';
import { VmRegistry, type KnownVm } from './vm-registry.js';
import { ConfigError } from './yaml-file.js';

const ORPHAN_LOOK_MS_MIN = 1_000;
const PREAMBLE_MS_MAX = 5_000;
const CONNECTIONS_MAX = 1_024;
/** Standby processes whose owner is not proven yet: all together, and of one VM. */
const UNPROVEN_MAX = 16;
const UNPROVEN_OF_ONE_MAX = 4;
const UUID = /^[0-9a-f-]{36}$/;

export interface StartRequest {
  readonly config: VmConfig;
  readonly peer: string | null;
  readonly auditEvery: number;
}

export interface DaemonOptions {
  /** The script of a VM process, for tests. */
  readonly vmEntry?: string;
  readonly onFault?: (text: string) => void;
}

export class Daemon {
  private readonly config: HostConfig;
  private readonly options: DaemonOptions;
  private readonly registry: VmRegistry;
  private readonly server: Server;
  private readonly families = new Map<string, VmFamily>();
  /** Names whose start is under way. */
  private readonly starting = new Set<string>();
  private lock: DirLock | null = null;
  private address: string;
  private port = 0;
  private closing = false;
  private orphans: OrphanWatch | null = null;
  private readonly arbiter: Arbiter;
  /** Where there is no arbiter: the records, as this host has them. */
  private readonly pair: PairRecords | null;

  constructor(config: HostConfig, options: DaemonOptions = {}) {
    this.config = config;
    this.options = options;
    this.address = config.advertise ?? config.listen;
    this.registry = new VmRegistry(config.stateDir);
    this.pair = config.arbiter === 'none' ? this.pairRecords() : null;
    this.arbiter = this.pair
      ? this.ownArbiter(this.pair)
      : openArbiter(config.arbiter, { deadlineMs: config.detectMs, stateDir: config.stateDir });
    this.server = createServer({ pauseOnConnect: false }, (socket) => void this.accept(socket));
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  get host(): HostIdentity {
    const { name, stateDir, arbiter, detectMs, insecure } = this.config;
    const local = this.localAddress();
    return { name, address: this.address, local, stateDir, arbiter, detectMs, insecure };
  }

  private pairRecords(): PairRecords {
    const { name: host, stateDir, detectMs } = this.config;
    const say = (text: string): void => this.options.onFault?.(text);
    const processesOf = (vmUuid: string): VmChild[] =>
      this.allLiving().filter(({ init }) => init.vmUuid === vmUuid);
    return new PairRecords({
      ...{ host, stateDir, onFault: say, askMs: detectMs / 2 },
      ownerOf: ({ vmUuid, ownerIncarnation }) => {
        const living = processesOf(vmUuid);
        const owner = living.find(({ incarnation }) => incarnation === ownerIncarnation);
        if (owner) return owner.status?.yields === true ? 'yields' : 'serves';
        // One that has not said its name yet may be the one.
        return living.some(({ incarnation }) => incarnation === '') ? 'unknown' : 'gone';
      },
      onYield: ({ vm, vmUuid, owner }, aside) => {
        say(`${vm}: host ${owner} was forced to take over: this side stops, see ${aside}`);
        for (const child of processesOf(vmUuid)) child.look();
      },
    });
  }

  /** The daemon's own questions. */
  private ownArbiter(pair: PairRecords): Arbiter {
    const caller = (vmUuid: string) => ({ peer: this.peerOf(vmUuid), forced: false });
    return {
      read: (vmUuid) => pair.read(vmUuid, caller(vmUuid)),
      cas: (vmUuid, revision, wish) => pair.cas(vmUuid, revision, wish, caller(vmUuid)),
      close: () => {},
    };
  }

  private peerOf(vmUuid: string): string | null {
    return this.registry.load(() => {}).find((vm) => vm.vmUuid === vmUuid)?.peer ?? null;
  }

  /** Claims the state directory: before this nothing in it is touched. */
  claim(): void {
    this.lock ??= claimStateDir(this.config.stateDir);
  }

  /** Resolves to where it listens, once what the last daemon left is being recovered. */
  async listen(): Promise<string> {
    this.claim();
    const { host, port } = parseAddress(this.config.listen);
    await new Promise<void>((resolve, reject) => {
      const fail = (cause: Error): void =>
        reject(new HostError('LISTEN_FAILED', `cannot listen: ${cause.message}`, { cause }));
      this.server.once('error', fail);
      this.server.listen(port, host, () => {
        this.server.off('error', fail);
        resolve();
      });
    });
    const bound = this.server.address() as AddressInfo;
    this.port = bound.port;
    if (port === 0 && this.config.advertise === null)
      this.address = this.config.listen.replace(/0$/, String(bound.port));
    const known = this.registry.load((error) => this.options.onFault?.(error.message));
    for (const vm of known) if (vm.owner) this.recover(vm);
    this.orphans = this.watchOrphans();
    return this.address;
  }

  /** Ends the VM processes too: a protected VM goes on at its standby. */
  async close(): Promise<void> {
    this.closing = true;
    this.orphans?.stop();
    this.arbiter.close();
    this.server.close();
    const living = this.allLiving();
    for (const child of living) child.kill();
    await Promise.all(living.map((child) => child.exited));
    await this.registry.settled();
    this.lock?.release();
    this.lock = null;
  }

  list(): VmChild[] {
    return [...this.families.values()]
      .map((family) => family.current())
      .filter((child) => child !== null);
  }

  /** With what a person should see to on this host. */
  async statusOf(child: VmChild): Promise<ToldStatus> {
    const status = await statusOf(child);
    const kept = keptAside(this.config.stateDir, child.init.vmName).map((dir) => ({
      code: 'KEPT_ASIDE',
      text: `${dir} holds what this VM was before another host was forced: remove it once unneeded`,
    }));
    return { ...status, warnings: [...status.warnings, ...kept] };
  }

  find(name: string): VmChild {
    const child = this.families.get(name)?.current();
    if (child) return child;
    const known = this.registry.find(name);
    const why = known
      ? `no process here serves ${name} now; if another host owns it, it comes back as its standby`
      : `there is no VM ${name} on host ${this.config.name}: see mirror list`;
    throw new HostError('NO_SUCH_VM', why);
  }

  async start(request: StartRequest): Promise<VmChild> {
    const { config, peer, auditEvery } = request;
    const { name } = config;
    if (peer !== null) this.checkPeer(peer);
    const existing = this.families.get(name)?.current();
    if ((existing && !existing.ended) || this.starting.has(name))
      throw new HostError('ALREADY_RUNNING', `${name} is on this host already: see mirror status`);
    this.starting.add(name);
    try {
      await bootFilesThere(config);
      const known = this.registry.find(name);
      const vmUuid = known?.vmUuid ?? randomUUID();
      if (!known) this.pair?.isNew(vmUuid);
      // Known before it is started: a daemon that dies now still finds its VM.
      await this.registry.save({ name, vmUuid, config, peer, owner: true });
      const init = { vm: config, vmUuid, peer, start: 'create', auditEvery } as const;
      const child = this.spawn({ role: 'primary', vmName: name, ...init });
      void child.exited.then(() => this.startFailed(child, known));
      return child;
    } finally {
      this.starting.delete(name);
    }
  }

  /**
   * A person says that the owner is gone for good: this host boots the VM anew, as loss of memory.
   * Refused if an image of it is known to be alive.
   */
  async forceBoot(name: string): Promise<VmChild> {
    const known = this.registry.find(name);
    if (!known) throw new HostError('NO_SUCH_VM', `this host knows no VM ${name}`);
    await bootFilesThere(known.config);
    const { vmUuid, config: vm, peer } = known;
    const reply = this.pair
      ? await this.pair.read(vmUuid, { peer, forced: true })
      : await this.arbiter.read(vmUuid);
    if (reply.outcome !== 'ok' || !reply.record)
      throw new HostError('REFUSED', 'the arbiter does not tell who owns it: nothing was done');
    const forcedOver = reply.record.generation;
    const init = { vmUuid, vm, peer, start: 'cold-boot', forcedOver, auditEvery: 0 } as const;
    return this.spawn({ role: 'primary', vmName: name, ...init });
  }

  /** What serves the VM here, if anything does. */
  living(name: string): VmChild | null {
    const child = this.families.get(name)?.current();
    return child && !child.ended ? child : null;
  }

  checkPeer(peer: string): void {
    if (parseAddress(peer).port === 0) throw new HostError('BAD_ADDRESS', `${peer} has no port`);
    requireSecure(peer, this.config.insecure);
    if (peer === this.address)
      throw new HostError('REFUSED', `${peer} is this host: a VM is mirrored to another one`);
  }

  /** Where the processes of this machine reach its daemon. */
  private localAddress(): string {
    const { host } = parseAddress(this.config.listen);
    const reachable = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
    return reachable.includes(':') ? `[${reachable}]:${this.port}` : `${reachable}:${this.port}`;
  }

  private watchOrphans(): OrphanWatch {
    return new OrphanWatch({
      host: this.config.name,
      everyMs: Math.max(ORPHAN_LOOK_MS_MIN, 2 * this.config.detectMs),
      known: () => this.registry.load(() => {}).filter(({ name }) => !this.starting.has(name)),
      living: (vmUuid) => this.allLiving().filter((child) => child.init.vmUuid === vmUuid),
      read: (vmUuid) => this.arbiter.read(vmUuid),
      adopt: (vm) => {
        this.options.onFault?.(`${vm.name} is owned by this host and no process has it: booting`);
        if (!this.closing) this.recover(vm);
      },
    });
  }

  private allLiving(): VmChild[] {
    return [...this.families.values()].flatMap((family) => family.living());
  }

  /** This host owned the VM when its daemon ended: the record decides what becomes of it. */
  private recover(known: KnownVm): void {
    const { name: vmName, vmUuid, config: vm, peer } = known;
    const init = { vmName, vmUuid, vm, peer, start: 'cold-boot', auditEvery: 0 } as const;
    this.spawn({ role: 'primary', ...init });
  }

  private spawn(init: Omit<InitMessage, 'type' | 'host'>): VmChild {
    const { vmName: name } = init;
    const child = new VmChild({ type: 'init', host: this.host, ...init }, this.options.vmEntry);
    const family = this.families.get(name) ?? new VmFamily();
    this.families.set(name, family);
    family.add(child);
    child.onChange = () => this.remember(child, family);
    child.onRecord = ({ peer, forced, change }) => {
      if (!this.pair) return Promise.resolve({ outcome: 'unknown' });
      const caller = { peer: peer ?? this.peerOf(init.vmUuid), forced };
      if (!change) return this.pair.read(init.vmUuid, caller);
      return this.pair.cas(init.vmUuid, change.expectRevision, change.proposal, caller);
    };
    child.onEnd = () => {
      this.rememberEnd(child, family);
      family.prune();
    };
    return child;
  }

  /** Owner or not: what a daemon that starts again has to know. */
  private remember(child: VmChild, family: VmFamily): void {
    const { status } = child;
    if (!status || status.generation === 0 || family.current() !== child) return;
    this.save(child, status.role === 'primary');
  }

  private rememberEnd(child: VmChild, family: VmFamily): void {
    // A process that died says nothing of who owns the VM.
    const state = child.ended?.state;
    if (this.closing || family.living().length > 0) return;
    if (state === 'stopped') this.noted(this.registry.forget(child.init.vmName));
    else if (state === 'superseded' || state === 'released') this.save(child, false);
  }

  private save(child: VmChild, owner: boolean): void {
    const { config, init, peerAddress: peer } = child;
    const { vmName: name, vmUuid } = init;
    if (config) this.noted(this.registry.save({ name, vmUuid, config, peer, owner }));
  }

  /** A start that never came to own the VM leaves things as they were. */
  private startFailed(child: VmChild, before: KnownVm | null): void {
    if (child.ended?.state !== 'failed' || (child.status?.generation ?? 0) > 0) return;
    const { vmName } = child.init;
    this.noted(before ? this.registry.save(before) : this.registry.forget(vmName));
  }

  private noted(work: Promise<void>): void {
    work.catch((error: unknown) => this.options.onFault?.(`not written down: ${String(error)}`));
  }

  private async accept(socket: Socket): Promise<void> {
    try {
      const preamble = await readPreamble(socket, PREAMBLE_MS_MAX);
      const { kind, role, vmUuid, vmName, rest } = preamble;
      if (kind === 'control' && role === 'owner') {
        if (!this.pair) throw new HostError('REFUSED', 'this host has an arbiter');
        const { pair } = this;
        await answerPair(socket, PREAMBLE_MS_MAX, (request) => pair.serve(vmUuid, request));
      } else if (kind === 'control') {
        const engines = whatQemuNeeds() === '' ? ['v86', 'qemu'] : ['v86'];
        const alive = this.isAlive(vmUuid, vmName);
        answerProbe(socket, { alive, host: this.config.name, engines });
      }
      else this.standbyFor(vmName, vmUuid).handOver(socket, rest);
    } catch (error) {
      const { remoteAddress, remotePort } = socket;
      const from = `${remoteAddress}:${remotePort}`;
      if (error instanceof HostError)
        this.options.onFault?.(`connection from ${from} refused: ${error.message}`);
      socket.destroy();
    }
  }

  private isAlive(vmUuid: string, incarnation: string): boolean | 'unknown' {
    const living = this.allLiving().filter((child) => child.init.vmUuid === vmUuid);
    const meant = (child: VmChild): boolean =>
      incarnation === '' ? child.counts : child.incarnation === incarnation;
    if (living.some(meant)) return true;
    // One that has not said its name yet may be the one.
    return living.some((child) => child.incarnation === '') ? 'unknown' : false;
  }

  /**
   * A process of its own for each owner's connection: an old replica never answers for a new one.
   * An old one whose owner is gone sees that by itself, and takes over or ends.
   */
  private standbyFor(vmName: string, vmUuid: string): VmChild {
    if (!NAME.test(vmName) || !UUID.test(vmUuid) || this.closing)
      throw new HostError('BAD_REQUEST', 'it does not say which VM it is for');
    const family = this.families.get(vmName);
    const living = family?.living() ?? [];
    const known = this.registry.find(vmName);
    const other = known?.owner === true && known.vmUuid !== vmUuid;
    if (other || living.some((child) => child.init.vmUuid !== vmUuid))
      throw new HostError('NAME_TAKEN', `another VM named ${vmName} is on this host`);
    const unproven = this.allLiving().filter(
      (child) => child.init.role === 'secondary' && !child.counts,
    );
    const ofThis = unproven.filter((child) => child.init.vmName === vmName);
    if (unproven.length >= UNPROVEN_MAX || ofThis.length >= UNPROVEN_OF_ONE_MAX)
      throw new HostError('BUSY', 'too many standbys are being made');
    const init = { vm: null, start: 'create', peer: null, auditEvery: 0 } as const;
    return this.spawn({ role: 'secondary', vmName, vmUuid, ...init });
  }
}

/** Found missing before anything is started, not after. */
async function bootFilesThere(config: VmConfig): Promise<void> {
  const { kernel, initrd } = config.boot;
  const faults: string[] = [];
  for (const [key, path] of Object.entries({ kernel, initrd })) {
    if (path === null || path === 'builtin') continue;
    await access(path, constants.R_OK).catch(() => {
      faults.push(`boot.${key}: cannot read ${path}: nothing was started`);
    });
  }
  if (faults.length > 0) throw new ConfigError(faults);
}
