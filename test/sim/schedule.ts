/** What will happen, in order of virtual time; equal times keep the order they were set in. */

interface Task {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

function before(one: Task, other: Task): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

export class Schedule {
  nowMs = 0;
  private readonly heap: Task[] = [];
  private order = 0;

  at(delayMs: number, run: () => void): void {
    const { heap } = this;
    const task = { atMs: this.nowMs + Math.max(0, delayMs), order: this.order++, run };
    let at = heap.length;
    heap.push(task);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (before(heap[parent], task)) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = task;
  }

  every(ms: number, run: () => void): void {
    this.at(ms, () => {
      run();
      this.every(ms, run);
    });
  }

  /** Runs what is due up to `endMs`, or until `stop` says so; true if it did. */
  runUntil(endMs: number, stop: () => boolean = () => false): boolean {
    while (this.heap.length > 0 && this.heap[0].atMs <= endMs) {
      const task = this.take();
      this.nowMs = task.atMs;
      task.run();
      if (stop()) return true;
    }
    this.nowMs = endMs;
    return false;
  }

  private take(): Task {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (last && heap.length > 0) this.sink(last);
    return first;
  }

  private sink(task: Task): void {
    const { heap } = this;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child += 1;
      if (!before(heap[child], task)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = task;
  }
}
