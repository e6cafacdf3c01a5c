/**
 * Bugs planted into a copy of the compiled core. The simulator must catch every one of them: a
 * simulator that finds nothing proves nothing. Each has a seed and a bias of faults that expose it;
 * a bug that a second defence would mask is planted with that defence removed too.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { changeByClaim } from '../../src/pool/file-claims.js';
import type { DeviceCode } from './device.js';
import type { PairCode } from './pair.js';
import type { Bias } from './faults.js';
import type { RunOptions } from './run.js';
import type { ArbiterKind, CoreFactory } from './world.js';

const SOURCE = fileURLToPath(new URL('../../src/', import.meta.url));
const CLAIMS = '../pool/file-claims.js';
const BALLOTS = '../pool/disk-paxos.js';
const SLOT = '../pool/slot.js';
const PAIR = 'pair-record.js';

/** File (of the core, unless a path says otherwise), what stands there, and what replaces it. */
type Patch = readonly [file: string, find: string, replace: string];

export interface PlantedBug {
  readonly name: string;
  readonly seed: number;
  readonly bias: Bias;
  /** Else it is the seed that chooses. */
  readonly arbiter?: ArbiterKind;
  readonly patches: readonly Patch[];
}

const NO_VERIFYING: Patch = ['secondary.js', 'if (!ok || this.phase', 'if (this.phase'];
const NO_ELIGIBILITY: Patch = [
  'secondary.js',
  'record.peerIncarnation === this.config.incarnation &&\n',
  '',
];

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'output is released when captured, before any ack',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        'this.flight.captured(event.epoch, this.nowMs);',
        "this.flight.captured(event.epoch, this.nowMs); if (this.phase === 'paired') " +
          "this.emit({ type: 'gate-release', epoch: event.epoch });",
      ],
    ],
  },
  {
    name: 'an ack before the epoch is durable',
    seed: 3,
    bias: {},
    patches: [
      [
        'secondary.js',
        'staging.verifying = true;',
        'staging.verifying = true; this.ack(part.generation, part.epoch);',
      ],
      ['secondary.js', '!this.durable || epoch > this.durable.epoch', 'false'],
    ],
  },
  {
    name: 'an epoch whose hash does not match is applied',
    seed: 69,
    bias: { corrupt: 4 },
    patches: [NO_VERIFYING],
  },
  {
    name: 'an incomplete epoch is applied',
    seed: 1,
    bias: {},
    patches: [
      NO_VERIFYING,
      ['secondary.js', 'if (staging.nextPart < staging.partCount)', 'if (false)'],
    ],
  },
  {
    name: 'what is durable goes back to an older epoch',
    seed: 3,
    bias: { double: 4, slow: 4 },
    patches: [
      NO_VERIFYING,
      ['secondary.js', 'if (this.alreadyDurable(part))', 'if (false)'],
      ['secondary.js', 'part.epoch === this.durable.epoch + 1', 'true'],
      ['secondary.js', 'if (this.durable && epoch !== this.durable.epoch + 1)', 'if (false)'],
    ],
  },
  {
    name: 'an ack after the promotion',
    seed: 22,
    bias: { freeze: 3 },
    patches: [
      [
        'primary.js',
        'if (this.watch?.session !== session)\n            return;',
        "if (message.type === 'epoch-part') { this.emit({ type: 'send', session, message: " +
          "{ type: 'ack', generation: message.generation, epoch: message.epoch, " +
          'incarnation: this.config.incarnation } }); }\n' +
          'if (this.watch?.session !== session) return;',
      ],
      [
        'secondary.js',
        "this.become('promoting');\n        if (this.watch)\n" +
          "            this.emit({ type: 'hang-up', session: this.watch.session });",
        "this.become('promoting');",
      ],
    ],
  },
  {
    name: 'a takeover without the CAS',
    seed: 1,
    bias: {},
    patches: [
      [
        'secondary.js',
        'this.emit(...this.arbiter.propose(soloProposal(this.config, record), record.revision));',
        'this.promote({ ...record, owner: this.config.host });',
      ],
    ],
  },
  {
    name: 'the gate opens when the peer is lost, before the CAS for solo is won',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        "this.become('leaving');\n        if (this.stalls",
        "this.become('leaving'); this.emit({ type: 'gate-open' });\n        if (this.stalls",
      ],
    ],
  },
  {
    name: 'a CAS without an answer is taken for won',
    seed: 1,
    bias: {},
    patches: [
      [
        'arbiter-client.js',
        'this.waitToRetry(nowMs);\n        return { effects: [], outcome: { type: ' +
          "'unreachable' } };",
        "if (this.operation.kind === 'cas') { const { proposal, expectRevision } = " +
          'this.operation; return { effects: [], outcome: this.done({ type: ' +
          "'won', record: { ...proposal, revision: expectRevision + 1 } }) }; }\n" +
          "this.waitToRetry(nowMs); return { effects: [], outcome: { type: 'unreachable' } };",
      ],
    ],
  },
  {
    name: 'a lost CAS is repeated on the newer revision',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        'lost(record) {\n        if (record.ownerIncarnation !== this.config.incarnation)\n' +
          '            return this.superseded(record);',
        'lost(record) {',
      ],
    ],
  },
  {
    name: 'a superseded owner runs on with its gate open',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        "this.emit({ type: 'gate-close' }, { type: 'kill-machine' });\n" +
          "        this.end('superseded');",
        'this.alone();',
      ],
    ],
  },
  {
    name: "the owner's incarnation is ignored: any process of that host counts as the owner",
    seed: 22,
    bias: { 'crash-process': 4, freeze: 3 },
    patches: [
      [
        'primary.js',
        'lost(record) {\n        if (record.ownerIncarnation !== this.config.incarnation)',
        'lost(record) {\n        if (record.owner !== this.config.host)',
      ],
    ],
  },
  {
    name: "the peer's incarnation is ignored: a replica that restarted takes over",
    seed: 1,
    bias: { 'crash-process': 4 },
    patches: [
      NO_ELIGIBILITY,
      ['secondary.js', '|| !this.durable?.complete', '|| !this.durable'],
      // Without this the owner never lets a new replica in while the record names the old one.
      [
        'primary.js',
        "if (this.phase === 'paired')\n            return this.leave();\n        this.sync = null;",
        "if (this.phase === 'paired') { this.phase = 'solo'; this.sync = null; return; }\n" +
          '        this.sync = null;',
      ],
    ],
  },
  {
    name: 'a stale generation is accepted from an arbiter that forgot',
    seed: 208,
    bias: { 'arbiter-restore': 20, 'arbiter-wipe': 0 },
    patches: [
      [
        'arbiter-client.js',
        'return (record?.generation ?? 0) < this.note.generationSeen;',
        'return false;',
      ],
      ['arbiter-client.js', 'if (proposal.generation < this.note.generationSeen)', 'if (false)'],
    ],
  },
  {
    name: 'the pair rests on a capture made before the gate closed',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        "this.emit({ type: 'gate-close' });\n            this.capture(true, false);",
        'this.capture(true, false);',
      ],
    ],
  },
  {
    name: 'the gate opens again while the CAS for the pair is unsettled',
    seed: 118,
    bias: { 'crash-process': 3, arbiterSlow: 3 },
    patches: [
      ['primary.js', "if (sync.stage === 'pairing')", 'if (false)'],
      [
        'primary.js',
        'if (!this.sync || !this.watch)\n            throw',
        'if (!this.sync || !this.watch)\nreturn this.goSolo();\nif (false)\nthrow',
      ],
    ],
  },
  {
    name: 'the standby is told that output was released when it was only captured',
    seed: 1,
    bias: {},
    patches: [
      [
        'primary.js',
        'watch.beat(this.nowMs, this.flight.releasedThrough)',
        'watch.beat(this.nowMs, this.flight.epoch)',
      ],
    ],
  },
  {
    name: 'a VM that was stopped is taken over',
    seed: 4,
    bias: { stop: 30, 'power-off': 10 },
    patches: [
      ['proposals.js', "mode: 'stopped',\n        ...NOBODY,", "mode: 'stopped',"],
      ['secondary.js', "return (record?.mode === 'paired' &&", 'return (record &&'],
      // The last word to the standby would end it before it looks.
      [
        'secondary.js',
        'follow(record) {\n        if (!this.ownedBySender(record))\n            ' +
          "return this.end('released');",
        'follow(record) {',
      ],
      ['secondary.js', "const unpaired = this.record?.mode === 'paired'", 'const unpaired = false'],
    ],
  },
  {
    name: 'a cold boot although the peer may hold an image',
    seed: 14,
    bias: { 'crash-host': 3, 'cut-peer': 3 },
    patches: [['cold-boot.js', "(alive === 'unknown' && !this.forced)", 'false']],
  },
  {
    name: 'a cold boot although a standby of this host was promoted meanwhile',
    seed: 944,
    bias: { 'arbiter-down': 4, 'crash-process': 4, 'cut-arbiter': 3 },
    patches: [
      ['cold-boot.js', "if (alive === true && (asking === 'owner' || this.forced))", 'if (false)'],
      ['cold-boot.js', 'if (alive === true ||', "if ((alive === true && asking === 'peer') ||"],
    ],
  },
  {
    name: 'acks may stay away for ever while heartbeats live',
    seed: 1,
    bias: { 'stuck-acks': 6 },
    patches: [
      ['primary.js', 'watch.silent(this.nowMs) || stuck ||', 'watch.silent(this.nowMs) ||'],
    ],
  },
  {
    name: 'a greeting may stay unanswered for ever while heartbeats live',
    seed: 13,
    bias: { loss: 5 },
    patches: [['primary.js', '|| stuck || ignored', '|| stuck']],
  },
  {
    name: 'a claim on shared storage is believed although somebody else had it',
    seed: 535,
    bias: { freeze: 3, arbiterSlow: 3 },
    patches: [[CLAIMS, '!linked ||', '']],
  },
  {
    name: 'a writer that slept believes its claim of a place that was freed',
    seed: 131,
    bias: { 'sleep-before-claim': 40, 'cut-peer': 8, 'mend-cuts': 6, unprotect: 12, protect: 8 },
    patches: [[CLAIMS, '|| newest - record.revision >= kept', '']],
  },
  {
    name: 'a ballot on a device decides without looking at the slots again',
    seed: 26,
    bias: {},
    arbiter: 'device',
    patches: [
      [BALLOTS, 'if (after.revision > revision || after.ballotMax > number)', 'if (false)'],
    ],
  },
  {
    name: 'a ballot on a device ignores what others may have decided',
    seed: 4,
    bias: {},
    arbiter: 'device',
    patches: [
      [
        BALLOTS,
        'seen.accepted ?? (wish && { record: wish.record, ballot: number })',
        '(wish && { record: wish.record, ballot: number }) ?? seen.accepted',
      ],
    ],
  },
  {
    name: 'a ballot on a device is used again by the next process of the slot',
    seed: 5,
    bias: {},
    arbiter: 'device',
    patches: [
      [
        BALLOTS,
        'const mine = slots[self]?.revision === revision ? slots[self] : null;',
        'const mine = null;',
      ],
      [
        BALLOTS,
        'ballotAbove(ballotMax, self, slotCount)',
        'ballotAbove(Math.max(0, ...slots.map((slot, at) => slot?.revision === revision && ' +
          'at !== self ? slot.ballot : 0)), self, slotCount)',
      ],
    ],
  },
  {
    name: 'a slot of a device is believed before its checksum is looked at',
    seed: 108,
    bias: {},
    arbiter: 'device',
    patches: [[SLOT, 'if (!checksum(body, where)', 'if (false && !checksum(body, where)']],
  },
  {
    name: 'without an arbiter, a standby takes over on silence alone',
    seed: 14,
    bias: {},
    arbiter: 'none',
    patches: [[PAIR, 'if (lower || !isForced(proposal))', 'if (lower)']],
  },
  {
    name: 'a record is told to be given away, and held on',
    seed: 9,
    bias: {},
    arbiter: 'none',
    patches: [[PAIR, "copy: { hold: 'gave', record }, reply:", 'copy: mine, reply:']],
  },
  {
    name: 'a record that was given away before is taken again',
    seed: 33,
    bias: {},
    arbiter: 'none',
    patches: [
      [PAIR, 'return given && newer ?', 'return given ?'],
      [PAIR, "const given = theirs.hold === 'gave' &&", 'const given ='],
    ],
  },
  {
    name: 'the side that was not forced goes on after the meeting',
    seed: 17,
    bias: {},
    arbiter: 'none',
    patches: [
      [PAIR, 'return theirs.generation > record.generation ? seen : mine;', 'return mine;'],
    ],
  },
  {
    name: 'when hosts meet, the higher generation stays, whoever was forced',
    seed: 105,
    bias: {},
    arbiter: 'none',
    patches: [[PAIR, 'if (forced !== otherForced)', 'if (false)']],
  },
  {
    name: 'the side that was forced stays below what the other has seen',
    seed: 107,
    bias: {},
    arbiter: 'none',
    patches: [
      [PAIR, 'return theirs.generation > record.generation ? seen : mine;', 'return seen;'],
      [PAIR, 'generation: theirs.generation + 1 }', 'generation: record.generation }'],
    ],
  },
  {
    name: 'the mark of a forced takeover is lost at the next start',
    seed: 835,
    bias: {},
    arbiter: 'none',
    patches: [['proposals.js', 'stopped?.forcedAt === undefined', 'true']],
  },
];

