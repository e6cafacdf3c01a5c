/**
 * The daemon of one host: owns the port and the state directory, starts VM processes and hands them
 * their connections. It is not on any VM's data path.
 */
import { randomUUID } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import type { DirLock } from '../pool/dir-lock.js';
import { openArbiter, parseArbiter, type Arbiter } from '../pool/arbiter.js';
import { parseAddress } from '../wire/address.js';
import { sourceOf } from '../wire/doorway.js';
import { SecureDoor, type House } from '../wire/secure-door.js';
import { Security } from '../wire/security.js';
import { TrustKeeper } from '../wire/trust-keeper.js';
import { Admission } from './admission.js';
import type { HostConfig } from './host-config.js';
import { HostError } from './host-error.js';
import { houseOf } from './household.js';
import { faultsOfDisks } from './local-disks.js';
import { memoryNeed, memoryRoom, usedBytes, type MemoryRoom } from './memory-room.js';
import { OrphanWatch } from './orphan-watch.js';
import { builtinKernel } from '../guest/builtin.js';
import { QemuChooser } from '../machine/qemu/qemu-choice.js';
import { whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import { keptAside } from './aside.js';
import { statusOf, type ToldStatus } from './child-status.js';
import { PairDaemon } from './pair-daemon.js';
import { claimStateDir } from './state-dir.js';
import { VmChild } from './vm-child.js';
import { NAME, type VmConfig } from './vm-config.js';
import { VmFamily } from './vm-family.js';
import type { HostIdentity, InitMessage } from './vm-protocol.js';
import { VmRegistry, type KnownVm } from './vm-registry.js';
import { ConfigError } from './yaml-file.js';

const ORPHAN_LOOK_MS_MIN = 1_000;
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
  readonly keeper: TrustKeeper;
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
  /** Where there is no arbiter: its part of one. */
  private readonly pair: PairDaemon | null;
  private readonly security: Security;
  private readonly admission: Admission;
  private readonly door: SecureDoor;

  constructor(config: HostConfig, options: DaemonOptions = {}) {
    this.config = config;
    this.options = options;
    this.address = config.advertise ?? config.listen;
    this.registry = new VmRegistry(config.stateDir);
    const say = (text: string): void => this.options.onFault?.(text);
    this.security = new Security(config);
    const { security, registry } = this;
    const living = (): VmChild[] => this.allLiving();
    const { arbiter, detectMs: deadlineMs, stateDir } = config;
    this.pair =
      arbiter === 'none' ? new PairDaemon({ config, security, registry, say, living }) : null;
    const { pair } = this;
    this.arbiter =
      pair?.arbiter ?? openArbiter(arbiter, { deadlineMs, stateDir, security, onFault: say });
    this.admission = new Admission((vmUuid, peer) =>
      pair ? pair.readAt(vmUuid, peer) : this.arbiter.read(vmUuid),
    );
    const needs = this.witnessAddresses();
    const address = (): string => this.address;
    this.keeper = new TrustKeeper({ security, kind: 'host', address, needs, say });
    this.door = new SecureDoor({ security, keeper: this.keeper, house: this.house(), say });
    this.server = createServer((socket) => void this.door.accept(socket));
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  get host(): HostIdentity {
    const { name, stateDir, arbiter, detectMs, insecure, accelerator, diskFolders } = this.config;
    const place = { name, address: this.address, local: this.localAddress(), stateDir };
    return { ...place, arbiter, detectMs, insecure, accelerator, diskFolders };
  }

  /** Claims the state directory: before this nothing in it is touched. */
  claim(): void {
    this.lock ??= claimStateDir(this.config.stateDir);
    this.security.prepare();
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
    this.keeper.start();
    this.tryQemu();
    return this.address;
  }

  /** Ends the VM processes too: a protected VM goes on at its standby. */
  async close(): Promise<void> {
    this.closing = true;
    this.orphans?.stop();
    this.keeper.stop();
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
    const { config, auditEvery } = request;
    const { name } = config;
    this.checkArbiter();
    const peer = request.peer === null ? null : this.peerAt(request.peer);
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
    const reply = await (this.pair?.readForced(vmUuid, peer) ?? this.arbiter.read(vmUuid));
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

  /** The address of a peer that is given by name or address; throws if it cannot be one. */
  peerAt(text: string): string {
    const peer = this.security.trust.byName(text)?.addresses[0] ?? text;
    if (NAME.test(peer))
      throw new HostError('NO_SUCH_HOST', `no host ${peer} is paired with this one: mirror hosts`);
    if (parseAddress(peer).port === 0) throw new HostError('BAD_ADDRESS', `${peer} has no port`);
    if (peer === this.address)
      throw new HostError('REFUSED', `${peer} is this host: a VM is mirrored to another one`);
    const route = this.security.routeTo(peer);
    if (route !== 'plain' && route.kind !== 'host')
      throw new HostError('REFUSED', `${peer} is a witness: a VM is mirrored to a host`);
    return peer;
  }

  /** Before a VM starts that could never be recorded. */
  private checkArbiter(): void {
    for (const address of this.witnessAddresses()) this.security.routeTo(address);
  }

  private witnessAddresses(): string[] {
    const spec = parseArbiter(this.config.arbiter);
    return spec.kind === 'witness' ? [spec.address] : [];
  }

  /** Where the processes of this machine reach its daemon. */
  private localAddress(): string {
    const { host } = parseAddress(this.config.listen);
    const reachable = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
    return reachable.includes(':') ? `[${reachable}]:${this.port}` : `${reachable}:${this.port}`;
  }

  /** What VM processes want to know is found out before the first of them asks. */
  private tryQemu(): void {
    const { accelerator, stateDir } = this.config;
    if (whatQemuNeeds() !== '') return;
    new QemuChooser(builtinKernel, stateDir).choose(accelerator).catch((error: unknown) => {
      this.options.onFault?.(`QEMU cannot be used: ${String(error)}`);
    });
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

  /** For a VM, beside all others. */
  private roomFor(vmUuid: string): MemoryRoom | null {
    const others = this.allLiving().filter(({ init }) => init.vmUuid !== vmUuid);
    const commitments = others.map(({ config, pid, peerAddress }) => {
      const bytes = config ? memoryNeed(config, peerAddress !== null).bytes : 0;
      return { bytes, usedBytes: usedBytes(pid) };
    });
    return memoryRoom(this.config.memoryBytes, commitments);
  }

  private spawn(without: Omit<InitMessage, 'type' | 'host' | 'room'>): VmChild {
    const { vmName: name, vmUuid } = without;
    const init: InitMessage = {
      ...{ type: 'init', host: this.host, room: this.roomFor(vmUuid), ...without },
    };
    const child = new VmChild(init, this.options.vmEntry);
    const family = this.families.get(name) ?? new VmFamily();
    this.families.set(name, family);
    family.add(child);
    child.onChange = () => this.remember(child, family);
    const { pair } = this;
    if (pair) child.onRecord = (asked) => pair.recordFor(init.vmUuid, asked);
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

  private house(): House {
    return houseOf({
      host: this.config.name,
      admission: this.admission,
      pair: this.pair,
      refused: (socket, error) => this.door.refused(sourceOf(socket), error),
      isAlive: (vmUuid, incarnation) => this.isAlive(vmUuid, incarnation),
      roomForMore: () => this.roomFor(''),
      checkStandby: (vmName, vmUuid) => this.checkStandby(vmName, vmUuid),
      standbyFor: (vmName, vmUuid) => this.standbyFor(vmName, vmUuid),
    });
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
    this.checkStandby(vmName, vmUuid);
    const init = { vm: null, start: 'create', peer: null, auditEvery: 0 } as const;
    return this.spawn({ role: 'secondary', vmName, vmUuid, ...init });
  }

  private checkStandby(vmName: string, vmUuid: string): void {
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
  for (const fault of await faultsOfDisks(config.disks))
    faults.push(`${fault}: nothing was started`);
  if (faults.length > 0) throw new ConfigError(faults);
}
