/** The command line of a QEMU for one machine: the same on both hosts, or devices do not fit. */
import type { MachineSpec } from '../machine.js';
import { diskArgs } from './disk-args.js';

/** Descriptors that QEMU inherits. */
export const Fd = { ram: 3, deviceState: 4, kernel: 5, initrd: 6 } as const;

export type Accelerator = 'kvm' | 'tcg';

/** `incoming`: waits for a device state; `boot`: stands still before its first instruction. */
export type Role = 'boot' | 'incoming';

/** Fixed, so that every QEMU from 7.2 on makes the same machine. */
const MACHINE = 'pc-i440fx-7.2';
/** All that the accelerator offers; software KVMs list an MSR for which they have no room. */
const CPU = { kvm: 'max,arch-capabilities=off', tcg: 'max' } as const;
const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
const MIB = 1 << 20;
const NIC_MODELS = { ne2k: 'ne2k_pci', virtio: 'virtio-net-pci' } as const;

const inherited = (fd: number): string => `/proc/self/fd/${fd}`;

export function isLinux(kernel: Uint8Array): boolean {
  return kernel.length > 0x206 && Buffer.from(kernel.subarray(0x202, 0x206)).toString() === 'HdrS';
}

/** In the first 8 KiB, 4-byte aligned (Multiboot Specification 0.6.96, section 3.1). */
export function isMultiboot(kernel: Uint8Array): boolean {
  const view = new DataView(kernel.buffer, kernel.byteOffset, Math.min(8192, kernel.length));
  for (let at = 0; at + 4 <= view.byteLength; at += 4)
    if (view.getUint32(at, true) === 0x1badb002) return true;
  return false;
}

/** The built-in guest and its kind have drivers for the plainest devices only. */
const isPlain = ({ kernel }: MachineSpec): boolean => kernel !== null && !isLinux(kernel);

function nicArgs(spec: MachineSpec): string[] {
  return spec.nics.flatMap(({ mac, model }, index) => {
    const chosen = model === 'auto' ? (isPlain(spec) ? 'ne2k' : 'virtio') : model;
    const socket = `server=off,addr.type=unix,addr.path=nic${index}.sock`;
    return [
      ...['-netdev', `stream,id=net${index},${socket}`],
      ...['-device', `${NIC_MODELS[chosen]},netdev=net${index},mac=${mac},romfile=`],
    ];
  });
}

function bootArgs({ kernel, initrd, cmdline }: MachineSpec): string[] {
  if (!kernel) return [];
  const files = ['-kernel', inherited(Fd.kernel), '-append', cmdline];
  return [...files, ...(initrd ? ['-initrd', inherited(Fd.initrd)] : [])];
}

/** There is no display: a machine that starts by its firmware shows it on the serial port. */
const display = ({ kernel }: MachineSpec): string => (kernel ? '' : ',graphics=off');

export function qemuArgs(spec: MachineSpec, accelerator: Accelerator, role: Role): string[] {
  const ram = `memory-backend-file,id=ram,size=${spec.memoryBytes},mem-path=${inherited(Fd.ram)}`;
  const shape = `accel=${accelerator},memory-backend=ram`;
  return [
    ...['-name', 'mirror,debug-threads=on'],
    ...['-machine', `${MACHINE},${shape},usb=off,vmport=off${display(spec)}`],
    ...['-cpu', CPU[accelerator], '-smp', '1', '-m', `${spec.memoryBytes / MIB}M`],
    ...['-object', `${ram},share=on`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-shutdown'],
    ...['-sandbox', SANDBOX],
    ...['-chardev', 'socket,id=qmp,path=qmp.sock,server=off', '-mon', 'chardev=qmp,mode=control'],
    ...['-chardev', 'socket,id=com1,path=serial.sock,server=off', '-serial', 'chardev:com1'],
    ...nicArgs(spec),
    ...diskArgs(spec.disks, spec.kernel !== null && isLinux(spec.kernel)),
    ...bootArgs(spec),
    '-S',
    ...(role === 'incoming' ? ['-incoming', 'defer'] : []),
  ];
}
