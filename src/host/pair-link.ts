/**
 * What the daemons of two hosts ask each other about a record: one line of JSON each way, inside
 * TLS unless neither is paired.
 */
import { connect, type Socket } from 'node:net';
import type { PairAnswer, PairRequest } from '../core/pair-record.js';
import { parseAddress } from '../wire/address.js';
import { dialPinned } from '../wire/dial.js';
import { answerLine, askLine, readLine, RefusalError, type Line } from '../wire/line-exchange.js';
import { encodePreamble, preambleOf } from '../wire/preamble.js';
import type { Security } from '../wire/security.js';
import type { Peer } from '../wire/trust-store.js';
import { parseProposal, parseReply } from '../pool/witness-protocol.js';
import { HostError } from './host-error.js';
import { parseCopy } from './pair-store.js';
import { monotonicMs } from './vm-driver.js';

const HOST_CHARS_MAX = 256;
const LAST_WORDS_MS_MAX = 1_000;

/** One question to the other host. */
export interface PairCall {
  readonly address: string;
  readonly vmUuid: string;
  readonly request: PairRequest;
  readonly deadlineMs: number;
}

/**
 * `null` if that host's daemon does not answer: what it did is not known then. One that refuses is
 * there, which must never be taken for gone: throws what it refused with.
 */
export async function askPair(security: Security, call: PairCall): Promise<PairAnswer | null> {
  try {
    const route = security.routeTo(call.address);
    const asked = route === 'plain' ? askPlainly(call) : askSecurely(security, route, call);
    const { copy, reply } = await asked;
    return { copy: parseCopy(copy), reply: parseReply(reply) };
  } catch (error) {
    if (error instanceof RefusalError) throw error;
    return null;
  }
}

function askPlainly({ address, vmUuid, request, deadlineMs }: PairCall): Promise<Line> {
  const socket = connect(parseAddress(address));
  socket.on('error', () => {});
  socket.write(encodePreamble({ ...preambleOf('control'), vmUuid, role: 'owner' }));
  return askLine(socket, request, deadlineMs);
}

async function askSecurely(security: Security, peer: Peer, call: PairCall): Promise<Line> {
  const { address, vmUuid, request, deadlineMs } = call;
  const startedAtMs = monotonicMs();
  const dial = { address, preamble: preambleOf('control'), deadlineMs: deadlineMs / 2 };
  const { socket } = await dialPinned(security, peer, { ...dial, handshakeMs: deadlineMs });
  const leftMs = deadlineMs - (monotonicMs() - startedAtMs);
  return askLine(socket, { op: 'pair', vmUuid, ...request }, Math.max(leftMs, deadlineMs / 4));
}

/** Answers the one question of a plain connection. */
export async function answerPair(
  socket: Socket,
  deadlineMs: number,
  serve: (request: PairRequest) => Promise<PairAnswer>,
): Promise<void> {
  const line = readLine(socket, deadlineMs);
  socket.resume();
  const request = parseRequest(await line);
  answerLine(socket, await serve(request), LAST_WORDS_MS_MAX);
}

export function parseRequest({ host, copy, change }: Line): PairRequest {
  if (typeof host !== 'string' || host.length > HOST_CHARS_MAX)
    throw new HostError('BAD_LINE', 'a request for a record with a bad host');
  if (change === null) return { host, copy: parseCopy(copy), change };
  const { expectRevision, proposal } = (change ?? {}) as Record<string, unknown>;
  if (!Number.isSafeInteger(expectRevision))
    throw new HostError('BAD_LINE', 'a request for a record with a bad revision');
  const wish = { expectRevision: Number(expectRevision), proposal: parseProposal(proposal) };
  return { host, copy: parseCopy(copy), change: wish };
}
