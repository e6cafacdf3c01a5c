/** `mirror version`. */
import { readFileSync } from 'node:fs';
import { noArgs, print, type Command } from './command.js';

export const version: Command = {
  name: 'version',
  args: '',
  about: 'which Mirror this is',
  options: {},
  run(input) {
    noArgs(input);
    const path = new URL('../../../package.json', import.meta.url);
    const { version } = JSON.parse(readFileSync(path, 'utf8')) as { version: string };
    print(input, `mirror ${version}`, { version, node: process.version });
    return Promise.resolve(0);
  },
};
