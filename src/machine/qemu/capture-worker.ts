/**
 * Worker thread of a running QEMU machine: finds and copies pages while the VM stands still. With
 * COLO, all that happens between the VM's stop and its going on happens here, but for what the
 * machine's own thread does meanwhile (it drains the ports, and then asks for the capture).
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type {
  CaptureReply,
  CaptureRequest,
  CaptureWorkerData,
  TakeRequest,
} from './capture-thread.js';
import { ColoStream } from './colo-stream.js';
import { MemoryAudit } from './memory-audit.js';
import { QemuError } from './qemu-error.js';
import { RamTracker } from './ram-tracker.js';

const port = parentPort;
if (!port) throw new Error('the capture worker runs as a worker thread only');
const { fd, bytes, foundBy, bell } = workerData as CaptureWorkerData;
const tracker = await RamTracker.create(fd, bytes, foundBy);
const audit = await MemoryAudit.create();
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
/** How long QEMU may be silent within a checkpoint. */
const COLO_MS_MAX = 2_000;
/** How long to look for the next request before it may as well come by the event loop. */
const REQUEST_MS_MAX = 5;
const RAM_NAME = 'ram';
let colo: ColoStream | null = null;
/** Of the checkpoint that stopped the VM, until it was taken. */
let devices: Uint8Array | null = null;
let stoppedAtMs = 0;
/** The VM stands still in a checkpoint. */
let still = false;
let requestsSeen = 0;

function answer(reply: CaptureReply): void {
  port?.postMessage(reply);
}

function take(request: TakeRequest): void {
  const startedAtMs = devices ? stoppedAtMs : nowMs();
  const missed = request.audit && devices ? tracker.audit(audit) : null;
  const { dirtyCount, pageCount } = tracker.find(request.also);
  const foundAtMs = nowMs();
  try {
    tracker.take(request, pageCount, devices && !needsRam(request) ? 'copy' : 'ram');
  } catch (error) {
    if (!(error instanceof CaptureOverflow)) throw error;
    answer({ kind: 'overflow', pageCount });
    return;
  }
  const copyMs = nowMs() - foundAtMs;
  const sent = devices;
  if (sent && request.andGoOn) goOn();
  const goesOn = sent !== null && !still;
  if (goesOn) devices = null;
  const found = { pageCount, dirtyCount, missed, findMs: foundAtMs - startedAtMs, copyMs };
  answer({ kind: 'captured', ...found, devices: sent, goesOn });
  tracker.settle(request.pageBytes, pageCount);
}

function open(socketFd: number): void {
  const options = { ramName: RAM_NAME, msMax: COLO_MS_MAX };
  colo = new ColoStream(socketFd, tracker.coloPages, options);
  colo.readInitial();
}

function inColo(): ColoStream {
  if (!colo) throw new QemuError('COLO', 'QEMU is not in COLO');
  return colo;
}

function goOn(): void {
  if (!still) return;
  still = false;
  inColo().goOn();
}

/** Not all that it takes is in what COLO sent. */
function needsRam({ also, audit }: TakeRequest): boolean {
  return also !== null || audit;
}

/**
 * The VM may go on before its checkpoint has been read: the stream holds its pages. But not if
 * RAM itself has to be looked at.
 */
function checkpoint(): void {
  let next: CaptureRequest | null = null;
  const look = (): void => {
    next ??= nextRequest();
    if (next?.kind === 'take' && next.andGoOn && !needsRam(next)) goOn();
  };
  devices = inColo().readCheckpoint({
    stopped: () => {
      stoppedAtMs = nowMs();
      still = true;
      answer({ kind: 'done' });
    },
    reading: () => still && look(),
  });
  if (!next && Atomics.load(bell, 0) === requestsSeen)
    Atomics.wait(bell, 0, requestsSeen, REQUEST_MS_MAX);
  look();
  if (next) perform(next);
}

/** One that has come, without a turn of the event loop. */
function nextRequest(): CaptureRequest | null {
  if (!port || Atomics.load(bell, 0) === requestsSeen) return null;
  const next = receiveMessageOnPort(port);
  if (!next) return null;
  requestsSeen += 1;
  return next.message as CaptureRequest;
}

function perform(request: CaptureRequest): void {
  if (request.kind === 'take') return take(request);
  if (request.kind === 'checkpoint') return checkpoint();
  if (request.kind === 'open') open(request.socketFd);
  else if (request.kind === 'begin') inColo().begin();
  else if (request.kind === 'go-on') {
    goOn();
    devices = null;
  }
  else tracker.restart();
  answer({ kind: 'done' });
}

port.on('message', (request: CaptureRequest) => {
  requestsSeen += 1;
  try {
    perform(request);
  } catch (error) {
    answer({ kind: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
});
answer({ kind: 'done' });
