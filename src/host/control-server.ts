/**
 * What a daemon can be asked over its control socket. Errors are `{error: {code, message}}`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ToldStatus } from './child-status.js';
import { ControlSocket, text, type Params } from './control-socket.js';
import type { Daemon } from './daemon.js';
import { refuseUnsafeDisks } from './local-disks.js';
import { HostError } from './host-error.js';
import { answerTrust } from './trust-api.js';
import type { VmChild } from './vm-child.js';
import { ConfigError } from './yaml-file.js';
import { engineFaults, parseEpoch, parseVmConfig, type VmConfig } from './vm-config.js';
import { monotonicMs } from './vm-driver.js';

const STARTED_MS_MAX = 5_000;

export class ControlServer extends ControlSocket {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    super();
    this.daemon = daemon;
  }

  protected async carryOut(method: string, params: Params): Promise<unknown> {
    switch (method) {
      case 'list':
        return Promise.all(this.daemon.list().map((vm) => this.told(vm)));
      case 'start':
        return this.start(params);
      case 'status':
        return this.told(this.daemon.find(text(params, 'vm')));
      case 'vm':
        return this.askVm(text(params, 'method'), params);
      case 'force':
        return this.force(text(params, 'vm'));
      default:
        return answerTrust(this.daemon.keeper, method, params);
    }
  }

  private askVm(method: string, params: Params): Promise<unknown> {
    const protects = params['command'] === 'protect';
    const peer = protects ? { peer: this.daemon.peerAt(text(params, 'peer')) } : {};
    return this.daemon.find(text(params, 'vm')).request(method, { ...params, ...peer });
  }

  /** With what concerns all VMs of this host. */
  private async told(vm: VmChild): Promise<ToldStatus> {
    const status = await this.daemon.statusOf(vm);
    return { ...status, warnings: [...status.warnings, ...this.daemon.keeper.alarms()] };
  }

  /** The standby here takes over on a person's word; without one the VM is booted anew. */
  private async force(vm: string): Promise<unknown> {
    const living = this.daemon.living(vm);
    if (living) {
      await living.request('command', { command: 'force' });
      return { name: vm, memoryLost: false };
    }
    await startedOrFailed(await this.daemon.forceBoot(vm));
    return { name: vm, memoryLost: true };
  }

  private async start(params: Params): Promise<unknown> {
    let config: VmConfig = parseVmConfig(text(params, 'yaml'), text(params, 'path'));
    const { peer, epoch, engine, auditEvery } = params;
    if (typeof peer === 'string') config = mirrored(config, params['unsafeDisks'] === true);
    if (engine === 'v86' || engine === 'qemu') config = withEngine(config, engine);
    if (typeof epoch === 'string') config = { ...config, epochMs: parseEpoch(epoch) };
    const child = await this.daemon.start({
      config,
      peer: typeof peer === 'string' ? peer : null,
      auditEvery: typeof auditEvery === 'number' ? auditEvery : 0,
    });
    await startedOrFailed(child);
    return { name: config.name };
  }
}

function mirrored(config: VmConfig, unsafeDisks: boolean): VmConfig {
  refuseUnsafeDisks(config, unsafeDisks, 'Nothing was started');
  return { ...config, unsafeDisks };
}

function withEngine(config: VmConfig, engine: 'v86' | 'qemu'): VmConfig {
  const faults = engineFaults(config, engine);
  if (faults.length > 0) throw new ConfigError(faults);
  return { ...config, engine };
}

/** Settles once there is something to tell: it runs, it failed, or it takes its time. */
async function startedOrFailed(child: VmChild): Promise<void> {
  const endAt = monotonicMs() + STARTED_MS_MAX;
  while (!child.ended && !child.counts && monotonicMs() < endAt) await sleep(10);
  const { ended } = child;
  if (!ended || ended.state === 'stopped') return;
  throw new HostError(child.endCode, `${child.init.vmName} was not started: ${ended.reason}`);
}
