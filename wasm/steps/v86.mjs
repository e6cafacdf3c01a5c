// Builds v86-dirty.wasm (v86 that marks written pages) and ram-kernels.wasm (work inside the memory
// that holds guest RAM).
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const original = fileURLToPath(new URL('../../node_modules/v86/build/v86.wasm', import.meta.url));
const recipe = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));

function upToDate(output, inputs) {
  if (!existsSync(output)) return false;
  const builtAt = statSync(output).mtimeMs;
  return inputs.every((input) => statSync(input).mtimeMs <= builtAt);
}

/** Written beside and renamed, so that nobody ever reads half a file. */
function write(output, bytes) {
  const beside = `${output}.${process.pid}`;
  writeFileSync(beside, bytes);
  renameSync(beside, output);
}

export async function build(distDir) {
  const patched = `${distDir}v86-dirty.wasm`;
  if (!upToDate(patched, [original, recipe('v86/patch.mjs')])) {
    const { patchDirtyMap } = await import('../v86/patch.mjs');
    write(patched, patchDirtyMap(readFileSync(original)));
  }
  const kernels = `${distDir}ram-kernels.wasm`;
  if (!upToDate(kernels, [recipe('ram/kernels.mjs')])) {
    const { assembleKernels } = await import('../ram/kernels.mjs');
    write(kernels, await assembleKernels());
  }
}
