/**
 * Entry point of a VM's own process: it holds the VM's whole data path (machine, pages, links, gate or
 * replica) and nothing of any other VM. It lives as long as its IPC channel to the daemon.
 */
import { VmProcess } from './vm-member.js';
import type { DaemonToVm } from './vm-protocol.js';
import type { Socket } from 'node:net';

let member: VmProcess | null = null;

function say(message: string): void {
  process.stderr.write(`${JSON.stringify({ event: 'vm-process', message })}\n`);
}

process.on('message', (message: DaemonToVm, socket: Socket | undefined) => {
  if (message.type === 'init') {
    if (member) throw new Error('initialised twice');
    VmProcess.create(message).then(
      (created) => {
        member = created;
        process.send?.({ type: 'ready', incarnation: created.incarnation });
      },
      (error: unknown) => {
        say(String(error));
        process.send?.({
          type: 'exit-state',
          state: 'failed',
          reason: error instanceof Error ? error.message : String(error),
        });
        process.exit(1);
      },
    );
  } else if (member) member.handle(message, socket ?? null);
});

// The daemon is gone: a VM without its host's daemon must not run on.
process.on('disconnect', () => process.exit(1));
process.on('SIGINT', () => {});
