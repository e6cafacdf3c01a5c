/** `device-writer PATH STATE-DIR VM`: changes a record for ever, and tells each change. */
import { DeviceArbiter } from '../../src/pool/device-arbiter.js';
import { proposal } from './arbiter-acceptance.js';

const [path, stateDir, vm] = process.argv.slice(2);
const onFault = (text: string): void => void process.stderr.write(`${text}\n`);
const arbiter = new DeviceArbiter(path, { deadlineMs: 10_000, onFault, stateDir });

for (;;) {
  const read = await arbiter.read(vm);
  if (read.outcome !== 'ok') continue;
  const revision = read.record?.revision ?? 0;
  const reply = await arbiter.cas(vm, revision, proposal(vm, revision + 1));
  if (reply.outcome === 'ok') process.stdout.write(`${revision + 1}\n`);
}
