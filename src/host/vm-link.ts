/**
 * One connection between the two VM processes of a pair: before the core hears of it, the owner
 * offers the VM's description and the standby fetches the boot files that it lacks.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PeerMessage } from '../core/messages.js';
import type { InputState } from '../gate/serial-input.js';
import type { FrameCodec } from '../wire/frame.js';
import { Session } from '../wire/session.js';
import { TEXT_MAX } from '../wire/shapes.js';
import type { VmMessage } from '../wire/vm-messages.js';
import { FileStore, sha256 } from './file-store.js';
import { monotonicMs } from './vm-driver.js';
import { VmProcessError } from './vm-process-error.js';

const SEND_BYTES_MAX = 96 << 20;
const FILE_PART_BYTES = 256 << 10;
const FILES_QUEUED_BYTES_MAX = 8 << 20;
const FILES_REST_MS = 2;
const FILE_BYTES_MAX = 256 << 20;
const OFFER_DEADLINE_MS = 5_000;
const RELAYS_MAX = 16;

/** What the standby needs to make the same machine. */
export interface VmOffer {
  readonly specJson: string;
  /** Address at which the sender's host can be reached. */
  readonly address: string;
  readonly files: readonly { name: string; sha256: string; bytes: number }[];
}

export interface LinkListener {
  message(message: PeerMessage, payload: Uint8Array): void;
  /** The peer relays serial input; `null` if there is no VM to take it. */
  serialIn(offset: number, bytes: Uint8Array): InputState | null;
  down(): void;
}

const PEER_TYPES = new Set<VmMessage['type']>([
  'hello',
  'welcome',
  'refuse',
  'epoch-part',
  'ack',
  'nack',
  'heartbeat',
  'paired-hint',
  'handover',
  'release',
]);

const isPeerMessage = (message: VmMessage): message is PeerMessage => PEER_TYPES.has(message.type);

export class VmLink {
  listener: LinkListener | null = null;
  /** Told what an operator should hear of. */
  onFault: ((code: string, text: string) => void) | null = null;
  lastHeardMs = monotonicMs();
  private readonly session: Session;
  private readonly peer: string | null;
  private negotiation: ((message: VmMessage, payload: Uint8Array) => void) | null = null;
  private negotiationGoesOn: (() => void) | null = null;
  private negotiationFailed: ((error: Error) => void) | null = null;
  private down = false;
  private relays: { resolve(state: InputState): void; timer: NodeJS.Timeout }[] = [];

  /** `peer`: the host that has proven to be at the other end; `null`: it was not asked to. */
  constructor(socket: Socket, codec: FrameCodec, peer: string | null = null) {
    this.peer = peer;
    this.session = new Session(socket, codec, { sendBytesMax: SEND_BYTES_MAX });
    this.session.onMessage = (message, payload) => {
      this.lastHeardMs = monotonicMs();
      if (this.speaksForAnother(message)) this.session.close();
      else if (this.negotiation) this.negotiation(message, payload);
      else if (isPeerMessage(message)) this.listener?.message(message, payload);
      else this.serial(message, payload);
    };
    this.session.onClose = (reason) => this.closed(reason);
    this.session.start();
  }

  private speaksForAnother(message: VmMessage): boolean {
    if (this.peer === null || !('host' in message) || message.host === this.peer) return false;
    this.onFault?.('NOT_YOURS', `host ${this.peer} says that it is ${message.host}: hung up on it`);
    return true;
  }

  send(message: PeerMessage, payload?: Uint8Array): void {
    if (!this.down) this.session.send(message, payload);
  }

  /** Standby: hands serial input to the owner; settles with what became of it. */
  relayInput(offset: number, bytes: Uint8Array, deadlineMs: number): Promise<InputState> {
    return new Promise((resolve, reject) => {
      if (this.down || this.relays.length >= RELAYS_MAX)
        return reject(new VmProcessError('NOT_OWNER', 'the owner of the VM is not in reach'));
      const timer = setTimeout(() => {
        this.relays = this.relays.filter((relay) => relay.timer !== timer);
        reject(new VmProcessError('NOT_OWNER', 'the owner of the VM did not answer'));
      }, deadlineMs);
      this.relays.push({ resolve, timer });
      this.session.send({ type: 'serial-in', offset }, bytes);
    });
  }

  private serial(message: VmMessage, payload: Uint8Array): void {
    if (message.type === 'serial-in') {
      const state = this.listener?.serialIn(message.offset, payload);
      if (state) this.session.send({ type: 'serial-in-state', ...state });
    } else if (message.type === 'serial-in-state') {
      const relay = this.relays.shift();
      if (!relay) return;
      clearTimeout(relay.timer);
      relay.resolve({ applied: message.applied, acked: message.acked });
    }
  }

  get queuedBytes(): number {
    return this.session.queuedBytes;
  }

  close(): void {
    this.session.close();
  }

  /** Owner: describes the VM and sends the files that the standby asks for. */
  offer(offer: VmOffer, files: readonly Uint8Array[]): Promise<void> {
    const byDigest = new Map(files.map((bytes) => [sha256(bytes), bytes]));
    return this.negotiate(
      'the standby to accept the VM',
      (message, _payload, done, fail) => {
        if (message.type === 'offer-ok') done();
        else if (message.type === 'offer-refused')
          fail(new VmProcessError('OFFER_REFUSED', `the peer cannot stand by: ${message.reason}`));
        else if (message.type === 'need-files')
          this.sendFiles(message.sha256, byDigest).catch(fail);
      },
      () => {
        this.session.send({ type: 'offer', ...offer, files: [...offer.files] });
      },
    );
  }

