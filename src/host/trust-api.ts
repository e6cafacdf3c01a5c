/** What a daemon and a witness can be asked alike: tokens, pairings, certificates. */
import type { TrustKeeper } from '../wire/trust-keeper.js';
import { ControlSocket, text, type Params } from './control-socket.js';
import { HostError } from './host-error.js';

const OF_A_WITNESS = ['token', 'hosts', 'rotate', 'forget'];
const TOKEN_MS = { standard: 600_000, max: 86_400_000 };

export async function answerTrust(
  keeper: TrustKeeper,
  method: string,
  params: Params,
): Promise<unknown> {
  switch (method) {
    case 'token':
      return keeper.pairing.token(tokenMs(params['forMs']));
    case 'join': {
      const { address } = params;
      const { name, kind, addresses } = await keeper.pairing.join(
        ...([typeof address === 'string' ? address : null, text(params, 'token')] as const),
      );
      return { name, kind, address: addresses[0], alarms: keeper.alarms() };
    }
    case 'hosts':
      return { hosts: await keeper.hosts(), alarms: keeper.alarms() };
    case 'rotate':
      return keeper.rotate(params['force'] === true);
    case 'forget':
      keeper.forget(text(params, 'host'));
      return {};
    default:
      throw new HostError('BAD_REQUEST', `unknown method ${method}`);
  }
}

function tokenMs(value: unknown): number {
  if (value === undefined) return TOKEN_MS.standard;
  if (typeof value === 'number' && value > 0 && value <= TOKEN_MS.max) return value;
  throw new HostError('BAD_REQUEST', 'a token is good for a day at most');
}

/** The control socket of a witness: it has nothing else to tell. */
export class WitnessControl extends ControlSocket {
  private readonly keeper: TrustKeeper;

  constructor(keeper: TrustKeeper) {
    super();
    this.keeper = keeper;
  }

  protected carryOut(method: string, params: Params): Promise<unknown> {
    if (method === 'join')
      throw new HostError('REFUSED', 'a witness joins nobody: run mirror token here, join there');
    if (!OF_A_WITNESS.includes(method))
      throw new HostError('BAD_REQUEST', 'this is a witness: it runs no VMs, ask a host');
    return answerTrust(this.keeper, method, params);
  }
}
