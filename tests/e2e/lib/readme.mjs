/** The commands and code that the README tells a newcomer to use, extracted from it. */
import { readFileSync } from 'node:fs';

const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
const [section] = /^## Use it with Laravel[^]*?(?=^## )/m.exec(readme);

/** The groups of a pattern that must match in the section. */
function find(pattern) {
  const found = pattern.exec(section);
  if (!found) throw new Error(`README.md has nothing like ${pattern} in "Use it with Laravel"`);
  return found.slice(1);
}

/** The commands of a block, without their comments. */
const commands = (block) => block.split('\n').map((line) => line.replace(/\s+#.*$/, '').trim()).filter(Boolean);

/** The commands of the first block after the beginning of a numbered step. */
const commandsOfStep = (number) => commands(find(new RegExp(`^${number}\\. [^]*?\`\`\`sh\n([^]*?)\`\`\``, 'm'))[0]);

const [commented, commentedIn, variable, variableIn] = find(
  /\*\*Before Laravel 11:\*\* remove the `\/\/` before `([^`]+)` in `([^`]+)`, and put\s+`([^`]+)` into `([^`]+)`/,
);

export const steps = {
  /** Step 0. */
  install: commandsOfStep(0),
  /** Step 1 for Laravel before 11: file changes. */
  edits: [
    { file: commentedIn, edit: (text) => text.replace(`// ${commented}`, commented) },
    { file: variableIn, edit: (text) => text.replace(new RegExp(`^${variable.split('=')[0]}=.*$`, 'm'), variable) },
  ],
  /** Step 1: the command that processes queued events. */
  queue: find(/run `(php artisan queue:work)`/)[0],
  /** Step 2. */
  server: commandsOfStep(2),
  /** Step 3: JavaScript. */
  snippet: find(/```js\n([^]*?)```/)[0],
  /** What to do when nothing arrives. */
  doctor: find(/Nothing arrives\? `([^`]+)`/)[0],
};
