/** `npm run bench`: every bench, as a table or, with `--json`, as one object. */
import { pageBench } from './page.bench.js';

const rows = await pageBench();
if (process.argv.includes('--json')) process.stdout.write(`${JSON.stringify({ rows })}\n`);
else
  for (const { name, value, unit, memcpyRatio } of rows) {
    const ratio = memcpyRatio === null ? '' : `  (memcpy: ${memcpyRatio.toFixed(3)} of that)`;
    process.stdout.write(`${name.padEnd(32)}${value.toFixed(4)} ${unit}${ratio}\n`);
  }
