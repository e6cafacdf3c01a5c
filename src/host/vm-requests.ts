/** What the daemon may ask of a VM process: its status, its console, commands, and proofs. */
import type { InputState } from '../gate/serial-input.js';
import { fullRehash } from '../page/full-rehash.js';
import type { Command } from '../core/events.js';
import { refuseUnsafeDisks } from './local-disks.js';
import { guardPeer } from './room-guard.js';
import type { VmProcess } from './vm-member.js';
import { VmProcessError } from './vm-process-error.js';
import { vmStatus } from './vm-status.js';

type Params = Record<string, unknown>;

const NO_BYTES = new Uint8Array(0);
const COMMANDS = ['protect', 'unprotect', 'stop', 'handover', 'reseed', 'force'] as const;

export async function answerRequest(
  vm: VmProcess,
  method: string,
  params: Params,
): Promise<unknown> {
  switch (method) {
    case 'status':
      return vmStatus(vm);
    case 'command':
      await command(vm, params);
      return {};
    case 'console-read':
      return consoleRead(vm, params);
    case 'console-write':
      return consoleWrite(vm, params);
    case 'image':
      return imageProof(vm, params);
    default:
      throw new VmProcessError('BAD_REQUEST', `unknown request ${method}`);
  }
}

/** What is said of unsafe disks is said for each mirror anew. */
async function command(vm: VmProcess, params: Params): Promise<void> {
  const command = commandOf(params);
  const { source } = vm;
  const { known } = source;
  if (command.type !== 'protect' || !known) return vm.command(command);
  const allowed = params['unsafeDisks'] === true;
  refuseUnsafeDisks(known, allowed, 'Nothing was changed');
  await guardPeer(vm.security, vm.init, source.description, command.peer, 'Nothing was changed');
  source.allowUnsafeDisks(allowed);
  try {
    await vm.command(command);
  } catch (error) {
    source.allowUnsafeDisks(known.unsafeDisks);
    throw error;
  }
}

function commandOf(params: Params): Command {
  const name = COMMANDS.find((known) => known === params['command']);
  if (!name) throw new VmProcessError('BAD_REQUEST', 'unknown command');
  if (name !== 'protect') return { type: name };
  const { peer } = params;
  if (typeof peer !== 'string') throw new VmProcessError('BAD_REQUEST', 'protect needs a peer');
  return { type: 'protect', peer };
}

function consoleRead(vm: VmProcess, params: Params): unknown {
  const from = typeof params['from'] === 'number' ? params['from'] : 0;
  // A standby shows what is durable here: no survivor can contradict it.
  const { offset, bytes, gap } = (vm.replica?.outputs.serial ?? vm.serial).read(from);
  return { offset, bytes: Buffer.from(bytes).toString('base64'), gap };
}

/**
 * Serial input from place `offset` of the stream on; without one, from where the VM has got to.
 * What is not acknowledged in the answer has to be sent again, after a takeover for one.
 */
async function consoleWrite(vm: VmProcess, params: Params): Promise<InputState> {
  const { bytes, offset } = params;
  if (typeof bytes !== 'string') throw new VmProcessError('BAD_REQUEST', 'no bytes to write');
  if (offset !== undefined && (!Number.isSafeInteger(offset) || (offset as number) < 0))
    throw new VmProcessError('BAD_REQUEST', 'offset: not a place in a stream');
  const at = (offset as number | undefined) ?? (await vm.serialIn(0, NO_BYTES)).applied;
  return vm.serialIn(at, Buffer.from(bytes, 'base64'));
}

/**
 * For a proof of equality: the standby's root by a full re-hash of its bytes, by other code than
 * the incremental tree, and the root that the primary sent with an epoch.
 */
async function imageProof(vm: VmProcess, params: Params): Promise<unknown> {
  if (vm.replica) {
    const rehash = await fullRehash(vm.replica.machine.ram);
    // The hashing is one synchronous stretch: no epoch came between it and this line.
    return { epoch: vm.driver.status().committedEpoch, fullRehash: hex(rehash) };
  }
  const epoch = Number(params['epoch']);
  const root = vm.primary?.loop?.roots.get(epoch);
  return { epoch, memoryRoot: root === undefined ? null : hex(root) };
}

const hex = (root: bigint): string => root.toString(16).padStart(16, '0');
