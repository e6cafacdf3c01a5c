/** What the daemons of two hosts ask each other about a record: one line of JSON each way. */
import { connect, type Socket } from 'node:net';
import type { PairAnswer, PairRequest } from '../core/pair-record.js';
import { parseAddress } from '../wire/address.js';
import { encodePreamble } from '../wire/preamble.js';
import { LineReader, parseProposal, parseReply } from '../pool/witness-protocol.js';
import { HostError } from './host-error.js';
import { parseCopy } from './pair-store.js';

const HOST_CHARS_MAX = 256;

/** Resolves to the first line; rejects if none comes in time. */
function firstLine(socket: Socket, deadlineMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new LineReader();
    const finish = (line: string | null): void => {
      clearTimeout(timer);
      if (line === null) reject(new HostError('LINK_CLOSED', 'no line came in time'));
      else resolve(line);
    };
    const timer = setTimeout(() => finish(null), deadlineMs);
    socket.setEncoding('utf8');
    socket.on('error', () => finish(null));
    socket.on('close', () => finish(null));
    socket.on('data', (chunk: string) => {
      try {
        const [line] = reader.feed(chunk);
        if (line !== undefined) finish(line);
      } catch {
        finish(null);
      }
    });
    socket.resume();
  });
}

/** `null` if that host's daemon does not answer: what it did is not known then. */
export async function askPair(
  address: string,
  vmUuid: string,
  request: PairRequest,
  deadlineMs: number,
): Promise<PairAnswer | null> {
  const socket = connect(parseAddress(address));
  const preamble = { kind: 'control', vmUuid, vmName: '', role: 'owner' } as const;
  socket.write(encodePreamble({ versions: [1], ...preamble }));
  socket.write(`${JSON.stringify(request)}\n`);
  try {
    const { copy, reply } = JSON.parse(await firstLine(socket, deadlineMs)) as PairAnswer;
    return { copy: parseCopy(copy), reply: parseReply(reply) };
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

/** Answers the one question of a connection. */
export async function answerPair(
  socket: Socket,
  deadlineMs: number,
  serve: (request: PairRequest) => Promise<PairAnswer>,
): Promise<void> {
  const request = parseRequest(JSON.parse(await firstLine(socket, deadlineMs)));
  socket.end(`${JSON.stringify(await serve(request))}\n`);
}

function parseRequest(value: unknown): PairRequest {
  const { host, copy, change } = value as Record<string, unknown>;
  if (typeof host !== 'string' || host.length > HOST_CHARS_MAX)
    throw new HostError('BAD_LINE', 'a request for a record with a bad host');
  if (change === null) return { host, copy: parseCopy(copy), change };
  const { expectRevision, proposal } = change as Record<string, unknown>;
  if (!Number.isSafeInteger(expectRevision))
    throw new HostError('BAD_LINE', 'a request for a record with a bad revision');
  const wish = { expectRevision: Number(expectRevision), proposal: parseProposal(proposal) };
  return { host, copy: parseCopy(copy), change: wish };
}
