/** Writes laravel-echo-server.json or .toml. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

const isTable = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** TOML of an object of strings, numbers, booleans, lists of these, and such objects. */
function toToml(table, prefix = []) {
  const entries = Object.entries(table);
  const lines = entries.filter(([, value]) => !isTable(value)).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const tables = entries.filter(([, value]) => isTable(value));
  return [
    ...lines,
    ...tables.map(([key, value]) => `\n[${[...prefix, key].join('.')}]\n${toToml(value, [...prefix, key])}`),
  ].join('\n');
}

/** `format`: "json" or "toml". */
export function writeConfig(folder, format, config) {
  const text = format === 'toml' ? toToml(config) : JSON.stringify(config, null, 2);
  writeFileSync(path.join(folder, `laravel-echo-server.${format}`), `${text}\n`);
}
