/** The disks in a VM's file. */
import * as v from 'valibot';
import type { ImageFormat } from '../disk/image-file.js';
import { size } from './sizes.js';
import type { Fault } from './yaml-file.js';

/** As many as IDE takes, whatever their models turn out to be. */
const DISKS_MAX = 4;

const text = v.pipe(v.string('must be a file'), v.minLength(1, 'must be a file'));

const disk = v.strictObject({
  id: v.pipe(
    v.string('must be an id'),
    v.regex(/^[a-z0-9-]{1,20}$/, 'is not a disk id: a-z, 0-9 and -, at most 20'),
  ),
  file: text,
  shared: v.optional(v.never('is not there yet: give a file')),
  size: v.optional(v.nullable(size), null),
  format: v.optional(v.nullable(v.picklist(['raw', 'qcow2'], 'must be raw or qcow2')), null),
  model: v.optional(v.picklist(['auto', 'virtio', 'ide'], 'must be auto, virtio or ide'), 'auto'),
  readonly: v.optional(v.boolean('must be true or false'), false),
});

export const disksSchema = v.optional(
  v.pipe(v.array(disk, 'must be a list'), v.maxLength(DISKS_MAX, `at most ${DISKS_MAX}`)),
  [],
);

export interface DiskConfig {
  readonly id: string;
  readonly file: string;
  /** `null` until the file has been looked at, as for `format`: then they do not change. */
  readonly bytes: number | null;
  readonly format: ImageFormat | null;
  readonly model: 'auto' | 'virtio' | 'ide';
  readonly readOnly: boolean;
}

type WrittenDisk = v.InferOutput<typeof disk>;

export const toDiskConfig = (
  { id, size: bytes, format, model, readonly: readOnly }: WrittenDisk,
  file: string,
): DiskConfig => ({ id, file, bytes, format, model, readOnly });

interface WrittenBoot {
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly cmdline: string;
  readonly disk: string | null;
}

/** What does not fit together, whatever the engine. */
export function diskFaults(boot: WrittenBoot, disks: readonly WrittenDisk[]): Fault[] {
  const faults: Fault[] = bootFaults(boot, disks);
  disks.forEach(({ id, file, model, readonly: readOnly }, index) => {
    const earlier = disks.slice(0, index);
    const add = (key: string, text: string): void =>
      void faults.push({ keys: ['disks', index, key], text });
    if (earlier.some((other) => other.id === id)) add('id', 'another disk has it');
    if (earlier.some((other) => other.file === file)) add('file', 'another disk has it');
    if (readOnly && model === 'ide') add('model', 'must be virtio or auto: IDE has no readonly');
  });
  return faults;
}

function bootFaults(boot: WrittenBoot, disks: readonly WrittenDisk[]): Fault[] {
  const { kernel, initrd, cmdline, disk } = boot;
  if (kernel === null && disk === null)
    return [{ keys: ['boot'], text: 'must name a kernel, or a disk to boot from' }];
  if (disk === null) return [];
  const faults: Fault[] = [];
  const add = (key: string, text: string): void => void faults.push({ keys: ['boot', key], text });
  if (kernel !== null) add('disk', 'cannot go with a kernel: leave out one of them');
  else if (initrd !== null) add('initrd', 'needs a kernel');
  else if (cmdline !== '') add('cmdline', 'needs a kernel');
  if (!disks.some(({ id }) => id === disk)) add('disk', `no disk has the id ${disk}`);
  return faults;
}
