/** The daemon's handle on one VM process. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { CoreStatus } from '../core/events.js';
import { MirrorError } from '../core/errors.js';
import type { VmConfig } from './vm-config.js';
import type { DaemonToVm, InitMessage, VmToDaemon } from './vm-protocol.js';

const ENTRY = fileURLToPath(new URL('./vm-process.js', import.meta.url));
const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));
const REQUEST_MS_MAX = 20_000;

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

export class VmRequestError extends MirrorError {}

export class VmChild {
  readonly init: InitMessage;
  status: CoreStatus | null = null;
  config: VmConfig | null;
  incarnation = '';
  /** Set when the process is gone: what it said last, or that it died. */
  ended: { state: string; reason: string } | null = null;
  onChange: (() => void) | null = null;
  onEnd: (() => void) | null = null;
  readonly ready: Promise<void>;
  private readonly process: ChildProcess;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private lastWords: { state: string; reason: string } | null = null;

  constructor(init: InitMessage) {
    this.init = init;
    this.config = init.vm;
    // Without a parent a VM process must not live on, not even a stopped one.
    const guard = SETPRIV ? [SETPRIV, '--pdeathsig', 'KILL'] : [];
    const [command, ...args] = [...guard, process.execPath, '--enable-source-maps', ENTRY];
    this.process = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.ready = new Promise((resolve) => {
      this.process.on('message', (message: VmToDaemon) => {
        if (message.type === 'ready') resolve();
        this.hear(message);
      });
    });
    this.process.on('exit', () => this.gone());
    this.process.on('error', () => this.gone());
    this.tell(init);
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** The socket belongs to the VM process afterwards. */
  handOver(socket: Socket, rest: Uint8Array): void {
    const message: DaemonToVm = { type: 'session', rest: Buffer.from(rest).toString('base64') };
    this.process.send(message, socket, () => socket.destroy());
  }

  request(method: string, params: Record<string, unknown>): Promise<unknown> {
    if (this.ended) return Promise.reject(new VmRequestError('VM_ENDED', this.ended.reason));
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new VmRequestError('TIMEOUT', `the VM process did not answer ${method} in time`));
      }, REQUEST_MS_MAX);
      this.pending.set(id, { resolve, reject, timer });
      this.tell({ type: 'request', id, method, params });
    });
  }

  kill(): void {
    this.process.kill('SIGKILL');
  }

  private tell(message: DaemonToVm): void {
    if (this.process.connected) this.process.send(message);
  }

  private hear(message: VmToDaemon): void {
    if (message.type === 'ready') this.incarnation = message.incarnation;
    else if (message.type === 'state') {
      this.status = message.status;
      this.config = message.vm ?? this.config;
      this.onChange?.();
    } else if (message.type === 'exit-state') this.lastWords = message;
    else if (message.type === 'warning') this.log(message.code, message.text);
    else this.settle(message);
  }

  private settle(message: Extract<VmToDaemon, { type: 'reply' }>): void {
    const pending = this.pending.get(message.id);
    if (!pending) return;
    this.pending.delete(message.id);
    clearTimeout(pending.timer);
    if (message.error)
      pending.reject(new VmRequestError(message.error.code, message.error.message));
    else pending.resolve(message.result);
  }

  private gone(): void {
    if (this.ended) return;
    this.ended = this.lastWords ?? { state: 'failed', reason: 'the VM process died' };
    for (const pending of this.pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(new VmRequestError('VM_ENDED', this.ended.reason));
    }
    this.pending.clear();
    this.onEnd?.();
  }

  private log(code: string, text: string): void {
    const event = { event: 'warning', vm: this.init.vmName, code, text };
    process.stderr.write(`${JSON.stringify(event)}\n`);
  }
}
