/** The memory that a VM needs on a host, against what the host says that it has. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  memoryNeed,
  memoryRoom,
  requireRoom,
  usedBytes,
  type FileReader,
} from '../../src/host/memory-room.js';
import { MIB } from '../../src/host/sizes.js';

const rooms = suite('memory room');

const filesOf =
  (files: Record<string, string>): FileReader =>
  (path) =>
    files[path] ?? null;

const MEMINFO = `MemTotal:       16000000 kB\nMemAvailable:    ${1024 * 1024} kB\n`;
const NOTHING = filesOf({});
const NEED = memoryNeed({ memoryBytes: 256 * MIB, engine: 'qemu' }, true);

rooms('a VM needs its memory, a copy to compare with, and one of what its standby holds', () => {
  const times = (engine: 'v86' | 'qemu', mirrored: boolean): number =>
    memoryNeed({ memoryBytes: 256 * MIB, engine }, mirrored).times;
  assert.equal([times('v86', false), times('v86', true)], [1, 2]);
  assert.equal([times('qemu', false), times('qemu', true)], [2, 3]);
  assert.is(NEED.bytes, (3 * 256 + 192) * MIB);
});

rooms('what the system has left, less what VMs here may still take', () => {
  const read = filesOf({ '/proc/meminfo': MEMINFO });
  assert.is(memoryRoom(null, [], read)?.bytes, 1024 * MIB);
  const others = [
    { bytes: 300 * MIB, usedBytes: 100 * MIB },
    { bytes: 100 * MIB, usedBytes: 150 * MIB },
  ];
  assert.is(memoryRoom(null, others, read)?.bytes, 824 * MIB);
  const full = memoryRoom(null, [{ bytes: 4096 * MIB, usedBytes: 0 }], read);
  assert.is(full?.bytes, 0);
  assert.is(memoryRoom(null, others, NOTHING), null, 'nobody knows');
});

rooms('what the host is told that its VMs may take, less what they were promised', () => {
  const others = [{ bytes: 300 * MIB, usedBytes: 200 * MIB }];
  const room = memoryRoom(512 * MIB, others, filesOf({ '/proc/meminfo': MEMINFO }));
  assert.is(room?.bytes, 212 * MIB);
  assert.match(room?.source ?? '', '--memory 512 MiB, less 300 MiB');
  assert.is(memoryRoom(512 * MIB, others, NOTHING)?.bytes, 212 * MIB);
});

rooms('the limit of the cgroup, or of one above it, less what cannot be given back', () => {
  const files: Record<string, string> = {
    '/proc/meminfo': MEMINFO,
    '/proc/self/cgroup': '4:memory:/v1\n0::/system.slice/mirror.service\n',
    '/sys/fs/cgroup/system.slice/mirror.service/memory.max': 'max\n',
    '/sys/fs/cgroup/system.slice/mirror.service/memory.current': `${MIB}\n`,
    '/sys/fs/cgroup/system.slice/memory.max': `${700 * MIB}\n`,
    '/sys/fs/cgroup/system.slice/memory.current': `${300 * MIB}\n`,
    '/sys/fs/cgroup/system.slice/memory.stat': `anon 5\ninactive_file ${100 * MIB}\n`,
  };
  const room = memoryRoom(null, [], filesOf(files));
  assert.is(room?.bytes, 500 * MIB);
  assert.match(room?.source ?? '', 'cgroup /system.slice leaves 500 MiB');
  delete files['/sys/fs/cgroup/system.slice/memory.max'];
  assert.is(memoryRoom(null, [], filesOf(files))?.bytes, 1024 * MIB);
});

rooms('a refusal names the host, the figures, and what to do', () => {
  const who = { host: 'b', vm: 'web' };
  requireRoom(who, NEED, null, '');
  requireRoom(who, NEED, { bytes: NEED.bytes, source: '' }, '');
  try {
    requireRoom(who, NEED, { bytes: NEED.bytes - 1, source: 'SOURCE' }, 'Nothing was started');
    assert.unreachable();
  } catch (error) {
    assert.is((error as { code?: string }).code, 'NO_ROOM');
    const { message } = error as Error;
    const parts = ['host b', 'web', '960 MiB', '3 times its 256 MiB', 'SOURCE', 'stop another'];
    for (const part of parts) assert.match(message, part);
    assert.match(message, 'Nothing was started');
  }
});

rooms('a process counts with its children', () => {
  const read = filesOf({
    '/proc/7/smaps_rollup': 'Rss: 900 kB\nPss:   100 kB\n',
    '/proc/7/task/7/children': '8 9 ',
    '/proc/8/smaps_rollup': 'Pss:   20 kB\n',
  });
  assert.is(usedBytes(7, read), 120 * 1024);
  assert.ok(usedBytes(process.pid) > 10 * MIB, 'this very process');
});

rooms.run();
