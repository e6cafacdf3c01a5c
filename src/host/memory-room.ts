/**
 * Whether a host has the memory that a VM needs on it, checked before anything is recorded of the
 * VM: what runs out later ends one VM process or another, and not the one that is to blame.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { mib, MIB } from './sizes.js';
import type { VmConfig } from './vm-config.js';
import { VmProcessError } from './vm-process-error.js';

/** What a VM's processes take beside its memory and the copies of it, as measured, rounded up. */
const PROCESSES_BYTES = 192 * MIB;

/** The content of a file, `null` if it is not there. */
export type FileReader = (path: string) => string | null;

export interface MemoryNeed {
  readonly memoryBytes: number;
  /** The memory itself, and copies of it. */
  readonly times: number;
  readonly bytes: number;
}

export interface MemoryRoom {
  readonly bytes: number;
  /** Where the figure comes from. */
  readonly source: string;
}

/** What another VM of this host may take, and what it has taken of that. */
export interface Commitment {
  readonly bytes: number;
  readonly usedBytes: number;
}

/**
 * With QEMU a copy tells what the guest changed, also once COLO has failed; an owner that is
 * mirrored has one of what its standby holds. A standby needs what it will as the owner.
 */
export function memoryNeed(
  { memoryBytes, engine }: Pick<VmConfig, 'memoryBytes' | 'engine'>,
  mirrored: boolean,
): MemoryNeed {
  const times = (engine === 'v86' ? 1 : 2) + (mirrored ? 1 : 0);
  return { memoryBytes, times, bytes: times * memoryBytes + PROCESSES_BYTES };
}

/** The least that anything here allows; `null` if nothing says how much that is. */
export function memoryRoom(
  statedBytes: number | null,
  others: readonly Commitment[],
  read: FileReader = readFile,
): MemoryRoom | null {
  const sum = (of: (other: Commitment) => number): number =>
    others.reduce((bytes, other) => bytes + of(other), 0);
  const promised = sum(({ bytes }) => bytes);
  const untouched = sum(({ bytes, usedBytes }) => Math.max(0, bytes - usedBytes));
  const rooms: MemoryRoom[] = [];
  if (statedBytes !== null) {
    const source = `--memory ${mib(statedBytes)}, less ${mib(promised)} for its other VMs`;
    rooms.push({ bytes: statedBytes - promised, source });
  }
  for (const { bytes, source } of [...systemRoom(read), ...cgroupRooms(read)])
    rooms.push({
      bytes: bytes - untouched,
      source: `${source} ${mib(bytes)}, less ${mib(untouched)} that its other VMs may still take`,
    });
  rooms.sort((one, other) => one.bytes - other.bytes);
  return rooms.length > 0 ? { ...rooms[0], bytes: Math.max(0, rooms[0].bytes) } : null;
}

/** `nothing`: what was not done. */
export function requireRoom(
  who: { host: string; vm: string },
  need: MemoryNeed,
  room: MemoryRoom | null,
  nothing: string,
): void {
  if (!room || need.bytes <= room.bytes) return;
  const { memoryBytes, times, bytes } = need;
  throw new VmProcessError(
    'NO_ROOM',
    `host ${who.host} has too little memory for ${who.vm}: it needs ${mib(bytes)} there ` +
      `(${times} times its ${mib(memoryBytes)}, and ${mib(PROCESSES_BYTES)}), available are ` +
      `${mib(room.bytes)} (${room.source}). ${nothing}. Give the VM less memory, stop another ` +
      'one there, or take a host with more',
  );
}

function readFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function systemRoom(read: FileReader): MemoryRoom[] {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(read('/proc/meminfo') ?? '')?.[1];
  return kib === undefined ? [] : [{ bytes: Number(kib) * 1024, source: 'MemAvailable' }];
}

/** Of this process' own group (cgroup v2), and of those above it. */
function cgroupRooms(read: FileReader): MemoryRoom[] {
  const own = /^0::(\/.*)$/m.exec(read('/proc/self/cgroup') ?? '')?.[1];
  const rooms: MemoryRoom[] = [];
  for (let group = own ?? '/'; group !== '/'; group = dirname(group)) {
    const of = (name: string): string | null => read(join('/sys/fs/cgroup', group, name));
    const max = Number(of('memory.max') ?? Number.NaN);
    const current = Number(of('memory.current') ?? Number.NaN);
    if (!Number.isFinite(max) || !Number.isFinite(current)) continue;
    // What is only cached of files goes as soon as room is needed.
    const cached = Number(/^inactive_file (\d+)$/m.exec(of('memory.stat') ?? '')?.[1] ?? 0);
    rooms.push({ bytes: max - current + cached, source: `memory.max of cgroup ${group} leaves` });
  }
  return rooms;
}

/** What a process and its children have in memory, what they share counted by its share. */
export function usedBytes(pid: number, read: FileReader = readFile): number {
  const kib = /^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? '')?.[1] ?? '0';
  const children = read(`/proc/${pid}/task/${pid}/children`) ?? '';
  const pids = children.split(' ').filter((text) => /^\d+$/.test(text));
  return pids.reduce((bytes, child) => bytes + usedBytes(Number(child), read), Number(kib) * 1024);
}
