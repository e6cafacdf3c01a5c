/**
 * Stands in for a VM process in tests of the daemon: says what a real one would, holds no VM. Its
 * name says how it behaves: `bad-*` never comes to own its VM, `raw-*` never proves its owner.
 */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import { acceptVm, type ProvenPeer } from '../../src/host/vm-dial.js';
import { Security } from '../../src/wire/security.js';
import type { DaemonToVm, InitMessage, VmToDaemon } from '../../src/host/vm-protocol.js';

let init: InitMessage | null = null;
let generation = 0;
let held: Socket | null = null;

const tell = (message: VmToDaemon): void => void process.send?.(message);

function state(): void {
  if (!init) return;
  const { role, vmName, host, peer } = init;
  const primary = role === 'primary';
  const now = primary ? 'solo' : 'standby';
  tell({
    ...{ type: 'state', vm: init.vm, peerAddress: peer },
    status: {
      ...{ role, state: generation > 0 ? now : 'starting', generation },
      ...{ epoch: 0, committedEpoch: 0, owner: primary ? host.name : '', peer: '' },
    },
  });
  if (vmName.startsWith('bad-')) {
    tell({ type: 'warning', code: 'ALREADY_RUNNING', text: 'the VM is already solo on host z' });
    tell({ type: 'exit-state', state: 'failed', reason: '' });
    setTimeout(() => process.exit(0), 20);
  }
}

function begin(message: InitMessage): void {
  init = message;
  tell({ type: 'ready', incarnation: `i-${randomUUID()}` });
  if (message.role === 'primary' && !message.vmName.startsWith('bad-')) generation = 1;
  state();
}

async function session(raw: Socket, rest: string, peer: ProvenPeer): Promise<void> {
  if (!init) return;
  raw.on('error', () => {});
  if (peer) raw.unshift(Buffer.from(rest, 'base64'));
  const { socket } = await acceptVm(new Security(init.host), raw, peer);
  held = socket;
  socket.on('error', () => {});
  socket.resume();
  socket.write(`served by ${process.pid}, rest ${Buffer.from(rest, 'base64').toString()}\n`);
  if (init?.vmName.startsWith('raw-')) return;
  generation = 2;
  state();
}

function answer(id: number, method: string, params: Record<string, unknown>): void {
  if (method === 'hang') return;
  if (method === 'end') {
    tell({ type: 'exit-state', state: String(params['state']), reason: '' });
    setTimeout(() => process.exit(0), 10);
  }
  const result = { name: init?.vmName, role: init?.role, start: init?.start, held: held !== null };
  tell({ type: 'reply', id, result: { ...result, pid: process.pid, warnings: [] } });
}

process.on('message', (message: DaemonToVm, socket: Socket | undefined) => {
  if (message.type === 'init') begin(message);
  else if (message.type === 'session' && socket)
    session(socket, message.rest, message.peer).catch(() => process.exit(1));
  else if (message.type === 'request') answer(message.id, message.method, message.params);
});
process.on('disconnect', () => process.exit(1));
