// Teaches v86's wasm to note which guest pages are written: one byte a page in a map that the
// host provides.
//
// Two functions see every write. `do_page_walk` fills the TLB: a walk for writing marks its page
// (the host clears the TLB when an epoch starts, so the first write to a page walks again).
// `jit_dirty_page_ctx` is called for writes to physical addresses: accessed and dirty bits, and
// DMA of devices. Functions are found by the name section; a pattern that does not match exactly
// once stops the build.
import binaryen from 'binaryen';

const I32 = binaryen.i32;

function findOne(module, pattern) {
  const found = [];
  for (let i = 0; i < module.getNumFunctions(); i += 1) {
    const info = binaryen.getFunctionInfo(module.getFunctionByIndex(i));
    if (pattern.test(info.name)) found.push(info);
  }
  if (found.length !== 1)
    throw new Error(`v86.wasm: ${pattern} matches ${found.length} functions, not one`);
  return found[0];
}

function expectType(name, info, paramCount, results) {
  const params = binaryen.expandType(info.params);
  const plain = params.length === paramCount && params.every((type) => type === I32);
  if (!plain || info.results !== results)
    throw new Error(`v86.wasm: ${name} has another signature than expected`);
}

/** Renames a function and puts `wrapper` in its place. */
function wrap(module, info, innerName, vars, wrapper) {
  module.addFunction(innerName, info.params, info.results, info.vars, info.body);
  module.removeFunction(info.name);
  module.addFunction(info.name, info.params, info.results, vars, wrapper);
}

export function patchDirtyMap(original) {
  const m = binaryen.readBinary(original);
  const walk = findOne(m, /do_page_walk$/);
  const physical = findOne(m, /18jit_dirty_page_ctx$/);
  expectType('do_page_walk', walk, 5, I32);
  expectType('jit_dirty_page_ctx', physical, 2, binaryen.none);
  const global = (name) => m.global.get(name, I32);
  const local = (index) => m.local.get(index, I32);
  for (const name of ['mirror_map', 'mirror_ram', 'mirror_pages'])
    m.addGlobal(name, I32, true, m.i32.const(0));

  const setters = ['mirror_map', 'mirror_ram', 'mirror_pages'].map((name, i) =>
    m.global.set(name, local(i)),
  );
  const three = binaryen.createType([I32, I32, I32]);
  m.addFunction('mirror_track', three, binaryen.none, [], m.block(null, setters));
  m.addFunctionExport('mirror_track', 'mirror_track');

  const slot = m.i32.add(global('mirror_map'), local(0));
  const inRam = m.i32.lt_u(local(0), global('mirror_pages'));
  const mark = m.if(inRam, m.i32.store8(0, 0, slot, m.i32.const(1)));
  m.addFunction('mirror_mark', binaryen.createType([I32]), binaryen.none, [], mark);

  // A TLB entry is host address xor guest address, with flags in the low 12 bits; 0 is a fault.
  const entry = 5;
  const hostPage = m.i32.and(m.i32.xor(local(entry), local(0)), m.i32.const(~0xfff));
  const page = m.i32.shr_u(m.i32.sub(hostPage, global('mirror_ram')), m.i32.const(12));
  const present = m.i32.ne(local(entry), m.i32.const(0));
  const forWriting = m.i32.ne(local(1), m.i32.const(0));
  const callWalk = m.call('mirror_walk', [0, 1, 2, 3, 4].map(local), I32);
  const body = [
    m.local.set(entry, callWalk),
    m.if(m.i32.and(present, forWriting), m.call('mirror_mark', [page], binaryen.none)),
    local(entry),
  ];
  wrap(m, walk, 'mirror_walk', [I32], m.block(null, body, I32));
  const physicalBody = [
    m.call('mirror_mark', [local(1)], binaryen.none),
    m.call('mirror_physical', [local(0), local(1)], binaryen.none),
  ];
  wrap(m, physical, 'mirror_physical', [], m.block(null, physicalBody));

  if (!m.validate()) throw new Error('v86.wasm: the patched module is not valid');
  const bytes = m.emitBinary();
  m.dispose();
  return bytes;
}
