/** Asks a daemon over its control socket. */
import { request } from 'node:http';
import { MirrorError } from '../core/errors.js';

const ANSWER_MS_MAX = 30_000;

export class ControlError extends MirrorError {}

export class ControlClient {
  readonly socketPath: string;

  constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  call<T>(method: string, params: Record<string, unknown> = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const asked = request(
        {
          socketPath: this.socketPath,
          path: `/v1/${method}`,
          method: 'POST',
          timeout: ANSWER_MS_MAX,
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => {
            const body = JSON.parse(Buffer.concat(chunks).toString()) as {
              error?: { code: string; message: string };
            };
            if (body.error) reject(new ControlError(body.error.code, body.error.message));
            else resolve(body as T);
          });
        },
      );
      asked.on('timeout', () =>
        asked.destroy(new ControlError('TIMEOUT', 'the daemon did not answer in time')),
      );
      asked.on('error', (error) => {
        if (error instanceof ControlError) return reject(error);
        const text = `no daemon answers at ${this.socketPath}: start one with mirror host`;
        reject(new ControlError('NO_DAEMON', text, { cause: error }));
      });
      asked.end(JSON.stringify(params));
    });
  }

  vm<T>(vm: string, method: string, params: Record<string, unknown> = {}): Promise<T> {
    return this.call('vm', { ...params, vm, method });
  }
}