export interface Planted {
  /** The run that is to catch it. */
  readonly options: RunOptions;
  dispose(): void;
}

/** The core with one bug in it; `dispose` removes the copy. */
export async function plant(bug: PlantedBug): Promise<Planted> {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-planted-'));
  const core = join(dir, 'core');
  cpSync(join(SOURCE, 'core'), core, { recursive: true });
  for (const file of [CLAIMS, BALLOTS, SLOT]) cpSync(join(SOURCE, 'core', file), join(core, file));
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  for (const [file, find, replace] of bug.patches) {
    const path = join(core, file);
    const pieces = readFileSync(path, 'utf8').split(find);
    if (pieces.length !== 2)
      throw new Error(`${bug.name}: its place was found ${pieces.length - 1} times, not once`);
    writeFileSync(path, pieces.join(replace));
  }
  const load = async (file: string): Promise<unknown> =>
    import(pathToFileURL(join(core, file)).href);
  const make = (await load('member.js')) as CoreFactory;
  const { changeByClaim: claims } = (await load(CLAIMS)) as { changeByClaim: typeof changeByClaim };
  const [ballots, slot] = [await load(BALLOTS), await load(SLOT)] as object[];
  const device = { ...ballots, ...slot } as DeviceCode;
  const pair = (await load(PAIR)) as PairCode;
  const { bias, arbiter } = bug;
  const options = { make, claims, device, pair, bias, arbiter };
  return { options, dispose: () => rmSync(dir, { recursive: true, force: true }) };
}
