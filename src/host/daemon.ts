/**
 * The daemon of one host: owns the port and the control socket, starts VM processes and hands them
 * their connections. It is not on any VM's data path.
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { readPreamble } from '../wire/preamble.js';
import { HostError } from './host-error.js';
import { answerProbe } from './peer-control.js';
import { VmChild } from './vm-child.js';
import type { VmConfig } from './vm-config.js';
import type { HostIdentity } from './vm-protocol.js';
import { VmRegistry, type KnownVm } from './vm-registry.js';

const PREAMBLE_MS_MAX = 5_000;

export interface StartRequest {
  readonly config: VmConfig;
  readonly peer: string | null;
  readonly auditEvery: number;
}

export class Daemon {
  readonly host: HostIdentity;
  private readonly registry: VmRegistry;
  private readonly server: Server;
  /** The newest process of each VM on this host, by name. */
  private readonly vms = new Map<string, VmChild>();
  /**
   * Older processes of a VM that have not ended yet (a stopped one that will find itself
   * superseded).
   */
  private readonly older = new Set<VmChild>();

  constructor(host: HostIdentity) {
    this.host = host;
    mkdirSync(host.stateDir, { recursive: true, mode: 0o700 });
    this.registry = new VmRegistry(host.stateDir);
    this.server = createServer({ pauseOnConnect: false }, (socket) => void this.accept(socket));
  }

  async listen(host: string, port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(port, host, resolve);
    });
    for (const known of this.registry.load()) if (known.owner) this.recover(known);
  }

  close(): void {
    this.server.close();
    for (const child of [...this.vms.values(), ...this.older]) child.kill();
  }

  list(): VmChild[] {
    return [...this.vms.values()];
  }

  find(name: string): VmChild {
    const child = this.vms.get(name);
    if (!child)
      throw new HostError('NO_SUCH_VM', `there is no VM ${name} on host ${this.host.name}`);
    return child;
  }

  async start(request: StartRequest): Promise<VmChild> {
    const { config, peer, auditEvery } = request;
    const existing = this.vms.get(config.name);
    if (existing && !existing.ended)
      throw new HostError('ALREADY_RUNNING', `${config.name} is on this host already`);
    const known = this.registry.load().find((vm) => vm.name === config.name);
    const vmUuid = known?.vmUuid ?? randomUUID();
    await this.registry.save({ name: config.name, vmUuid, config, peer, owner: true });
    return this.spawnPrimary(config, vmUuid, peer, 'create', auditEvery);
  }

  /** This host owned the VM when its daemon ended: the record decides what becomes of it. */
  private recover(known: KnownVm): void {
    this.spawnPrimary(known.config, known.vmUuid, known.peer, 'cold-boot', 0);
  }

  private spawnPrimary(
    config: VmConfig,
    vmUuid: string,
    peer: string | null,
    start: 'create' | 'cold-boot',
    auditEvery: number,
  ): VmChild {
    const child = new VmChild({
      ...{ type: 'init', role: 'primary', host: this.host, vmName: config.name, vmUuid },
      ...{ vm: config, start, peer, auditEvery },
    });
    return this.adopt(child);
  }

  private adopt(child: VmChild): VmChild {
    const name = child.init.vmName;
    const before = this.vms.get(name);
    if (before && !before.ended) this.older.add(before);
    this.vms.set(name, child);
    child.onChange = () => void this.remember(child);
    child.onEnd = () => {
      this.older.delete(child);
      if (child.ended?.state === 'stopped') void this.registry.forget(name);
      else if (child.ended?.state === 'superseded') void this.disown(child);
    };
    return child;
  }

  /** Owner or not: what a daemon that starts again has to know. */
  private async remember(child: VmChild): Promise<void> {
    const { status, config } = child;
    if (!status || !config || this.vms.get(child.init.vmName) !== child) return;
    const { vmName: name, vmUuid } = child.init;
    const peer = child.init.peer;
    const owner = status.role === 'primary' && status.state !== 'superseded';
    await this.registry.save({ name, vmUuid, config, peer, owner });
  }

  private async disown(child: VmChild): Promise<void> {
    const { config, init } = child;
    if (!config || this.vms.get(init.vmName) !== child) return;
    const { vmName: name, vmUuid, peer } = init;
    await this.registry.save({ name, vmUuid, config, peer, owner: false });
  }

  private async accept(socket: Socket): Promise<void> {
    try {
      const preamble = await readPreamble(socket, PREAMBLE_MS_MAX);
      const { kind, vmUuid, vmName, rest } = preamble;
      if (kind === 'control') {
        const all = [...this.vms.values(), ...this.older];
        const alive = all.some((vm) => vm.incarnation === vmName && !vm.ended);
        answerProbe(socket, alive);
        return;
      }
      const child = this.standbyFor(vmName, vmUuid);
      child.handOver(socket, rest);
    } catch {
      socket.destroy();
    }
  }

  /**
   * A process of its own for each owner's connection: an old replica never answers for a new one.
   */
  private standbyFor(vmName: string, vmUuid: string): VmChild {
    const current = this.vms.get(vmName);
    if (current && !current.ended && current.init.vmUuid !== vmUuid)
      throw new HostError('NAME_TAKEN', `another VM named ${vmName} is on this host`);
    return this.adopt(
      new VmChild({
        ...{ type: 'init', role: 'secondary', host: this.host, vmName, vmUuid },
        ...{ vm: null, start: 'create', peer: null, auditEvery: 0 },
      }),
    );
  }
}
