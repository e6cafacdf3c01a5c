/**
 * The secondary's copy of a VM: parts are staged, an epoch is verified whole and then committed
 * into the image in place, which is the memory of the warm standby machine itself. Decisions are
 * the core's.
 */
import { OutputLog } from '../gate/output-log.js';
import type { Machine } from '../machine/machine.js';
import { PageDecoder } from '../page/page-decoder.js';
import { splitPart } from './part.js';

export class Replica {
  readonly machine: Machine;
  readonly outputs = new OutputLog();
  private readonly decoder: PageDecoder;
  /** Output of the epoch that is being staged. */
  private stagedOutput: Uint8Array | null = null;
  private stagingFault: Error | null = null;

  static async create(machine: Machine): Promise<Replica> {
    return new Replica(machine, await PageDecoder.create(machine.ram));
  }

  private constructor(machine: Machine, decoder: PageDecoder) {
    this.machine = machine;
    this.decoder = decoder;
  }

  get memoryRoot(): bigint {
    return this.decoder.memoryRoot;
  }

  /** Back to an empty image, before the first epoch of a sync. */
  reset(): void {
    this.machine.clearRam();
    this.decoder.reset();
    this.outputs.reset();
    this.dropStaged();
  }

  /** A part that does not decode spoils its epoch: `verify` will say so. */
  stage(part: number, payload: Uint8Array): void {
    if (this.stagingFault) return;
    try {
      const { output, pages } = splitPart(part, payload);
      if (output) {
        OutputLog.check(output);
        this.stagedOutput = output;
      }
      this.decoder.stage(pages);
    } catch (error) {
      this.stagingFault = error instanceof Error ? error : new Error(String(error));
    }
  }

  /** True if all parts decoded and the epoch hash over what was decoded is the sender's. */
  verify(generation: number, epoch: number): boolean {
    if (this.stagingFault || this.stagedOutput === null) return false;
    return this.decoder.verify(generation, epoch);
  }

  commit(epoch: number): void {
    if (this.stagedOutput === null) throw new Error('commit of an epoch that was not verified');
    this.decoder.commit();
    this.outputs.commit(epoch, this.stagedOutput);
    this.stagedOutput = null;
  }

  dropStaged(): void {
    this.decoder.dropStaged();
    this.stagedOutput = null;
    this.stagingFault = null;
  }

  /** Puts the last committed device state on top of the image: the machine can run. */
  promote(): Promise<void> {
    this.dropStaged();
    return this.machine.restore(this.decoder.deviceState);
  }
}
