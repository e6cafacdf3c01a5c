/** The daemon's handle on one VM process. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ArbiterReply, CoreStatus } from '../core/events.js';
import { MirrorError } from '../core/errors.js';
import type { VmConfig } from './vm-config.js';
import type { ProvenPeer } from './vm-dial.js';
import type { DaemonToVm, InitMessage, VmToDaemon } from './vm-protocol.js';

const ENTRY = fileURLToPath(new URL('./vm-process.js', import.meta.url));
const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));
const REQUEST_MS_MAX = 20_000;
const PENDING_MAX = 256;

const ENDINGS: Record<string, string> = {
  stopped: 'it was stopped',
  superseded: 'another host has taken it over, and owns it now',
  released: 'its owner no longer uses this host as its standby',
};

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

export class VmRequestError extends MirrorError {}

/** glibc keeps what is freed, for each thread apart: tens of MB after a dirty storm. */
const FRUGAL = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_TRIM_THRESHOLD_: String(256 << 10),
  MALLOC_MMAP_THRESHOLD_: String(256 << 10),
};

export class VmChild {
  readonly init: InitMessage;
  status: CoreStatus | null = null;
  config: VmConfig | null;
  incarnation = '';
  /** Set when the process is gone: what it said last, or that it died. */
  ended: { state: string; reason: string } | null = null;
  onChange: (() => void) | null = null;
  onEnd: (() => void) | null = null;
  /** It asks for its record, where the daemon keeps it. */
  onRecord: ((asked: Extract<VmToDaemon, { type: 'record' }>) => Promise<ArbiterReply>) | null =
    null;
  readonly exited: Promise<void>;
  /** Address of the other host, if one is wanted. */
  peerAddress: string | null;
  private readonly process: ChildProcess;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private lastWords: Extract<VmToDaemon, { type: 'exit-state' }> | null = null;
  private lastWarning: { code: string; text: string } | null = null;

  constructor(init: InitMessage, entry = ENTRY) {
    this.init = init;
    this.config = init.vm;
    this.peerAddress = init.peer;
    // Without a parent a VM process must not live on, not even a stopped one.
    const guard = SETPRIV ? [SETPRIV, '--pdeathsig', 'KILL'] : [];
    const [command, ...args] = [...guard, process.execPath, '--enable-source-maps', entry];
    this.process = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      env: { ...FRUGAL, ...process.env },
    });
    this.process.on('message', (message: VmToDaemon) => this.hear(message));
    this.exited = new Promise((resolve) => {
      const over = (): void => {
        this.gone();
        resolve();
      };
      this.process.on('exit', over);
      this.process.on('error', (error) => {
        this.warn('VM_PROCESS', error.message);
        // Without its channel nobody could tell it to end.
        if (this.process.pid === undefined) over();
        else this.kill();
      });
    });
    this.tell(init);
  }

  get pid(): number {
    return this.ended ? 0 : (this.process.pid ?? 0);
  }

  /** Owns the VM as far as it knows, or holds an image of it. */
  get counts(): boolean {
    return !this.ended && (this.status?.generation ?? 0) > 0;
  }

  /** The code of what made it end, for a program. */
  get endCode(): string {
    return this.lastWords?.code ?? this.lastWarning?.code ?? 'VM_ENDED';
  }

  /** The socket belongs to the VM process afterwards. */
  handOver(socket: Socket, rest: Uint8Array, peer: ProvenPeer): void {
    const text = Buffer.from(rest).toString('base64');
    const message: DaemonToVm = { type: 'session', rest: text, peer };
    this.process.send(message, socket, () => socket.destroy());
  }

  request(
    method: string,
    params: Record<string, unknown>,
    deadlineMs = REQUEST_MS_MAX,
  ): Promise<unknown> {
    if (this.ended) return Promise.reject(this.endError());
    if (this.pending.size >= PENDING_MAX)
      return Promise.reject(new VmRequestError('BUSY', 'the VM process has too much to answer'));
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new VmRequestError('TIMEOUT', `the VM process did not answer ${method} in time`));
      }, deadlineMs);
      this.pending.set(id, { resolve, reject, timer });
      this.tell({ type: 'request', id, method, params });
    });
  }

  /** Its record has changed behind its back. */
  look(): void {
    this.tell({ type: 'look' });
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
      const { role, state, generation, epoch, peer } = message.status;
      this.log({ event: 'state', role, state, generation, epoch, peer });
      this.status = message.status;
      this.config = message.vm ?? this.config;
      this.peerAddress = message.peerAddress;
      this.onChange?.();
    } else if (message.type === 'record') {
      const { id } = message;
      void this.onRecord?.(message).then((reply) => this.tell({ type: 'record-reply', id, reply }));
    } else if (message.type === 'exit-state') this.lastWords = message;
    else if (message.type === 'warning') {
      this.lastWarning = message;
      this.warn(message.code, message.text);
    } else this.settle(message);
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
    const { state, reason } = this.lastWords ?? { state: 'failed', reason: 'its process died' };
    const refused = state === 'failed' || this.lastWarning?.code === 'NOT_BOOTED';
    const told = refused ? this.lastWarning?.text : undefined;
    this.ended = { state, reason: reason || told || (ENDINGS[state] ?? '') };
    this.log({ event: 'ended', ...this.ended });
    for (const pending of this.pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(this.endError());
    }
    this.pending.clear();
    this.onEnd?.();
  }

  private endError(): VmRequestError {
    const { state, reason } = this.ended ?? { state: 'ending', reason: '' };
    const text = `the VM ${this.init.vmName} has ended on this host (${state}): ${reason}`;
    return new VmRequestError('VM_ENDED', text);
  }

  private warn(code: string, text: string): void {
    this.log({ event: 'warning', code, text });
  }

  /** One line of JSON for each event, with the process that it came from. */
  private log(event: { event: string } & Record<string, string | number>): void {
    const { vmName: vm } = this.init;
    const line = { time: new Date().toISOString(), vm, process: this.incarnation, ...event };
    process.stderr.write(`${JSON.stringify(line)}\n`);
  }
}
