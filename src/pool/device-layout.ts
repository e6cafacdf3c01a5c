/**
 * What is where on a device that is an arbiter: a header, the claims of the hosts, and a place for
 * each VM, with a slot for each lane of each host. Made once by a person, and never changed.
 *
 *     header | claims: 2 blocks a host | places: slots: 2 copies
 */
import { createHash, randomUUID } from 'node:crypto';
import * as v from 'valibot';
import { MirrorError } from '../core/errors.js';
import { COPY_BYTES } from './slot.js';

const MAGIC = 'mirror-arbiter-device';
/** Processes of one host that can be at work on the device at once. */
const LANES = 4;
export const HOSTS = { standard: 8, max: 32 } as const;
export const PLACES = { standard: 64, max: 4096 } as const;

const shape = v.strictObject({
  magic: v.literal(MAGIC),
  version: v.literal(1),
  id: v.pipe(v.string(), v.uuid()),
  hosts: v.pipe(v.number(), v.integer(), v.minValue(2), v.maxValue(HOSTS.max)),
  lanes: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LANES)),
  places: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(PLACES.max)),
});

export class DeviceLayout {
  readonly id: string;
  readonly hosts: number;
  readonly lanes: number;
  /** How many VMs there is room for. */
  readonly places: number;

  private constructor({ id, hosts, lanes, places }: Omit<v.InferOutput<typeof shape>, 'magic'>) {
    this.id = id;
    this.hosts = hosts;
    this.lanes = lanes;
    this.places = places;
  }

  static make(hosts: number, places: number): DeviceLayout {
    return new DeviceLayout({ version: 1, id: randomUUID(), hosts, lanes: LANES, places });
  }

  /** `null` for what is no header. */
  static decode(bytes: Buffer): DeviceLayout | null {
    const [json = '', sum] = bytes.toString('latin1').split('\n');
    if (sum !== digest(json)) return null;
    const { success, output } = v.safeParse(shape, JSON.parse(json));
    if (success) return new DeviceLayout(output);
    throw new MirrorError(
      'BAD_STATE',
      'the arbiter on this device was made by another version: nothing was done',
    );
  }

  encode(): Buffer {
    const { id, hosts, lanes, places } = this;
    const json = JSON.stringify({ magic: MAGIC, version: 1, id, hosts, lanes, places });
    const bytes = Buffer.alloc(COPY_BYTES);
    bytes.write(`${json}\n${digest(json)}\n`, 'latin1');
    return bytes;
  }

  get slotCount(): number {
    return this.hosts * this.lanes;
  }

  get placeBytes(): number {
    return this.slotCount * 2 * COPY_BYTES;
  }

  get bytes(): number {
    return this.placeOffset(this.places);
  }

  /** The two blocks by which a host claims its slots. */
  claimOffset(host: number): number {
    return COPY_BYTES + host * 2 * COPY_BYTES;
  }

  placeOffset(place: number): number {
    return this.claimOffset(this.hosts) + place * this.placeBytes;
  }

  /** What the checksums of a slot name. */
  whereOf(place: number, slot: number): string {
    return `${this.id}/${place}/${slot}`;
  }

  /** The order in which the place of a VM is looked for: the same for everybody. */
  *placesFor(vmUuid: string): Generator<number> {
    const start = createHash('sha256').update(vmUuid).digest().readUInt32LE(0) % this.places;
    for (let step = 0; step < this.places; step += 1) yield (start + step) % this.places;
  }
}

/** As many VMs as fit, up to `placesMax`; 0 if not even one does. */
export function placesThatFit(bytes: number, hosts: number, placesMax: number): number {
  const one = DeviceLayout.make(hosts, 1);
  const left = bytes - one.placeOffset(0);
  return Math.max(0, Math.min(placesMax, Math.floor(left / one.placeBytes)));
}

const digest = (json: string): string => createHash('sha256').update(json).digest('hex');
