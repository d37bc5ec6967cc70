/** Scenarios for features that the target does not have yet: pending.json. */
import { readFileSync } from 'node:fs';

const FILE = new URL('../pending.json', import.meta.url);

/** Name of the scenario -> what it waits for. */
export function loadPending(scenarios) {
  const pending = new Map(Object.entries(JSON.parse(readFileSync(FILE, 'utf8'))));
  const names = new Set(scenarios.map(({ name }) => name));
  for (const [name, reason] of pending) {
    if (!names.has(name)) throw new Error(`pending.json: ${name}: there is no such scenario`);
    if (typeof reason !== 'string' || !reason) throw new Error(`pending.json: ${name}: expected what it waits for, as text`);
  }
  return pending;
}
