/** Which engine runs a VM whose file says `auto`: QEMU where both hosts have it, else v86. */
import { hostname } from 'node:os';
import { whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import type { Security } from '../wire/security.js';
import { askPeer } from './peer-control.js';
import { engineFaults, type VmConfig } from './vm-config.js';
import { VmProcessError } from './vm-process-error.js';

export interface EngineChoice {
  readonly engine: 'v86' | 'qemu';
  /** Why `auto` did not take QEMU; empty if nobody needs to know. */
  readonly why: string;
}

/** How the peer is asked. */
export interface PeerQuestion {
  readonly security: Security;
  readonly deadlineMs: number;
}

export function checkQemu(): void {
  const missing = whatQemuNeeds();
  if (missing !== '') throw new VmProcessError('QEMU_MISSING', `${hostname()}: ${missing}`);
}

async function whyNotQemu(
  config: VmConfig,
  peer: string | null,
  { security, deadlineMs }: PeerQuestion,
): Promise<string> {
  const missing = whatQemuNeeds();
  if (missing !== '') return missing;
  const [fault] = engineFaults(config, 'qemu');
  if (fault) return fault;
  if (peer === null) return '';
  const anything = { vmUuid: '', incarnation: '', host: '' };
  const answer = await askPeer(security, peer, anything, deadlineMs);
  if (!answer) return `the peer at ${peer} does not answer`;
  return answer.engines.includes('qemu') ? '' : `host ${answer.host} has no QEMU for it`;
}

/** Decided before a record says that the VM is here, and kept: a VM does not change its engine. */
export async function chooseEngine(
  config: VmConfig,
  peer: string | null,
  ask: PeerQuestion,
): Promise<EngineChoice> {
  if (config.engine === 'qemu') {
    checkQemu();
    return { engine: 'qemu', why: '' };
  }
  if (config.engine === 'v86') return { engine: 'v86', why: '' };
  const why = await whyNotQemu(config, peer, ask);
  if (why === '') return { engine: 'qemu', why };
  const faults = engineFaults(config, 'v86');
  if (faults.length === 0) return { engine: 'v86', why: `engine auto took v86, not qemu: ${why}` };
  const text = `no engine can run it: qemu: ${why}; v86: ${faults.join('; ')}`;
  throw new VmProcessError('NO_ENGINE', text);
}
