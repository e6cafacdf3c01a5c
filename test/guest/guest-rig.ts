/** A machine that runs a guest by itself, with its serial output kept and its NIC as a port. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { EthernetPort } from '../../src/drill/packets.js';
import { TickJudge } from '../../src/drill/tick-judge.js';
import { builtinKernel } from '../../src/guest/builtin.js';
import type { MachineSpec } from '../../src/machine/machine.js';
import { V86Machine } from '../../src/machine/v86/v86-machine.js';
import { until } from '../within.js';

export interface GuestRig {
  machine: V86Machine;
  judge: TickJudge;
  ethernet: EthernetPort;
  /** All that the guest wrote to its serial port. */
  serial(): string;
  type(text: string): void;
  /** Settles when the serial output matches. */
  says(pattern: RegExp, ms: number): Promise<void>;
  poweredOff(): boolean;
  stop(): Promise<void>;
}

export async function startGuest(
  cmdline: string,
  memoryMiB = 32,
  boot: Pick<MachineSpec, 'kernel' | 'initrd'> = { kernel: builtinKernel(), initrd: null },
): Promise<GuestRig> {
  const nics = [{ id: 'lan', mac: '52:54:00:12:34:56', model: 'ne2k' }] as const;
  const spec = { memoryBytes: memoryMiB << 20, ...boot, cmdline, nics, disks: [] };
  const machine = await V86Machine.create(spec, { auditEvery: 0 });
  const judge = new TickJudge();
  const decoder = new TextDecoder();
  let text = '';
  let off = false;
  machine.serial.onBytes = (bytes) => {
    judge.push(bytes);
    text += decoder.decode(bytes, { stream: true });
  };
  machine.onPowerOff = () => {
    off = true;
  };
  const nic = machine.nics[0];
  const ethernet: EthernetPort = { onFrame: null, send: (frame) => nic.receive(frame) };
  nic.onFrame = (frame) => ethernet.onFrame?.(frame);
  await machine.boot();
  machine.resume();
  return {
    machine,
    judge,
    ethernet,
    serial: () => text,
    type: (line) => machine.serial.receive(new TextEncoder().encode(line)),
    says: async (pattern, ms) => {
      await until(ms, `the guest says ${String(pattern)}`, () => pattern.test(text));
    },
    poweredOff: () => off,
    stop: () => machine.stop(),
  };
}

/** Empty where the Linux guest can be built. */
export function whatLinuxNeeds(): string {
  try {
    execFileSync('apt-get', ['--version']);
    execFileSync('dpkg-deb', ['--version']);
    const system = readFileSync('/etc/os-release', 'utf8');
    return /^ID=debian$/m.test(system) ? '' : 'not a Debian system';
  } catch {
    return 'no apt';
  }
}
