/**
 * The control API: HTTP over a unix socket that only its owner may open. One resource, `POST
 * /v1/METHOD`, with a JSON object in and one out; errors are `{error: {code, message}}`.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Daemon } from './daemon.js';
import { httpStatusOf } from './error-map.js';
import { HostError } from './host-error.js';
import type { VmChild } from './vm-child.js';
import { ConfigError } from './yaml-file.js';
import { engineFaults, parseEpoch, parseVmConfig, type VmConfig } from './vm-config.js';
import { monotonicMs } from './vm-driver.js';
import { describe } from './vm-process-error.js';

const BODY_BYTES_MAX = 1 << 20;
const STARTED_MS_MAX = 5_000;

type Params = Record<string, unknown>;

export class ControlServer {
  private readonly daemon: Daemon;
  private readonly server: Server;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
    this.server = createServer((request, response) => void this.serve(request, response));
  }

  /** The state directory must be claimed before: a socket file there is a dead daemon's then. */
  async listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let status = 200;
    let body: unknown;
    try {
      if (request.method !== 'POST') throw new HostError('BAD_REQUEST', 'POST, nothing else');
      const params = await readBody(request);
      body = await this.carryOut((request.url ?? '').replace('/v1/', ''), params);
    } catch (error) {
      const told = describe(error);
      status = httpStatusOf(told.code);
      body = { error: told };
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? {}));
  }

  private carryOut(method: string, params: Params): Promise<unknown> {
    switch (method) {
      case 'list':
        return Promise.all(this.daemon.list().map((vm) => this.daemon.statusOf(vm)));
      case 'start':
        return this.start(params);
      case 'status':
        return this.daemon.statusOf(this.daemon.find(text(params, 'vm')));
      case 'vm':
        if (params['command'] === 'protect') this.daemon.checkPeer(text(params, 'peer'));
        return this.daemon.find(text(params, 'vm')).request(text(params, 'method'), params);
      case 'force':
        return this.force(text(params, 'vm'));
      default:
        throw new HostError('BAD_REQUEST', `unknown method ${method}`);
    }
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

function text(params: Params, key: string): string {
  const value = params[key];
  if (typeof value !== 'string') throw new HostError('BAD_REQUEST', `${key} is missing`);
  return value;
}

async function readBody(request: IncomingMessage): Promise<Params> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new HostError('BAD_REQUEST', 'request too large');
    chunks.push(chunk);
  }
  if (bytes === 0) return {};
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) as Params;
  } catch (error) {
    throw new HostError('BAD_REQUEST', 'the request is not JSON', { cause: error });
  }
}

export const controlPath = (stateDir: string): string => join(stateDir, 'control.sock');
