/** CPU time of the thread that runs the guest, as Linux counts it, in `ns`. */
import { readFileSync, readdirSync } from 'node:fs';

/** A stopped VM's thread still runs a little, on QEMU's account: only spans of running count. */
export class VcpuWork {
  private path = '';
  private doneNs = 0;
  private begunAtNs: number | null = null;

  attach(pid: number): void {
    this.path = '';
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const name = readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8');
      if (name.startsWith('CPU ')) this.path = `/proc/${pid}/task/${task}/schedstat`;
    }
  }

  begin(): void {
    this.begunAtNs = this.threadNs();
  }

  end(): void {
    this.doneNs = this.done();
    this.begunAtNs = null;
  }

  done(): number {
    if (this.begunAtNs === null) return this.doneNs;
    return this.doneNs + Math.max(0, this.threadNs() - this.begunAtNs);
  }

  private threadNs(): number {
    if (this.path === '') return 0;
    try {
      return Number(readFileSync(this.path, 'utf8').split(' ')[0]);
    } catch {
      return 0;
    }
  }
}
