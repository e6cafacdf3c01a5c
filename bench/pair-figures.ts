/** What is compared of two ways to keep a pair of VMs. */
export interface PairFigures {
  readonly pauseP50Ms: number;
  readonly pauseP99Ms: number;
  readonly epochsPerSecond: number;
  readonly loopsPerSecond: number;
  readonly bytesPerEpoch: number;
  /** Of both sides, for each second. */
  readonly cpuSeconds: number;
  /** From SIGKILL to the first that the guest prints on the other side, run by run. */
  readonly outputMs: readonly number[];
  /** The part of it in which the loss is noticed and decided on; 0 where it is told by hand. */
  readonly detectedMs: number;
}

export interface PairTask {
  readonly pages: 16 | 500 | 5_000;
  readonly epochMs: number;
  readonly seconds: number;
  readonly kills: number;
}
