/** A stock QEMU as a machine: the acceptance suite under TCG. */
import { suite } from 'uvu';
import type { Machine, MachineSpec } from '../../src/machine/machine.js';
import { QemuMachine } from '../../src/machine/qemu/qemu-machine.js';
import { whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { testIf } from '../within.js';
import { machineAcceptance } from './acceptance.js';

const tcg = {
  create: (spec: MachineSpec): Promise<Machine> => QemuMachine.create(spec, { accelerator: 'tcg' }),
  keepsTime: false,
};

const missing = whatQemuNeeds();
if (missing === '') machineAcceptance('qemu, tcg', tcg).run();
else {
  const skipped = suite('qemu, tcg');
  testIf(skipped, 'the acceptance suite', missing, () => {});
  skipped.run();
}
