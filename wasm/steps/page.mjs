// Builds page-kernels.wasm: delta, zero pages and page hashes, over whole batches.
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('../page/kernels.ts', import.meta.url));
const OPTIONS = ['-O3', '--noAssert', '--runtime', 'stub', '--enable', 'simd', '--importMemory'];

export async function build(distDir) {
  const output = `${distDir}page-kernels.wasm`;
  if (existsSync(output) && statSync(source).mtimeMs <= statSync(output).mtimeMs) return;
  const { default: compiler } = await import('assemblyscript/asc');
  let binary = null;
  const stderr = compiler.createMemoryStream();
  const { error } = await compiler.main(
    ['kernels.ts', ...OPTIONS, '--outFile', 'kernels.wasm'],
    {
      readFile: (name) => (name === 'kernels.ts' ? readFileSync(source, 'utf8') : null),
      writeFile: (name, contents) => {
        if (name === 'kernels.wasm') binary = contents;
      },
      listFiles: () => [],
      stderr,
    },
  );
  if (error || !binary) throw new Error(`page kernels: ${error?.message}\n${String(stderr)}`);
  const beside = `${output}.${process.pid}`;
  writeFileSync(beside, binary);
  renameSync(beside, output);
}
