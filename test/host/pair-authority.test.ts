/** Whom a host answers about a record that hosts keep among themselves. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PairRequest, RecordCopy } from '../../src/core/pair-record.js';
import type { VmRecord } from '../../src/core/record.js';
import { HostError } from '../../src/host/host-error.js';
import { checkAsker } from '../../src/host/pair-authority.js';

const authority = suite('pair authority');
const vmUuid = '11111111-2222-3333-4444-555555555555';

const paired: VmRecord = {
  ...{ vm: 'web', vmUuid, generation: 2, revision: 2, mode: 'paired', diskLegs: {} },
  ...{ owner: 'a', ownerIncarnation: 'a1', peer: 'b', peerIncarnation: 'b1', baseEpoch: 1 },
};
const solo: VmRecord = { ...paired, mode: 'solo', peer: '', peerIncarnation: '' };
const held = (record: VmRecord): RecordCopy => ({ hold: 'holds', record });

interface Asked {
  readonly name: string;
  readonly mine: RecordCopy | null;
  readonly mirroredTo?: string;
  readonly request?: Partial<PairRequest>;
}

/** Of host a. */
function answered({ name, mine, mirroredTo, request = {} }: Asked): boolean {
  const whole = { host: name, copy: null, change: null, ...request };
  const asker = { name, mirroredTo: mirroredTo ?? null };
  try {
    checkAsker('a', vmUuid, mine, whole, asker);
    return true;
  } catch (error) {
    if (error instanceof HostError && error.code === 'NOT_YOURS') return false;
    throw error;
  }
}

authority('told are the hosts of the record, and the one that the VM is mirrored to', () => {
  assert.ok(answered({ name: 'b', mine: held(paired) }));
  assert.not(answered({ name: 'c', mine: held(paired) }));
  assert.ok(answered({ name: 'a', mine: held(solo) }));
  assert.not(answered({ name: 'b', mine: held(solo) }));
  assert.ok(answered({ name: 'b', mine: held(solo), mirroredTo: 'b' }));
  assert.not(answered({ name: 'c', mine: held(solo), mirroredTo: 'b' }));
});

authority('a stopped VM may be started on the other host', () => {
  assert.ok(answered({ name: 'b', mine: held({ ...solo, mode: 'stopped' }) }));
});

authority('nobody asks in the name of another, or with the record of another VM', () => {
  assert.not(answered({ name: 'c', mine: held(paired), request: { host: 'b' } }));
  assert.not(answered({ name: 'c', mine: null, request: { host: 'b' } }));
  const other = { ...paired, vmUuid: vmUuid.replace('1', '9') };
  assert.not(answered({ name: 'b', mine: held(paired), request: { copy: held(other) } }));
  const change = { expectRevision: 2, proposal: other };
  assert.not(answered({ name: 'b', mine: held(paired), request: { change } }));
});

authority('what this host does not know it learns from those alone that the record names', () => {
  assert.ok(answered({ name: 'b', mine: null }));
  assert.ok(answered({ name: 'b', mine: null, request: { copy: held(paired) } }));
  const alien = { ...paired, owner: 'x' };
  assert.not(answered({ name: 'c', mine: null, request: { copy: held(alien) } }));
  const gave: RecordCopy = { hold: 'gave', record: solo };
  assert.ok(answered({ name: 'b', mine: null, request: { copy: gave } }), 'it gives it back');
});

authority.run();
