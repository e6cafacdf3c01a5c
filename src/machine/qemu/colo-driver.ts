/**
 * KVM's own dirty log, through QEMU's COLO: QEMU takes us for its secondary. It asks for each
 * checkpoint and we answer when an epoch is due; then it stops the VM, sends the pages that were
 * written and its devices, and goes on when told that they are loaded.
 *
 * QEMU enters COLO with a migration of all memory. A VM that was captured while it stood still may
 * write nothing unseen, so that migration ends before it runs. One that runs unprotected pays
 * nothing for COLO: its first stop waits for the migration, and it runs meanwhile.
 */
import type { Server, Socket } from 'node:net';
import type { CaptureBuffer } from '../machine.js';
import type { CaptureDriver, CaptureOrder, DriverCapture } from './capture-driver.js';
import { CaptureThread } from './capture-thread.js';
import { onceUnlocked } from './disk-lock.js';
import { QemuError } from './qemu-error.js';
import type { QemuProcess } from './qemu-process.js';
import { saveDevices } from './saved-devices.js';
import { shutDown } from './libc.js';
import { fdOf } from './ports.js';

const CHECKPOINT_DELAY_MS = 1;
const BYTES_PER_SECOND_MAX = 10 * 2 ** 30;
const DOWNTIME_MS_MAX = 2_000;
const CONNECT_MS_MAX = 5_000;
const LEAVE_MS_MAX = 3_000;
const MIGRATION_OVER = ['none', 'completed', 'failed', 'cancelled'];
/** As the file of `xen-save-devices-state` begins: a magic number and a version. */
const DEVICES_HEADER = Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3]);

/**
 * `out`: not in COLO, stopped and continued by QMP. `running`: QEMU asks for a checkpoint.
 * `stopped`: it waits to hear that the checkpoint is loaded.
 */
type State = 'out' | 'running' | 'stopped';

export interface ColoOptions {
  readonly why: string;
  /** Pages go as what changed of them. */
  readonly xbzrle: boolean;
  /** One capture in so many is checked against all of memory; 0: none. */
  readonly auditEvery: number;
}

export class ColoDriver implements CaptureDriver {
  readonly name = 'colo';
  readonly why: string;
  private readonly qemu: QemuProcess;
  private readonly thread: Promise<CaptureThread>;
  private readonly options: ColoOptions;
  private state: State = 'out';
  private captured = false;
  private captures = 0;
  private server: Server | null = null;
  private socket: Socket | null = null;

  constructor(qemu: QemuProcess, thread: Promise<CaptureThread>, options: ColoOptions) {
    this.qemu = qemu;
    this.thread = thread;
    this.options = options;
    this.why = options.why;
  }

  async restart(): Promise<void> {
    this.captured = false;
    await (await this.thread).restart();
  }

  async stop(): Promise<void> {
    if (this.state === 'out') await this.enter();
    if (this.state !== 'running') throw new QemuError('COLO', `stopped while ${this.state}`);
    await (await this.thread).checkpoint();
    this.state = 'stopped';
  }

  async capture(into: CaptureBuffer, order: CaptureOrder): Promise<DriverCapture> {
    this.captured = true;
    const thread = await this.thread;
    const { auditEvery } = this.options;
    this.captures += 1;
    const audit = auditEvery > 0 && this.captures % auditEvery === 0;
    const found = await thread.take(into, { ...order, audit });
    if (found.goesOn) this.state = 'running';
    const devices = found.devices
      ? Buffer.concat([DEVICES_HEADER, found.devices])
      : await saveDevices(this.qemu);
    return { ...found, devices };
  }

  async cont(): Promise<void> {
    if (this.state === 'stopped') {
      this.state = 'running';
      await (await this.thread).goOn();
      return;
    }
    if (this.captured) {
      await this.enter();
      return;
    }
    await onceUnlocked(() => this.qemu.qmp.execute('cont'));
  }

  /**
   * Gets QEMU out of COLO, wherever it is; the VM stands still afterwards. In mid-checkpoint it
   * would stand still for ever otherwise. QEMU lets it run at the end of its COLO, so that has to
   * be awaited.
   */
  async leave(): Promise<void> {
    this.state = 'out';
    await this.close();
    const { qmp } = this.qemu;
    await qmp.execute('x-colo-lost-heartbeat').catch(() => {});
    const endAt = Date.now() + LEAVE_MS_MAX;
    for (;;) {
      const { status } = (await qmp.execute('query-migrate')) as { status?: string };
      if (status === undefined || MIGRATION_OVER.includes(status)) break;
      if (Date.now() > endAt) throw new QemuError('COLO', `QEMU does not leave COLO: ${status}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await qmp.execute('stop');
  }

  /** The worker may wait for the socket: its descriptor goes only after it. */
  async close(): Promise<void> {
    const { socket } = this;
    const fd = socket ? fdOf(socket) : -1;
    if (fd >= 0) shutDown(fd);
    await (await this.thread.catch(() => null))?.close();
    socket?.destroy();
    this.server?.close();
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
    this.state = 'running';
    await thread.begin();
  }
}

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
