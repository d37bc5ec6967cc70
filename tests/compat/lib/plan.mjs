/** Which scenarios run with which client, transport and config format. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { comboNames } from './clients.mjs';

/**
 * A scenario, a file in scenarios/ of the same name, exports
 *   name
 *   run(ctx)
 *   clients     'each' combination (default), 'one' of them, 'none', or a list of its own
 *   transports  default ['websocket']
 *   formats     'each': both config formats for every client, also in the quick selection
 *   config      overrides merged into the generated config, or (ctx) => overrides
 *   server      'manual' when run() starts it itself
 *   requires    capabilities of the target without which it is skipped
 *   timeout     in ms, default 60 s
 */
export async function loadScenarios() {
  const folder = new URL('../scenarios/', import.meta.url);
  const files = readdirSync(folder).filter((file) => file.endsWith('.mjs')).sort();
  const scenarios = await Promise.all(files.map((file) => import(new URL(file, folder))));
  for (const [index, { name }] of scenarios.entries()) {
    if (`${name}.mjs` !== files[index]) throw new Error(`scenarios/${files[index]} calls itself ${name}; expected the name of the file`);
  }
  return scenarios;
}

export const loadScenario = (name) => import(new URL(`../scenarios/${path.basename(name)}.mjs`, import.meta.url));

/** The scenarios named in `wanted`; a trailing * matches any ending. */
export function byName(scenarios, wanted) {
  if (!wanted) return scenarios;
  const matches = (pattern) => ({ name }) => (pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern);
  for (const pattern of wanted) {
    if (!scenarios.some(matches(pattern))) throw new Error(`--only ${pattern}: there is no such scenario`);
  }
  return scenarios.filter((scenario) => wanted.some((pattern) => matches(pattern)(scenario)));
}

/** Client combinations by selection. The quick one has each Echo, and each socket.io-client from 2 on, once. */
const SELECTIONS = {
  quick: ['e16s2', 'e1s3', 'e2s4'],
  full: ['e1s1', 'e16s2', 'e1s2', 'e1s3', 'e2s4'],
};
const TRANSPORTS = ['websocket', 'polling', 'upgrade'];

function oneOf(option, values, allowed) {
  for (const value of values) {
    if (!allowed.includes(value)) throw new Error(`${option} ${value}: expected one of ${allowed.join(', ')}`);
  }
  return values;
}

/** Every combination of the lists. */
function product(combos, transports, formats) {
  return combos.flatMap((combo) => transports.flatMap((transport) => formats.map((format) => ({ combo, transport, format }))));
}

/** socket.io-client 1 misreads non-ASCII text over polling, from any server; seed-socketio-1 tests its polling. */
const fits = ({ combo, transport }) => !combo.endsWith('s1') || transport === 'websocket';

/**
 * A small set of combinations that covers each client, each transport and, where there are two or more,
 * each format. `shift` varies the combinations from scenario to scenario.
 */
function spread(combos, transports, formats, shift) {
  const count = Math.max(combos.length, transports.length);
  return Array.from({ length: count }, (_, n) => ({
    combo: combos[n % combos.length],
    transport: transports[(n + shift) % transports.length],
    format: formats[(n + (n >> 1) + (shift >> 1)) % formats.length],
  }));
}

/**
 * The runs, each { scenario, combo, transport, format, skip? }, all of them names: plain data that
 * can be sent to another process. `skip` is the reason why a run is skipped.
 */
export function plan(scenarios, target, { selection, clients, transports, formats }) {
  oneOf('--selection', [selection], Object.keys(SELECTIONS));
  const combos = oneOf('--clients', clients ?? SELECTIONS[selection].filter((combo) => target.supports(combo)), comboNames());
  const wantedTransports = oneOf('--transports', transports ?? TRANSPORTS, TRANSPORTS);
  const wantedFormats = oneOf('--formats', formats ?? target.formats, target.formats);

  return scenarios.flatMap((scenario, index) => {
    const kind = scenario.clients ?? 'each';
    const chosen = Array.isArray(kind) ? kind : { none: ['-'], one: [combos[index % combos.length]], each: combos }[kind];
    if (!chosen) throw new Error(`scenario ${scenario.name}: clients ${kind}: expected each, one, none or a list`);
    const used = kind === 'none' ? ['-'] : (scenario.transports ?? ['websocket']).filter((name) => wantedTransports.includes(name));
    const missing = (scenario.requires ?? []).filter((capability) => !target.can(capability));
    const skip = (combo) => {
      if (missing.length) return `needs ${missing.join(', ')}`;
      return combo !== '-' && !target.supports(combo) ? `${target.name} does not support ${combo}` : undefined;
    };
    if (!used.length) return [];
    let picked;
    if (selection === 'full') picked = product(chosen, used, wantedFormats).filter((run) => Array.isArray(kind) || fits(run));
    else if (scenario.formats === 'each') {
      picked = wantedFormats.flatMap((format, n) => spread(chosen, used, [format], index + n));
    } else picked = spread(chosen, used, wantedFormats, index);
    return picked.map((run) => ({ scenario: scenario.name, ...run, skip: skip(run.combo) }));
  });
}
