/** A witness in this process that hosts are paired with. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WitnessClient } from '../../src/pool/witness-client.js';
import { WitnessServer } from '../../src/pool/witness-server.js';
import type { TrustKeeper } from '../../src/wire/trust-keeper.js';
import type { Security } from '../../src/wire/security.js';

export class TrustedWitness {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-witness-'));
  readonly said: string[] = [];
  readonly server = new WitnessServer({
    ...{ name: 'witness', stateDir: this.dir, advertise: null, insecure: false },
    say: (text) => void this.said.push(text),
  });
  address = '';

  static async start(): Promise<TrustedWitness> {
    const witness = new TrustedWitness();
    witness.address = `127.0.0.1:${await witness.server.listen('127.0.0.1', 0)}`;
    return witness;
  }

  /** `host` runs `mirror join` with a token of the witness. */
  async admit(host: TrustKeeper): Promise<void> {
    await host.pairing.join(null, this.server.keeper.pairing.token(60_000).token);
  }

  connect(security?: Security, onFault?: (text: string) => void): WitnessClient {
    return new WitnessClient(this.address, { deadlineMs: 2_000, security, onFault });
  }

  async close(): Promise<void> {
    await this.server.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
