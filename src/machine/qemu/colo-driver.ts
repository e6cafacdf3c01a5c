/**
 * KVM's own dirty log, through QEMU's COLO: QEMU takes us for its secondary. It asks for each
 * checkpoint and we answer when an epoch is due; then it stops the VM, sends the pages that were
 * written and its devices, and goes on when told that they are loaded.
 *
 * QEMU enters COLO with a migration of all memory. A VM that was captured while it stood still may
 * write nothing unseen, so that migration ends before it runs; else it runs meanwhile, and only its
 * next stop waits.
 */
import { writeSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import type { CaptureBuffer, PageRange } from '../machine.js';
import type { CaptureDriver, DriverCapture } from './capture-driver.js';
import { CaptureThread } from './capture-thread.js';
import { ColoMessage, coloMessages } from './colo-reader.js';
import { QemuError } from './qemu-error.js';
import type { QemuProcess } from './qemu-process.js';
import { saveDevices } from './saved-devices.js';
import { fdOf } from './ports.js';

const CHECKPOINT_DELAY_MS = 1;
const BYTES_PER_SECOND_MAX = 10 * 2 ** 30;
const DOWNTIME_MS_MAX = 2_000;
const CONNECT_MS_MAX = 5_000;
/** As the file of `xen-save-devices-state` begins: a magic number and a version. */
const DEVICES_HEADER = Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3]);

/**
 * `out`: not in COLO, stopped and continued by QMP. `entered`: QEMU waits for READY, the VM stands
 * still. `running`: QEMU waits for REPLY. `stopped`: it waits for RECEIVED and LOADED.
 */
type State = 'out' | 'entered' | 'running' | 'stopped';

export interface ColoOptions {
  readonly xbzrle: boolean;
}

export class ColoDriver implements CaptureDriver {
  readonly name = 'colo';
  readonly dirtyTracking = 'colo';
  private readonly qemu: QemuProcess;
  private readonly thread: Promise<CaptureThread>;
  private readonly options: ColoOptions;
  private state: State = 'out';
  private captured = false;
  private entering: Promise<void> | null = null;
  private checkpoint: Promise<Uint8Array> | null = null;
  private server: Server | null = null;
  private socket: Socket | null = null;

  constructor(qemu: QemuProcess, thread: Promise<CaptureThread>, options: ColoOptions) {
    this.qemu = qemu;
    this.thread = thread;
    this.options = options;
  }

  async restart(): Promise<void> {
    this.captured = false;
    await (await this.thread).restart();
  }

  async stop(): Promise<void> {
    if (this.state === 'out' && !this.entering) {
      await this.qemu.qmp.execute('stop');
      return;
    }
    await this.entering;
    if (this.state !== 'running') throw new QemuError('COLO', `stopped while ${this.state}`);
    const thread = await this.thread;
    const { stopped, devices } = thread.checkpoint();
    this.checkpoint = devices;
    devices.catch(() => {});
    this.send(ColoMessage.reply);
    await stopped;
    this.state = 'stopped';
  }

  async capture(into: CaptureBuffer, also: PageRange | null): Promise<DriverCapture> {
    this.captured = true;
    const thread = await this.thread;
    const startedAtMs = nowMs();
    // The thread takes it up at the end of the checkpoint, without a word from here.
    const capturing = thread.capture(into, also);
    capturing.catch(() => {});
    const devices = this.checkpoint
      ? Buffer.concat([DEVICES_HEADER, await this.checkpoint])
      : await saveDevices(this.qemu);
    const findMs = nowMs() - startedAtMs;
    const found = await capturing;
    return { ...found, findMs: findMs + found.findMs, devices };
  }

  async cont(): Promise<void> {
    if (this.state === 'stopped') {
      this.checkpoint = null;
      this.state = 'running';
      this.send(ColoMessage.received, ColoMessage.loaded);
      return;
    }
    if (this.captured) {
      await this.enter();
      this.runs();
      return;
    }
    await this.qemu.qmp.execute('cont');
    this.entering = this.enter().then(() => this.runs());
    this.entering.catch(() => {});
  }

  /** The VM stands still afterwards, and QEMU is out of COLO. */
  async leave(): Promise<void> {
    this.state = 'out';
    this.socket?.destroy();
    this.server?.close();
    const { qmp } = this.qemu;
    await qmp.execute('x-colo-lost-heartbeat').catch(() => {});
    await qmp.execute('stop');
  }

  async close(): Promise<void> {
    this.socket?.destroy();
    this.server?.close();
    await (await this.thread.catch(() => null))?.close();
  }

  private async enter(): Promise<void> {
    const { qmp } = this.qemu;
    const thread = await this.thread;
    const names = ['x-colo', ...(this.options.xbzrle ? ['xbzrle'] : [])];
    const capabilities = names.map((capability) => ({ capability, state: true }));
    await qmp.execute('migrate-set-capabilities', { capabilities });
    await qmp.execute('migrate-set-parameters', {
      ...{ 'x-checkpoint-delay': CHECKPOINT_DELAY_MS, 'max-bandwidth': BYTES_PER_SECOND_MAX },
      'downtime-limit': DOWNTIME_MS_MAX,
    });
    const { server, path } = await this.qemu.listen('colo.sock', { pauseOnConnect: true });
    this.server = server;
    const connected = connection(server);
    await qmp.execute('migrate', { uri: `unix:${path}` });
    this.socket = await connected;
    await thread.open(fdOf(this.socket));
    this.state = 'entered';
  }

  private runs(): void {
    this.state = 'running';
    this.send(ColoMessage.ready);
  }

  private send(...messages: number[]): void {
    const fd = this.socket ? fdOf(this.socket) : -1;
    if (fd < 0) throw new QemuError('COLO', 'the migration stream of QEMU is closed');
    writeSync(fd, coloMessages(...messages));
  }
}

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

function connection(server: Server): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const late = new QemuError('COLO', `QEMU did not connect within ${CONNECT_MS_MAX} ms`);
    const timer = setTimeout(() => reject(late), CONNECT_MS_MAX);
    server.once('connection', (socket) => {
      clearTimeout(timer);
      socket.on('error', () => {});
      resolve(socket);
    });
  });
}
