/**
 * An existing etcd cluster as the arbiter, through the JSON gateway of its v3 API. A record is the
 * value of one key, changed only by transactions that compare the key's *version*: etcd counts it
 * from 1 at every change, as we count revisions, so the two are equal for as long as nobody else
 * writes the key. A second key holds the generation, so that the same transaction can see to it
 * that it rises. No lease takes part.
 *
 * Source: etcd 3.4, Documentation/dev-guide/api_grpc_gateway.md and rpc.proto.
 */
import {
  request as httpRequest,
  Agent,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { Agent as TlsAgent, request as httpsRequest } from 'node:https';
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal, VmRecord } from '../core/record.js';
import type { ArbiterOptions } from './arbiter.js';
import { parseRecord } from './witness-protocol.js';

const KEY_PREFIX = 'mirror/vms/';
const ANSWER_BYTES_MAX = 256 << 10;
const WAITING_MAX = 64;

interface KeyValue {
  readonly value?: string;
  readonly version?: string;
}

interface RangeAnswer {
  readonly kvs?: readonly KeyValue[];
}

interface TxnAnswer {
  readonly succeeded?: boolean;
  readonly responses?: readonly { readonly response_range?: RangeAnswer }[];
}

export class EtcdArbiter {
  private readonly endpoints: readonly string[];
  private readonly options: ArbiterOptions;
  private readonly agents = {
    'http:': new Agent({ keepAlive: true }),
    'https:': new TlsAgent({ keepAlive: true }),
  };
  /** The endpoint that answered last is asked first. */
  private preferred = 0;
  private waiting = 0;
  private closed = false;

  constructor(endpoints: readonly string[], options: ArbiterOptions) {
    this.endpoints = endpoints;
    this.options = options;
  }

  async read(vmUuid: string): Promise<ArbiterReply> {
    const answer = await this.ask<RangeAnswer>('/v3/kv/range', { key: keyOf(vmUuid) });
    return answer ? this.reply(vmUuid, 'ok', answer) : { outcome: 'unknown' };
  }

  async cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    const key = keyOf(vmUuid);
    const [generationKey, generation] = [
      base64(`${KEY_PREFIX}${vmUuid}/generation`),
      padded(proposal),
    ];
    const record: VmRecord = { ...proposal, revision: expectRevision + 1 };
    const value = base64(JSON.stringify(record));
    const version = { key, target: 'VERSION', result: 'EQUAL', version: String(expectRevision) };
    const rises = { key: generationKey, target: 'VALUE', result: 'LESS', value: generation };
    const answer = await this.ask<TxnAnswer>('/v3/kv/txn', {
      // The first record has none to rise above: a key that is not there compares with nothing.
      compare: expectRevision === 0 ? [version] : [version, rises],
      success: [
        { request_put: { key, value } },
        { request_put: { key: generationKey, value: generation } },
      ],
      failure: [{ request_range: { key } }],
    });
    if (!answer) return { outcome: 'unknown' };
    if (answer.succeeded === true) return { outcome: 'ok', record };
    const range = answer.responses?.[0]?.response_range;
    return range ? this.reply(vmUuid, 'conflict', range) : { outcome: 'unknown' };
  }

  close(): void {
    this.closed = true;
    for (const agent of Object.values(this.agents)) agent.destroy();
  }

  private reply(vmUuid: string, outcome: 'ok' | 'conflict', answer: RangeAnswer): ArbiterReply {
    const [found] = answer.kvs ?? [];
    if (!found) return { outcome, record: null };
    try {
      const record = parseRecord(Buffer.from(found.value ?? '', 'base64').toString());
      const sound = record.vmUuid === vmUuid && String(record.revision) === found.version;
      if (!sound) throw new MirrorError('BAD_RECORD', 'somebody else wrote it');
      return { outcome, record };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.options.onFault?.(`etcd key ${KEY_PREFIX}${vmUuid} is damaged and not used: ${why}`);
      return { outcome: 'unknown' };
    }
  }

  /**
   * One answer from any member, or `null`. A transaction that is sent to a second member may have
   * been carried out by the first: then the second shows our own record as what stands.
   */
  private async ask<T>(path: string, body: object): Promise<T | null> {
    if (this.closed || this.waiting >= WAITING_MAX) return null;
    this.waiting += 1;
    const endAt = performance.now() + this.options.deadlineMs;
    try {
      for (let tried = 0; tried < this.endpoints.length; tried += 1) {
        const leftMs = endAt - performance.now();
        if (leftMs <= 0 || this.closed) return null;
        const shareMs = leftMs / Math.min(2, this.endpoints.length - tried);
        const index = (this.preferred + tried) % this.endpoints.length;
        const answer = await this.post<T>(this.endpoints[index], path, body, shareMs);
        if (answer === null) continue;
        this.preferred = index;
        return answer;
      }
      return null;
    } finally {
      this.waiting -= 1;
    }
  }

  private post<T>(endpoint: string, path: string, body: object, ms: number): Promise<T | null> {
    const url = new URL(path, endpoint);
    const secure = url.protocol === 'https:';
    const options: RequestOptions = {
      method: 'POST',
      agent: this.agents[secure ? 'https:' : 'http:'],
      headers: { 'content-type': 'application/json' },
    };
    return new Promise((resolve) => {
      const asked = (secure ? httpsRequest : httpRequest)(url, options, (response) => {
        collect(response).then(
          (text) => finish(response.statusCode === 200 ? (parsed(text) as T | null) : null),
          () => finish(null),
        );
      });
      const finish = (answer: T | null): void => {
        clearTimeout(timer);
        resolve(answer);
        if (answer === null) asked.destroy();
      };
      const timer = setTimeout(() => finish(null), ms);
      asked.on('error', () => finish(null));
      asked.end(JSON.stringify(body));
    });
  }
}

async function collect(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error('an answer longer than allowed');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const keyOf = (vmUuid: string): string => base64(`${KEY_PREFIX}${vmUuid}`);
const padded = ({ generation }: Proposal): string => base64(String(generation).padStart(16, '0'));
