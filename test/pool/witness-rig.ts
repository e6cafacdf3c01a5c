/** A real `mirror witness` process for tests, on a folder and a port of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WitnessClient } from '../../src/pool/witness-client.js';
import type { Arbiter } from '../../src/pool/arbiter.js';
import { until } from '../within.js';
import type { ArbiterRig } from './arbiter-acceptance.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export class WitnessRig implements ArbiterRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-witness-'));
  process: ChildProcess | null = null;
  stderr = '';
  port = 0;
  private readonly proxies: { server: Server; sockets: Set<Socket> }[] = [];

  static async make(): Promise<WitnessRig> {
    const rig = new WitnessRig();
    await rig.start();
    return rig;
  }

  async start(): Promise<void> {
    this.stderr = '';
    const listen = ['--listen', `127.0.0.1:${this.port}`, '--state-dir', this.dir];
    const child = spawn(process.execPath, [main, 'witness', ...listen], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.process = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.port = await until(10_000, 'the witness listens', () => {
      if (child.exitCode !== null) throw new Error(`the witness ended: ${this.stderr}`);
      return Number(/witness listens on 127\.0\.0\.1:(\d+)/.exec(this.stderr)?.[1] ?? 0);
    });
  }

  async kill(): Promise<void> {
    const child = this.process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  connect(deadlineMs: number): WitnessClient {
    return new WitnessClient(`witness:127.0.0.1:${this.port}`, { deadlineMs });
  }

  connectDeaf(deadlineMs: number): Promise<Arbiter> {
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connect(this.port, '127.0.0.1');
      near.pipe(far);
      far.resume();
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.on('error', () => socket.destroy());
        socket.on('close', () => sockets.delete(socket));
      }
      near.on('close', () => far.destroySoon());
    });
    this.proxies.push({ server, sockets });
    return new Promise((resolve) => {
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        const port = typeof address === 'object' && address ? address.port : 0;
        resolve(new WitnessClient(`127.0.0.1:${port}`, { deadlineMs }));
      });
    });
  }

  async close(): Promise<void> {
    for (const { server, sockets } of this.proxies) {
      for (const socket of sockets) socket.destroy();
      server.close();
    }
    this.process?.kill('SIGCONT');
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
