/**
 * Who may make this host stand by: a paired host that the record, and not only its own word, names
 * as the owner of that VM, in that incarnation and generation. What it gets is a ticket for one
 * connection, so that nothing is started for anybody else.
 */
import { randomBytes } from 'node:crypto';
import type { ArbiterReply } from '../core/events.js';
import type { Line } from '../wire/line-exchange.js';
import type { Peer } from '../wire/trust-store.js';
import { HostError } from './host-error.js';
import { NAME } from './vm-config.js';

const TICKET_MS = 10_000;
const TICKETS_MAX = 64;
const UUID = /^[0-9a-f-]{36}$/;

export interface Admitted {
  readonly vmName: string;
  readonly vmUuid: string;
  readonly peer: Peer;
}

/** `peer`: who claims the VM, and may be the one that keeps the record. */
export type RecordReader = (vmUuid: string, peer: Peer) => Promise<ArbiterReply>;

export class Admission {
  private readonly read: RecordReader;
  private readonly tickets = new Map<string, Admitted & { readonly untilMs: number }>();

  constructor(read: RecordReader) {
    this.read = read;
  }

  async admit(peer: Peer, request: Line): Promise<string> {
    const { vmName, vmUuid, incarnation, generation } = request;
    if (typeof vmName !== 'string' || !NAME.test(vmName)) throw unclear();
    if (typeof vmUuid !== 'string' || !UUID.test(vmUuid)) throw unclear();
    await this.checkOwner(peer, vmName, vmUuid, { incarnation, generation });
    this.forgetOld();
    if (this.tickets.size >= TICKETS_MAX)
      throw new HostError('BUSY', 'too many standbys are being made');
    const ticket = randomBytes(16).toString('hex');
    this.tickets.set(ticket, { vmName, vmUuid, peer, untilMs: performance.now() + TICKET_MS });
    return ticket;
  }

  /** Counts once. */
  take(ticket: string | undefined): Admitted {
    this.forgetOld();
    const admitted = this.tickets.get(ticket ?? '');
    if (!admitted) throw new HostError('NO_TICKET', 'a VM connection that nobody asked for here');
    this.tickets.delete(ticket ?? '');
    return admitted;
  }

  private async checkOwner(
    peer: Peer,
    vmName: string,
    vmUuid: string,
    claim: { incarnation: unknown; generation: unknown },
  ): Promise<void> {
    const { name: host } = peer;
    const reply = await this.read(vmUuid, peer);
    if (reply.outcome === 'unknown')
      throw new HostError('BUSY', `the arbiter does not tell here who owns ${vmName}`);
    const { record } = reply;
    if (record?.owner !== host || record.vm !== vmName || record.mode === 'stopped') {
      const owner = !record || record.mode === 'stopped' ? 'nobody' : `host ${record.owner}`;
      const text = `host ${host} claims VM ${vmName}, which the record gives to ${owner}`;
      throw new HostError('NOT_YOURS', text);
    }
    const { ownerIncarnation, generation } = record;
    if (ownerIncarnation !== claim.incarnation || generation !== claim.generation)
      throw new HostError(
        'STALE',
        `a process of host ${host} speaks for VM ${vmName} in generation ` +
          `${String(claim.generation)}; the record is of another process, or of generation ` +
          `${generation}`,
      );
  }

  private forgetOld(): void {
    const nowMs = performance.now();
    for (const [ticket, { untilMs }] of this.tickets)
      if (untilMs < nowMs) this.tickets.delete(ticket);
  }
}

const unclear = (): HostError =>
  new HostError('BAD_REQUEST', 'it does not say which VM it is for');
