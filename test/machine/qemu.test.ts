/** A stock QEMU as a machine: the acceptance suite, with each way of capture. */
import { suite, type Test } from 'uvu';
import type { Machine, MachineSpec } from '../../src/machine/machine.js';
import { QemuMachine } from '../../src/machine/qemu/qemu-machine.js';
import { whatKvmNeeds, whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { skip, testIf } from '../within.js';
import { machineAcceptance, type MachineFactory } from './acceptance.js';

const factoryOf = (accelerator: 'kvm' | 'tcg', name: 'colo' | 'savedev'): MachineFactory => ({
  create: (spec: MachineSpec): Promise<Machine> =>
    QemuMachine.create(spec, { accelerator, driver: { name, why: 'asked for' }, auditEvery: 3 }),
  keepsTime: false,
  slow: accelerator === 'kvm',
});

const missing = whatQemuNeeds();
const noKvm = whatKvmNeeds();
if (missing === '') machineAcceptance('qemu, tcg, savedev', factoryOf('tcg', 'savedev')).run();
else lacks('qemu, tcg, savedev', (tests) => testIf(tests, 'acceptance', missing, () => {}));
if (missing !== '') lacks('qemu, kvm, colo', (tests) => skip(tests, 'acceptance', missing));
else if (noKvm !== '') lacks('qemu, kvm, colo', (tests) => skip(tests, 'acceptance', noKvm));
else machineAcceptance('qemu, kvm, colo', factoryOf('kvm', 'colo')).run();

function lacks(name: string, register: (tests: Test) => void): void {
  const tests = suite(name);
  register(tests);
  tests.run();
}
