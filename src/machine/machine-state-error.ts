/** Something was asked of a machine that its state does not allow. */
import { MirrorError } from '../core/errors.js';

export class MachineStateError extends MirrorError {
  constructor(what: string, phase: string) {
    super('machine-state', `cannot ${what} a machine that is ${phase}`);
  }
}
