/**
 * Runs every `*.test.js` below this folder, each in a process of its own with a deadline, and
 * closes with one line `N passed, N failed, N skipped`. Files that do not go by the clock run two
 * at a time. A test file prints its own uvu totals; a file that dies, hangs, or leaves a child
 * process behind counts as one failure.
 *
 * Usage: node dist/test/run.js [substring...]   (only files whose path holds one of the substrings)
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const testDir = fileURLToPath(new URL('.', import.meta.url));
const FILE_DEADLINE_MS = 8 * 60_000;
/** Real VMs and hosts, which go by the clock, have the machine for themselves. */
const ALONE = /^(e2e|host|machine)\//;

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

function testFiles(filters: string[]): string[] {
  const all = readdirSync(testDir, { recursive: true, encoding: 'utf8' });
  return all
    .filter((path) => path.endsWith('.test.js'))
    .filter((path) => filters.length === 0 || filters.some((part) => path.includes(part)))
    .sort();
}

function count(output: string, label: string): number {
  const match = output.match(new RegExp(`^\\s*${label}:\\s+(\\d+)`, 'm'));
  return match ? Number(match[1]) : Number.NaN;
}

function totalsOf(output: string, exitCode: number | null): Totals {
  const total = count(output, 'Total');
  const passed = count(output, 'Passed');
  const skipped = count(output, 'Skipped');
  if (Number.isNaN(total)) return { passed: 0, failed: 1, skipped: 0 };
  const failed = total - passed;
  return { passed, failed: failed === 0 && exitCode !== 0 ? 1 : failed, skipped };
}

function runFile(path: string): Promise<Totals> {
  const startedAt = Date.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--enable-source-maps', testDir + path], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    let output = '';
    const keep = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const deadline = setTimeout(() => {
      output += `\n${path}: no end within ${FILE_DEADLINE_MS} ms, killed\n`;
      killGroup(child.pid);
    }, FILE_DEADLINE_MS);
    child.on('exit', (exitCode) => {
      clearTimeout(deadline);
      const leftBehind = killGroup(child.pid);
      const totals = totalsOf(output, exitCode);
      if (leftBehind) {
        output += `\n${path}: left child processes behind\n`;
        totals.failed += 1;
      }
      const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
      const verdict = totals.failed === 0 ? 'ok  ' : 'FAIL';
      process.stdout.write(`${verdict} ${path}  ${seconds} s\n`);
      const notes = output.split('\n').filter((line) => /^(SKIP|NOTE) |^planted bugs:/.test(line));
      process.stdout.write(notes.map((line) => `       ${line}\n`).join(''));
      if (totals.failed > 0) process.stdout.write(`${output}\n`);
      resolve(totals);
    });
  });
}

/**
 * True if a process of the group still runs. Dead orphans that wait for init to take note of them,
 * which some do at leisure, have left nothing behind.
 */
function groupRuns(groupId: number): boolean {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const [state, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(group) === groupId && !['Z', 'X'].includes(state)) return true;
    } catch {
      // Gone in the meantime.
    }
  }
  return false;
}

/** Kills what is left of a test's process group; true if anything was still there. */
function killGroup(pid: number | undefined): boolean {
  if (pid === undefined) return false;
  if (existsSync('/proc/self/stat') && !groupRuns(pid)) return false;
  try {
    process.kill(-pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

const sum: Totals = { passed: 0, failed: 0, skipped: 0 };

/** Takes files from the list until it is empty. */
async function runAll(paths: string[]): Promise<void> {
  for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
    const totals = await runFile(path);
    sum.passed += totals.passed;
    sum.failed += totals.failed;
    sum.skipped += totals.skipped;
  }
}

const files = testFiles(process.argv.slice(2));
await runAll(files.filter((path) => ALONE.test(path)));
const others = files.filter((path) => !ALONE.test(path));
await Promise.all([runAll(others), runAll(others)]);
process.stdout.write(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped\n`);
process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1;
