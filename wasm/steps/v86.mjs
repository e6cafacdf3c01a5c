// Builds v86-dirty.wasm (v86 that marks written pages) and v86-kernels.wasm (work inside its
// memory).
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const original = fileURLToPath(new URL('../../node_modules/v86/build/v86.wasm', import.meta.url));
const recipe = (name) => fileURLToPath(new URL(`../v86/${name}`, import.meta.url));

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
  if (!upToDate(patched, [original, recipe('patch.mjs')])) {
    const { patchDirtyMap } = await import('../v86/patch.mjs');
    write(patched, patchDirtyMap(readFileSync(original)));
  }
  const kernels = `${distDir}v86-kernels.wasm`;
  if (!upToDate(kernels, [recipe('kernels.mjs')])) {
    const { assembleKernels } = await import('../v86/kernels.mjs');
    write(kernels, await assembleKernels());
  }
}
