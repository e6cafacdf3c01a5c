/** Memory of a process with shared pages counted by their share (Linux). */
import { readFileSync } from 'node:fs';

export function pssMb(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]) / 1024;
}
