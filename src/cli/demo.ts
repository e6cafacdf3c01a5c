/** stub */
import type { Command } from './command.js';
export const demo: Command = { name: 'demo', args: '', about: 'demo', options: {}, run: () => Promise.resolve(1) };
