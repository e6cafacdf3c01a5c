/**
 * Bugs planted into a copy of the compiled core, each a mutation of one place. The simulator must
 * catch every one of them: a simulator that finds nothing proves nothing.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { CoreFactory } from './world.js';

const CORE = fileURLToPath(new URL('../../src/core/', import.meta.url));

export interface PlantedBug {
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'output is released when captured, before any ack',
    file: 'primary.js',
    find: 'this.flight.captured(event.epoch, this.nowMs);',
    replace:
      "this.flight.captured(event.epoch, this.nowMs); if (this.phase === 'paired') " +
      "this.emit({ type: 'gate-release', epoch: event.epoch });",
  },
  {
    name: 'the gate opens when the peer is lost, before the CAS for solo is won',
    file: 'primary.js',
    find: "this.become('leaving');\n        if (this.config.onPeerLoss",
    replace:
      "this.become('leaving'); this.emit({ type: 'gate-open' });\n" +
      '        if (this.config.onPeerLoss',
  },
  {
    name: 'a takeover without the CAS',
    file: 'secondary.js',
    find: 'this.emit(...this.arbiter.propose(soloProposal(this.config, record), record.revision));',
    replace: 'this.promote({ ...record, owner: this.config.host });',
  },
  {
    name: 'an ack before the epoch is verified',
    file: 'secondary.js',
    find: 'if (!ok || this.phase',
    replace: 'if (this.phase',
  },
  {
    name: 'the pair rests on a capture made before the gate closed',
    file: 'primary.js',
    find: "this.emit({ type: 'gate-close' });\n            this.capture(true, false);",
    replace: 'this.capture(true, false);',
  },
  {
    name: 'a superseded owner runs on with its gate open',
    file: 'primary.js',
    find:
      "this.emit({ type: 'gate-close' }, { type: 'kill-machine' });\n" +
      "        this.end('superseded');",
    replace: 'this.alone();',
  },
];

/** The core with one bug in it; `dispose` removes the copy. */
export async function plant(bug: PlantedBug): Promise<{ make: CoreFactory; dispose(): void }> {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-planted-'));
  cpSync(CORE, dir, { recursive: true });
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  const path = join(dir, bug.file);
  const pieces = readFileSync(path, 'utf8').split(bug.find);
  if (pieces.length !== 2)
    throw new Error(`${bug.name}: its place was found ${pieces.length - 1} times, not once`);
  writeFileSync(path, pieces.join(bug.replace));
  const make = (await import(pathToFileURL(join(dir, 'member.js')).href)) as CoreFactory;
  return { make, dispose: () => rmSync(dir, { recursive: true, force: true }) };
}
