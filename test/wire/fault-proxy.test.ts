/** The fault proxy itself: what it swallows, what it passes, and that it can heal. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { until, within } from '../within.js';
import { FaultProxy } from './fault-proxy.js';

const test = suite('fault proxy');

interface Scene {
  proxy: FaultProxy;
  dial: () => Socket & { heard: string; over: boolean };
  accepted: Socket[];
  close: () => void;
}

/** A server that answers each text with the same in upper case, behind a proxy. */
async function scene(): Promise<Scene> {
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    accepted.push(socket);
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => socket.write(chunk.toString().toUpperCase()));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const proxy = new FaultProxy({ host: '127.0.0.1', port });
  await proxy.listen();
  const dial = (): Socket & { heard: string; over: boolean } => {
    const [host, at] = proxy.address.split(':');
    const socket = Object.assign(connect(Number(at), host), { heard: '', over: false });
    socket.on('error', () => {});
    socket.on('close', () => {
      socket.over = true;
    });
    socket.on('data', (chunk: Buffer) => {
      socket.heard += chunk.toString();
    });
    return socket;
  };
  const close = (): void => {
    proxy.kill();
    for (const socket of accepted) socket.destroy();
    server.close();
  };
  return { proxy, dial, accepted, close };
}

const quiet = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 60));

test('each direction is swallowed silently, and delivered on heal', () =>
  within(5_000, 'cuts', (async () => {
    const { proxy, dial, accepted, close } = await scene();
    const socket = dial();
    socket.write('one ');
    await until(1_000, 'an answer', () => socket.heard === 'ONE ');
    let heardThere = '';
    accepted[0].on('data', (chunk: Buffer) => {
      heardThere += chunk.toString();
    });
    proxy.cut('from');
    socket.write('two ');
    await until(1_000, 'arrival there', () => heardThere === 'two ');
    await quiet();
    assert.is(socket.heard, 'ONE ');
    proxy.heal();
    await until(1_000, 'the held answer', () => socket.heard === 'ONE TWO ');
    proxy.cut('to');
    socket.write('three ');
    accepted[0].write('NEWS ');
    await until(1_000, 'news', () => socket.heard === 'ONE TWO NEWS ');
    await quiet();
    assert.is(heardThere, 'two ');
    assert.not(socket.over);
    proxy.heal();
    await until(1_000, 'the rest', () => socket.heard === 'ONE TWO NEWS THREE ');
    close();
    await until(1_000, 'the end', () => socket.over);
  })()));

test('under a cut not even the end is heard, and new connections hang', () =>
  within(5_000, 'silence', (async () => {
    const { proxy, dial, accepted, close } = await scene();
    const socket = dial();
    socket.write('x');
    await until(1_000, 'an answer', () => socket.heard === 'X');
    proxy.cut();
    accepted[0].destroy();
    const late = dial();
    late.write('late');
    await quiet();
    assert.not(socket.over);
    assert.is(late.heard, '');
    assert.is(accepted.length, 1);
    proxy.heal();
    await until(1_000, 'the end', () => socket.over);
    await until(1_000, 'the late one', () => late.heard === 'LATE');
    close();
  })()));

test('kill resets and refuses, listen brings it back', () =>
  within(5_000, 'kill', (async () => {
    const { proxy, dial, close } = await scene();
    const socket = dial();
    socket.write('x');
    await until(1_000, 'an answer', () => socket.heard === 'X');
    proxy.kill();
    await until(1_000, 'the reset', () => socket.over);
    const refused = dial();
    await until(1_000, 'the refusal', () => refused.over);
    await until(1_000, 'no connections', () => proxy.connections === 0);
    await proxy.listen();
    const again = dial();
    again.write('y');
    await until(1_000, 'an answer', () => again.heard === 'Y');
    proxy.reset();
    await until(1_000, 'the second reset', () => again.over);
    close();
  })()));

test.run();
