/** Both hosts have the memory for a VM: before it is recorded, mirrored, or stood by for. */
import type { Security } from '../wire/security.js';
import type { VmDescription } from './machine-source.js';
import { memoryNeed, requireRoom } from './memory-room.js';
import { askPeer } from './peer-control.js';
import type { InitMessage } from './vm-protocol.js';

const ANYBODY = { vmUuid: '', incarnation: '', host: '' };

/** A VM that its host has admitted before is not refused when it comes back. */
export async function guardStart(
  security: Security,
  init: InitMessage,
  vm: VmDescription,
): Promise<void> {
  if (init.start !== 'create') return;
  const { peer, room, host, vmName } = init;
  const need = memoryNeed(vm.config, peer !== null);
  requireRoom({ host: host.name, vm: vmName }, need, room, 'Nothing was started');
  if (peer !== null) await guardPeer(security, init, vm, peer, 'Nothing was started');
}

/** One that does not answer is not asked: it looks again when it gets the offer. */
export async function guardPeer(
  security: Security,
  { vmName, host: { detectMs } }: InitMessage,
  vm: VmDescription,
  peer: string,
  nothing: string,
): Promise<void> {
  const answer = await askPeer(security, peer, ANYBODY, detectMs);
  if (!answer) return;
  const need = memoryNeed(vm.config, true);
  requireRoom({ host: answer.host, vm: vmName }, need, answer.room, nothing);
}

export function guardStandby({ vmName, host, room }: InitMessage, vm: VmDescription): void {
  const need = memoryNeed(vm.config, true);
  requireRoom({ host: host.name, vm: vmName }, need, room, 'It does not stand by');
}
