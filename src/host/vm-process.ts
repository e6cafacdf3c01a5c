/**
 * Entry point of a VM's own process: it holds the VM's whole data path (machine, pages, links,
 * gate or replica) and nothing of any other VM. It lives as long as its IPC channel to the daemon.
 */
import { VmProcess } from './vm-member.js';
import { describe } from './vm-process-error.js';
import type { DaemonToVm } from './vm-protocol.js';
import type { Socket } from 'node:net';

let member: VmProcess | null = null;
let initialised = false;
/** What came while the member was being made. */
const early: { message: DaemonToVm; socket: Socket | null }[] = [];

function say(message: string): void {
  process.stderr.write(`${JSON.stringify({ event: 'vm-process', message })}\n`);
}

process.on('message', (message: DaemonToVm, socket: Socket | undefined) => {
  if (message.type === 'init') {
    if (initialised) throw new Error('initialised twice');
    initialised = true;
    VmProcess.create(message).then(
      (created) => {
        member = created;
        process.send?.({ type: 'ready', incarnation: created.incarnation });
        for (const { message, socket } of early.splice(0)) created.handle(message, socket);
      },
      (error: unknown) => {
        say(String(error));
        const { code, message: reason } = describe(error);
        process.send?.({ type: 'exit-state', state: 'failed', reason, code });
        process.exit(1);
      },
    );
  } else if (member) member.handle(message, socket ?? null);
  else early.push({ message, socket: socket ?? null });
});

// The daemon is gone: a VM without its host's daemon must not run on.
process.on('disconnect', () => process.exit(1));
process.on('SIGINT', () => {});