  /** Standby: waits for the offer, fetches missing files into `store`, and accepts. */
  async accept(store: FileStore): Promise<VmOffer> {
    let received: VmOffer | null = null;
    const incoming = new Map<string, Uint8Array[]>();
    await this.negotiate('the offer of a VM', (message, payload, done, fail) => {
      if (message.type === 'offer') {
        received = message;
        this.askForMissing(message, store).then((missing) => missing === 0 && done(), fail);
      } else if (message.type === 'file-part' && received) {
        this.keepFilePart(received, message, payload, incoming, store).then(
          (missing) => missing === 0 && done(),
          fail,
        );
      }
    });
    if (received === null) throw new VmProcessError('BAD_OFFER', 'no offer came');
    return received;
  }

  /** Standby: tells the owner that the machine is made and pages may come. */
  accepted(): void {
    this.session.send({ type: 'offer-ok' });
  }

  /** Standby: says why not, and hangs up. */
  refuse(reason: string): void {
    if (!this.down) this.session.send({ type: 'offer-refused', reason: reason.slice(0, TEXT_MAX) });
    this.close();
  }

  private async askForMissing(offer: VmOffer, store: FileStore): Promise<number> {
    const missing: string[] = [];
    for (const file of offer.files) {
      if (file.bytes > FILE_BYTES_MAX)
        throw new VmProcessError('BAD_OFFER', `boot file ${file.name} is larger than allowed`);
      if ((await store.get(file.sha256)) === null) missing.push(file.sha256);
    }
    if (missing.length > 0) this.session.send({ type: 'need-files', sha256: missing });
    return missing.length;
  }

  private async keepFilePart(
    offer: VmOffer,
    part: { sha256: string; last: boolean },
    payload: Uint8Array,
    incoming: Map<string, Uint8Array[]>,
    store: FileStore,
  ): Promise<number> {
    const wanted = offer.files.find((file) => file.sha256 === part.sha256);
    if (!wanted) throw new VmProcessError('BAD_OFFER', 'a file came that was not offered');
    const parts = incoming.get(part.sha256) ?? [];
    incoming.set(part.sha256, parts);
    parts.push(payload.slice());
    const bytes = parts.reduce((sum, kept) => sum + kept.length, 0);
    if (bytes > wanted.bytes) throw new VmProcessError('BAD_OFFER', `${wanted.name} is too long`);
    if (!part.last) return 1;
    const digest = await store.put(Buffer.concat(parts));
    if (digest !== wanted.sha256)
      throw new VmProcessError('BAD_OFFER', `${wanted.name} arrived damaged`);
    return this.stillMissing(offer, store);
  }

  private async stillMissing(offer: VmOffer, store: FileStore): Promise<number> {
    let missing = 0;
    for (const file of offer.files) if ((await store.get(file.sha256)) === null) missing += 1;
    return missing;
  }

  /** No faster than the standby takes them: a boot file may be larger than the send queue. */
  private async sendFiles(
    digests: readonly string[],
    byDigest: Map<string, Uint8Array>,
  ): Promise<void> {
    for (const digest of digests) {
      const bytes = byDigest.get(digest);
      if (!bytes) throw new VmProcessError('BAD_OFFER', 'the standby asked for an unknown file');
      for (let offset = 0; offset < bytes.length; offset += FILE_PART_BYTES) {
        while (!this.down && this.queuedBytes > FILES_QUEUED_BYTES_MAX) await sleep(FILES_REST_MS);
        this.negotiationGoesOn?.();
        const part = bytes.subarray(offset, offset + FILE_PART_BYTES);
        const last = offset + part.length === bytes.length;
        this.session.send({ type: 'file-part', sha256: digest, offset, last }, part);
      }
    }
  }

  private negotiate(
    what: string,
    on: (
      message: VmMessage,
      payload: Uint8Array,
      done: () => void,
      fail: (error: Error) => void,
    ) => void,
    begin: () => void = () => {},
  ): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const finish = (error: Error | null): void => {
        clearTimeout(timer);
        this.negotiation = null;
        this.negotiationGoesOn = null;
        this.negotiationFailed = null;
        if (error) {
          this.close();
          reject(error);
        } else resolve();
      };
      const timer = setTimeout(
        () => finish(new VmProcessError('OFFER_TIMEOUT', `no answer in time: ${what}`)),
        OFFER_DEADLINE_MS,
      );
      this.negotiationGoesOn = () => timer.refresh();
      this.negotiationFailed = finish;
      this.negotiation = (message, payload) => {
        timer.refresh();
        try {
          on(message, payload, () => finish(null), finish);
        } catch (error) {
          finish(error instanceof Error ? error : new Error(String(error)));
        }
      };
      begin();
    });
  }

  private closed(reason: Error | null): void {
    if (this.down) return;
    this.down = true;
    this.negotiationFailed?.(reason ?? new VmProcessError('LINK_CLOSED', 'the peer hung up'));
    this.listener?.down();
  }
}
