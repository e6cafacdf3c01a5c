/**
 * The control API: HTTP over a unix socket that only its owner may open. One resource, `POST
 * /v1/METHOD`, with a JSON object in and one out; errors are `{error: {code, message}}`.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { httpStatusOf } from './error-map.js';
import { HostError } from './host-error.js';
import { describe } from './vm-process-error.js';

const BODY_BYTES_MAX = 1 << 20;

export type Params = Record<string, unknown>;

export abstract class ControlSocket {
  private readonly server: Server;

  constructor() {
    this.server = createServer((request, response) => void this.serve(request, response));
  }

  protected abstract carryOut(method: string, params: Params): Promise<unknown>;

  /** The state directory must be claimed before: a socket file there is a dead daemon's then. */
  async listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let status = 200;
    let body: unknown;
    try {
      if (request.method !== 'POST') throw new HostError('BAD_REQUEST', 'POST, nothing else');
      const params = await readBody(request);
      body = await this.carryOut((request.url ?? '').replace('/v1/', ''), params);
    } catch (error) {
      const told = describe(error);
      status = httpStatusOf(told.code);
      body = { error: told };
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? {}));
  }
}

export function text(params: Params, key: string): string {
  const value = params[key];
  if (typeof value !== 'string') throw new HostError('BAD_REQUEST', `${key} is missing`);
  return value;
}

async function readBody(request: IncomingMessage): Promise<Params> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new HostError('BAD_REQUEST', 'request too large');
    chunks.push(chunk);
  }
  if (bytes === 0) return {};
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) as Params;
  } catch (error) {
    throw new HostError('BAD_REQUEST', 'the request is not JSON', { cause: error });
  }
}

export const controlPath = (stateDir: string): string => join(stateDir, 'control.sock');
