// Builds everything under dist that tsc does not: page kernels, the patched v86, and assets.
// Each step is a module of its own that exports build(distDir); steps skip work that is up to date.
import { mkdirSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const distDir = fileURLToPath(new URL('../dist/wasm/', import.meta.url));
mkdirSync(distDir, { recursive: true });
const steps = readdirSync(new URL('./steps/', import.meta.url)).filter((name) => name.endsWith('.mjs'));
for (const step of steps.sort()) {
  const { build } = await import(new URL(`./steps/${step}`, import.meta.url).href);
  await build(distDir);
}
