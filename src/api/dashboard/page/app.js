// The dashboard's page: signs in, reads /dashboard/stream, and shows its data. Text from events is only ever inserted as text.

const $ = (id) => document.getElementById(id);

/** An element: h('p', { class: 'quiet' }, 'text', child). Functions are listeners, null is omitted. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const number = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

function bytes(count) {
  if (count < 1000) return `${count} B`;
  const [unit, size] = count < 1e6 ? ['KB', 1e3] : count < 1e9 ? ['MB', 1e6] : ['GB', 1e9];
  return `${(count / size).toFixed(count / size < 10 ? 1 : 0)} ${unit}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function clock(milliseconds) {
  const date = new Date(milliseconds);
  const two = (value) => String(value).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

const CLIENTS = { 3: 'socket.io 2', 4: 'socket.io 4', pusher: 'Pusher' };
const clientName = (engine) => CLIENTS[engine] ?? engine;

// --- The server ---------------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(`/dashboard/${path}`, {
    ...options,
    headers: { 'X-Dashboard': '1', ...(options.body ? { 'Content-Type': 'application/json' } : {}) },
  });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    if (response.status === 401 && !$('app').hidden) signedOut();
    throw new Refused(response.status, body.error ?? `the server answered ${response.status}`);
  }
  return response.status === 204 ? null : response.json();
}

const post = (path, body) => ask(path, { method: 'POST', body: JSON.stringify(body) });

let toasting;
function toast(text) {
  $('toast').textContent = text;
  $('toast').hidden = false;
  clearTimeout(toasting);
  toasting = setTimeout(() => ($('toast').hidden = true), 5000);
}

// --- Signing in ---------------------------------------------------------------------------------------------------------

let me;

async function begin() {
  const { demo } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (demo) {
    history.replaceState(null, '', '/dashboard');
    sessionStorage.setItem('demo', 'yes');
    await post('session', { secret: demo }).catch(() => {});
  }
  try {
    me = await ask('session');
  } catch {
    return signedOut();
  }
  $('door').hidden = true;
  $('app').hidden = false;
  $('version').textContent = me.version;
  $('nodes').hidden = !me.clustered;
  $('set-up').hidden = !me.checks;
  $('tab-send').hidden = !me.actions;
  showView();
  beginDemo();
}

function signedOut() {
  stream.close();
  $('app').hidden = true;
  $('door').hidden = false;
  $('secret').focus();
}

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('sign-in-error').textContent = '';
  try {
    await post('session', { secret: $('secret').value });
    $('secret').value = '';
    await begin();
  } catch (error) {
    $('sign-in-error').textContent = error.status === 403 ? `Not right: ${error.message}.` : error.message;
    $('secret').select();
  }
});

$('sign-out').addEventListener('click', async () => {
  await ask('session', { method: 'DELETE' }).catch(() => {});
  signedOut();
});

// --- The stream ---------------------------------------------------------------------------------------------------------

/** One connection, with the filter of the view. */
const stream = {
  source: null,
  query: null,

  open() {
    const query = wantedStream();
    if (this.source && query === this.query && this.source.readyState !== EventSource.CLOSED) return;
    this.close();
    this.query = query;
    nodes.clear();
    showTrace();
    channelEvents = [];
    const source = new EventSource(`/dashboard/stream?${query}`);
    source.addEventListener('open', () => link('live', 'live'));
    source.addEventListener('error', () => {
      link('lost', 'connection lost, trying again…');
      // Closed for good: the session has ended, or the server refused.
      if (source.readyState === EventSource.CLOSED && this.source === source) setTimeout(() => ask('session').then(() => this.open(), () => {}), 1500);
    });
    source.addEventListener('hello', (event) => {
      const hello = JSON.parse(event.data);
      ({ columns, rate } = hello);
      own = nodeOf(hello);
      own.samples = [];
    });
    source.addEventListener('figures', (event) => takeFigures(JSON.parse(event.data)));
    source.addEventListener('trace', (event) => takeTrace(JSON.parse(event.data), own));
    // What happened on another node.
    source.addEventListener('node', (event) => {
      const news = JSON.parse(event.data);
      const node = nodeOf(news);
      keepSamples(node, news.samples);
      if (news.seen > 0 || news.entries.length) takeTrace(news, node);
    });
    this.source = source;
  },

  close() {
    this.source?.close();
    this.source = null;
  },
};

function link(state, text) {
  $('link').className = `link ${state}`;
  $('link').textContent = text;
}

function wantedStream() {
  const query = new URLSearchParams();
  if (view.name === 'channels' && view.argument) {
    query.set('channel', `=${view.argument}`);
    query.set('groups', 'delivered,unheard,dropped,whispers');
  } else if (view.name === 'trace') {
    query.set('groups', [...shownGroups].join(','));
    query.set('channel', $('filter-channel').value.trim());
    query.set('who', $('filter-who').value.trim());
  }
  return query.toString();
}

// --- Figures ------------------------------------------------------------------------------------------------------------

let columns = [];
let rate = 0;
const KEPT = 600;

/** The nodes that have sent data, by id; for a single node, only that one. */
const nodes = new Map();
let own = null;

function nodeOf({ node: id, name }) {
  let node = nodes.get(id);
  if (!node) {
    node = { id, name, samples: [], lastEntry: 0 };
    nodes.set(id, node);
    if (![...$('node').options].some(({ value }) => value === id)) $('node').append(h('option', { value: id }, name));
  }
  return node;
}

/** Whether this node is among those that are shown. */
const isShown = ({ id }) => $('node').value === '' || $('node').value === id;

function keepSamples(node, fresh) {
  // After a reconnect, the server starts with data that is known already.
  const last = node.samples.at(-1)?.at ?? 0;
  node.samples.push(...fresh.filter(({ at }) => at > last));
  node.samples.splice(0, node.samples.length - KEPT);
}

/** The sum over the shown nodes; the seconds are those of this node, or of the only one shown. */
function shownSamples() {
  const shown = [...nodes.values()].filter((node) => isShown(node) && node.samples.length);
  const first = shown.includes(own) ? own : shown[0];
  if (!first) return [];
  if (shown.length === 1) return first.samples;
  const latency = columns.indexOf('latency');
  const callbacks = columns.indexOf('callbacks');
  const others = shown.filter((node) => node !== first).map(({ samples }) => ({ by: new Map(samples.map(({ at, values }) => [at, values])), last: samples.at(-1) }));
  return first.samples.map(({ at, values }) => {
    const all = [values];
    for (const { by, last } of others) {
      // Another node's newest second may not have arrived yet.
      const its = by.get(at) ?? (at > last.at && at - last.at < 4 ? last.values : null);
      if (its) all.push(its);
    }
    const sums = values.map((_, index) => all.reduce((sum, each) => sum + each[index], 0));
    // An event reaches every node, so it is not summed.
    for (const [name, of] of [['delivered', Math.max], ['unheard', Math.min]]) {
      const index = columns.indexOf(name);
      sums[index] = of(...all.map((each) => each[index]));
    }
    const time = all.reduce((sum, each) => sum + each[latency] * each[callbacks], 0);
    sums[latency] = sums[callbacks] ? Math.round(time / sums[callbacks]) : 0;
    return { at, values: sums };
  });
}

$('node').addEventListener('change', () => {
  stream.close();
  showTrace.query = null;
  stream.open();
});
const WIDTH = 150;
const HEIGHT = 30;

const TILES = [
  { id: 'connections', label: 'Connections', graph: ['connections'], steady: true },
  { id: 'events', label: 'Events in', unit: '/s', graph: ['delivered', 'unheard'] },
  { id: 'deliveries', label: 'Messages out', unit: '/s', graph: ['deliveries'] },
  { id: 'refusals', label: 'Refusals', unit: '/s', graph: ['refusals'] },
  { id: 'callbacks', label: 'Laravel asked', unit: '/s', graph: ['callbacks'] },
  { id: 'latency', label: 'Its answers take', unit: ' ms', graph: ['latency'] },
  { id: 'redis', label: 'Redis' },
  { id: 'memory', label: 'Memory', graph: ['memory'], steady: true },
];

function svg(tag, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

for (const tile of TILES) {
  tile.value = h('span', { class: 'value' }, '–');
  tile.more = h('span', { class: 'more' });
  tile.element = h('div', { class: 'figure', id: `figure-${tile.id}` }, h('span', { class: 'label' }, tile.label), tile.value, tile.more);
  if (tile.graph) {
    tile.area = svg('path', { class: 'area' });
    tile.line = svg('path', {});
    const graph = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    graph.append(tile.area, tile.line);
    tile.element.append(graph);
  }
  $('figures').append(tile.element);
}

let samples = [];

function takeFigures({ samples: fresh, by, everywhere, redis, redisServer, totals, log }) {
  keepSamples(own, fresh);
  samples = shownSamples();
  if (samples.length === 0) return;
  const last = (name) => samples.at(-1).values[columns.indexOf(name)];
  const tile = (id) => TILES.find((one) => one.id === id);
  const show = (id, value, more = '', isBad = false) => {
    const { value: valueOf, more: moreOf, unit, element } = tile(id);
    valueOf.replaceChildren(value, unit && value !== '–' ? h('small', {}, unit) : '');
    moreOf.textContent = more;
    element.classList.toggle('bad', isBad);
  };
  const kinds = by.map(({ engine, transport, count }) => `${compact.format(count)} ${clientName(engine)}${transport === 'polling' ? ' polling' : ''}`);
  const all = everywhere ? `${number.format(everywhere.connections)} on all nodes${everywhere.partial ? ' that answered' : ''}, here: ` : '';
  show('connections', number.format(last('connections')), all + (kinds.join(', ') || (all && 'none')));
  show('events', number.format(last('delivered') + last('unheard')), last('unheard') ? `${number.format(last('unheard'))} reached no client` : '');
  show('deliveries', number.format(last('deliveries')), last('whispers') ? plural(last('whispers'), 'whisper') : '');
  const troubles = [totals.slow && `${plural(totals.slow, 'slow client')} closed`, totals.gaps && `${plural(totals.gaps, 'client')} missed events`].filter(Boolean);
  show('refusals', number.format(last('refusals')), troubles.length ? `${troubles.join(', ')} so far` : '');
  show('callbacks', number.format(last('callbacks')));
  const answered = samples.findLast(({ values }) => values[columns.indexOf('callbacks')] > 0);
  show('latency', answered ? number.format(answered.values[columns.indexOf('latency')]) : '–', answered ? 'on average' : '');
  const states = { up: 'connected', lost: 'lost', connecting: 'connecting', off: redisServer ? 'built in' : 'not used' };
  const losses = totals.redisLosses ? `lost ${plural(totals.redisLosses, 'time')} so far` : '';
  show('redis', states[redis], losses, redis === 'lost');
  show('memory', bytes(last('memory')), log?.events ? `log: ${plural(log.events, 'event')}, ${duration(log.age)}` : '');
  if (!document.hidden) TILES.filter((one) => one.graph).forEach(draw);
}

/** Up to ten minutes from left to right: as long as the server has been running, but at least one. */
function draw(tile) {
  const indexes = tile.graph.map((name) => columns.indexOf(name));
  const values = samples.map(({ values: all }) => indexes.reduce((sum, index) => sum + all[index], 0));
  const step = Math.max(60, values.length) / WIDTH;
  const points = [];
  for (let end = values.length; end > 0; end -= step) points.unshift(Math.max(...values.slice(Math.max(0, Math.floor(end - step)), Math.ceil(end))));
  const most = Math.max(...points);
  const least = tile.steady ? Math.min(...points) : 0;
  const span = Math.max(most - least, tile.steady ? most * 0.2 : 0, 1);
  const left = WIDTH - points.length;
  const y = (value) => (HEIGHT - 2 - ((value - least) / span) * (HEIGHT - 4)).toFixed(1);
  const line = points.map((value, index) => `${left + index + 0.5},${y(value)}`).join('L');
  tile.line.setAttribute('d', `M${line}`);
  tile.area.setAttribute('d', `M${left + 0.5},${HEIGHT}L${line}L${WIDTH - 0.5},${HEIGHT}Z`);
}

// --- The trace ----------------------------------------------------------------------------------------------------------

const GROUPS = [
  ['delivered', 'Delivered'],
  ['unheard', 'Reached no client'],
  ['dropped', 'Dropped'],
  ['whispers', 'Whispers'],
  ['subscribes', 'Subscribes'],
  ['refusals', 'Refusals, gaps'],
  ['presence', 'Presence'],
  ['connections', 'Connections'],
];
const MAX_ROWS = 400;
const SOURCES = { redis: 'Redis', http: 'HTTP API', redis_server: 'built-in Redis endpoint' };

let shownGroups = new Set(GROUPS.map(([name]) => name).filter((name) => name !== 'connections'));
let held = null;

for (const [name, text] of GROUPS) {
  const chip = h('button', {
    type: 'button', class: 'chip', 'aria-pressed': String(shownGroups.has(name)), 'data-group': name,
    click: () => {
      if (shownGroups.has(name)) shownGroups.delete(name);
      else shownGroups.add(name);
      if (shownGroups.size === 0) shownGroups = new Set(GROUPS.map(([group]) => group));
      for (const each of $('groups').querySelectorAll('button')) each.setAttribute('aria-pressed', String(shownGroups.has(each.dataset.group)));
      stream.open();
    },
  }, text);
  $('groups').append(chip);
}

let typing;
for (const id of ['filter-channel', 'filter-who']) {
  $(id).addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => stream.open(), 300);
  });
}
$('filter').addEventListener('submit', (event) => {
  event.preventDefault();
  stream.open();
});
$('clear').addEventListener('click', () => {
  if (held) held = [];
  $('trace').replaceChildren();
  showTrace();
});
$('pause').addEventListener('click', () => {
  if (held) {
    const entries = held;
    held = null;
    addRows(entries);
  } else {
    held = [];
  }
  showTrace();
});

/** Entries of the last seconds, to tell which part of them is shown. */
let pace = [];

function takeTrace({ seen, missed, entries }, node) {
  if (!isShown(node)) return;
  const fresh = entries.filter(({ n }) => n > node.lastEntry);
  if (fresh.length) node.lastEntry = fresh.at(-1).n;
  if (me.clustered) for (const entry of fresh) entry.node = node.name;
  const now = Date.now();
  if (seen > 0) pace.push({ now, seen, shown: Math.min(seen, fresh.length), missed });
  pace = pace.filter((batch) => now - batch.now < 2000);
  if (view.name === 'channels') return takeChannelEvents(fresh, seen, node);
  if (view.name === 'why') return askAgainSoon();
  if (held) held = [...held, ...fresh].slice(-MAX_ROWS);
  else addRows(fresh);
  showTrace();
}

function addRows(entries) {
  if (entries.length === 0) return;
  let before = $('trace').firstChild;
  // Newest first; entries of another node may be older than those already shown.
  for (const entry of entries.slice(-MAX_ROWS).reverse()) {
    while (before && Number(before.dataset.at) > entry.at) before = before.nextSibling;
    const element = row(entry);
    element.dataset.at = entry.at;
    $('trace').insertBefore(element, before);
  }
  while ($('trace').children.length > MAX_ROWS) $('trace').lastChild.remove();
}

function showTrace() {
  if (stream.query !== showTrace.query) {
    showTrace.query = stream.query;
    $('trace').replaceChildren();
    pace = [];
    if (held) held = [];
  }
  const sum = (name) => pace.reduce((total, batch) => total + batch[name], 0);
  const [seen, shown] = [sum('seen'), sum('shown')];
  let text = '';
  if (seen > shown) text = `Sampled: ${number.format(Math.round(shown / 2))} of ${number.format(Math.round(seen / 2))} a second are shown, at most ${rate} of each kind.`;
  if (held) text = `Paused${held.length ? `, ${plural(held.length, 'line')} waiting` : ''}. ${text}`;
  if ($('sampling').textContent !== text) $('sampling').textContent = text;
  $('pause').textContent = held ? 'Go on' : 'Pause';
  $('pause').setAttribute('aria-pressed', String(Boolean(held)));
  const isFiltered = $('filter-channel').value || $('filter-who').value;
  $('trace-empty').textContent = $('trace').children.length ? '' : isFiltered ? 'Nothing yet that fits.' : 'Nothing has happened yet. Events, subscribes and refusals appear here as they come.';
}

setInterval(() => {
  if (pace.length && Date.now() - pace.at(-1).now > 2000 && view?.name === 'trace') {
    pace = [];
    showTrace();
  }
}, 1000);

const channelButton = (name) => h('button', { class: 'name mono', click: () => go('channels', name) }, name);
/** Socket ids are long; their ends distinguish them. */
const short = (id) => (/^\d{8,}\.\d{8,}$/.test(id) ? `${id.slice(0, 5)}…${id.slice(-4)}` : id);
const whoButton = (id) => h('button', { class: 'name mono id', title: short(id) === id ? null : id, click: () => go('who', id) }, short(id));

/** [kind, class of the kind, what, outcome, class of the outcome] */
function words(entry) {
  const channel = entry.channel === undefined ? '' : channelButton(entry.channel);
  const socket = entry.socket === undefined ? '' : whoButton(entry.socket);
  const user = entry.user === undefined ? null : ['user ', whoButton(entry.user)];
  const on = (name) => [h('span', { class: 'event mono' }, name), ' on ', channel];
  switch (entry.kind) {
    case 'event': {
      if (entry.dropped) return ['event', 'warn', on(entry.name), `delivered to ${number.format(entry.delivered)}, dropped for ${plural(entry.dropped, 'slow client')}`, 'warn'];
      if (entry.delivered > 0) return ['event', '', on(entry.name), `delivered to ${number.format(entry.delivered)}`, 'good'];
      return ['event', 'warn', on(entry.name), entry.has_left_out ? 'only its sender is there' : me.clustered ? 'no client on this node' : 'reached no client', 'warn'];
    }
    case 'dropped': return ['dropped', 'bad', entry.channel === undefined ? ['a message'] : ['a message to ', channel], 'reached no client', 'bad'];
    case 'whisper': return ['whisper', '', [...on(entry.name), ' by ', user ?? socket], 'relayed', ''];
    case 'subscribed': return ['subscribe', '', [socket, ' is in ', channel], plural(entry.count, 'socket') + ' here', ''];
    case 'granted': return ['grant', 'good', [socket, ' to ', channel, user ? [', ', ...user] : null].flat(), `${entry.by === 'application' ? 'Laravel said yes' : `by ${GRANTS[entry.by]}`}${entry.took === undefined ? '' : `, ${entry.took} ms`}`, 'good'];
    case 'refused': return ['refused', 'bad', [socket, ' to ', channel], entry.status ? `status ${entry.status}` : entry.status === 0 ? 'no answer' : 'dropped', 'bad'];
    case 'turned': return ['refused', 'bad', [entry.origin ? ['a client of ', h('span', { class: 'mono' }, entry.origin)] : 'a client'].flat(), 'was rejected', 'bad'];
    case 'left': return ['leave', '', [socket, ' out of ', channel], entry.reason, ''];
    case 'joined': return ['join', '', [...(user ?? []), ' in ', channel], '', ''];
    case 'gone': return ['gone', '', [...(user ?? []), ' out of ', channel], '', ''];
    case 'miss': return ['cache miss', '', [channel, ' has no event yet'], '', ''];
    case 'returned': return ['back', 'good', [socket, ' came back'], `${plural(entry.count, 'event')} sent again`, 'good'];
    case 'afresh': return ['gap', 'warn', [socket, ' came back with a new session'], 'not all events are kept', 'warn'];
    case 'gap': return ['gap', 'warn', ['Redis is connected again'], 'events may be missing', 'warn'];
    case 'connected': return ['connect', '', [socket], '', ''];
    default: return [entry.kind === 'disconnected' ? 'disconnect' : entry.kind, '', [socket], entry.reason ?? '', ''];
  }
}

const GRANTS = { application: "Laravel's answer", token: 'a token', signature: "Laravel's signature" };

const CAUSES = {
  malformed: 'a malformed message', channel_name: 'the name of the channel is too long', subscriptions: 'too many channels',
  subscribe_rate: 'subscribes too fast', headers: 'headers are too large', origin: 'the origin of its page is not allowed', connections: 'too many clients', connections_per_ip: 'too many clients of one address',
  draining: 'the server is stopping', whisper: 'the whisper is not allowed', whisper_size: 'the whisper is too large',
  members: 'the channel is full', users: 'joins and leaves again and again', message_size: 'the message is too large',
  whisper_rate: 'whispers too fast', whisper_queue: 'no room on the way to the other nodes',
};

function row(entry) {
  const [kind, kindClass, what, outcome, outcomeClass] = words(entry);
  const lines = [];
  const more = [];
  if (entry.node) more.push(entry.node);
  if (entry.kind === 'event') more.push(SOURCES[entry.source] ?? entry.source, bytes(entry.size));
  if (entry.kind === 'whisper') more.push(bytes(entry.size));
  if (entry.kind === 'dropped') more.push(SOURCES[entry.source] ?? entry.source, entry.why);
  if (entry.except && entry.has_left_out) more.push(`not to ${short(entry.except)}`);
  if (entry.answer) more.push(entry.answer);
  else if (CAUSES[entry.cause]) more.push(CAUSES[entry.cause]);
  const isPlain = entry.data === undefined;
  let meta = h('span');
  if (more.length && isPlain) lines.push(h('span', { class: 'more-line' }, more.join(' · ')));
  if (entry.near) lines.push(h('span', { class: 'more-line hint' }, 'clients are in ', channelButton(entry.near.channel), `: ${entry.near.hint}`));
  if (entry.hint) lines.push(h('span', { class: 'more-line hint' }, entry.hint));
  if (!isPlain) {
    meta = h('button', {
      class: 'meta', 'aria-expanded': 'false', title: 'Show the data',
      click: ({ currentTarget: button }) => {
        const isOpen = button.getAttribute('aria-expanded') === 'true';
        button.setAttribute('aria-expanded', String(!isOpen));
        if (isOpen) button.parentElement.querySelector('pre').remove();
        else button.parentElement.append(h('pre', { tabindex: '0' }, pretty(entry)));
      },
    }, more.join(' · '));
  }
  return h('li', { class: 'new', 'data-kind': entry.kind },
    h('time', { datetime: new Date(entry.at).toISOString() }, clock(entry.at)),
    h('span', { class: `kind ${kindClass}` }, kind),
    h('span', { class: 'what' }, ...what),
    meta,
    h('span', { class: `outcome ${outcomeClass}` }, outcome),
    ...lines);
}

function pretty({ data, size }) {
  const isCut = new TextEncoder().encode(data).length < size;
  if (isCut) return `${data}\n… the first 2 KB of ${bytes(size)}`;
  try {
    return JSON.stringify(JSON.parse(data), null, 2);
  } catch {
    return data;
  }
}

// --- Channels -----------------------------------------------------------------------------------------------------------

const ROW = 34;
let channels = { all: [], shown: [], total: 0, at: -1 };
let channelEvents = [];
let channelPace = [];

async function loadChannels() {
  if (view.name !== 'channels' || document.hidden) return;
  const text = $('search-text').value.trim();
  // Beyond the size of one response, the server searches.
  const query = channels.total > channels.all.length ? `?q=${encodeURIComponent(text)}` : '';
  const found = await ask(`api/channels${query}`).catch(() => null);
  if (!found) return;
  channels.all = found.channels;
  channels.total = query ? Math.max(channels.total, found.total) : found.total;
  channels.partial = found.partial;
  sortChannels();
}

function sortChannels() {
  const text = $('search-text').value.trim().toLowerCase();
  channels.shown = channels.all.filter(([name]) => name.toLowerCase().includes(text));
  if ($('search-sort').value === 'name') channels.shown.sort(([a], [b]) => (a < b ? -1 : 1));
  else channels.shown.sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
  channels.at = channels.shown.findIndex(([name]) => name === view.argument);
  const cut = channels.total > channels.all.length ? ` of ${number.format(channels.total)}, the largest` : '';
  const where = me.clustered ? (channels.partial ? ', of the nodes that answered' : ', of all nodes') : '';
  $('search-count').textContent = plural(channels.shown.length, 'channel') + cut + where;
  showRows();
}

/** Only visible rows are in the document. */
function showRows() {
  const list = $('channels');
  $('channels-rows').style.height = `${channels.shown.length * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
  const last = Math.min(channels.shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 8);
  const rows = channels.shown.slice(first, last).map(([name, count], offset) => {
    const index = first + offset;
    const element = h('div', {
      class: 'row', role: 'option', id: `channel-${index}`, title: name,
      'aria-selected': String(index === channels.at), 'aria-setsize': channels.shown.length, 'aria-posinset': index + 1,
      click: () => go('channels', name),
    }, h('span', { class: 'mono' }, name), h('span', {}, number.format(count)));
    element.style.top = `${index * ROW}px`;
    return element;
  });
  $('channels-rows').replaceChildren(...rows);
  if (channels.at >= first && channels.at < last) list.setAttribute('aria-activedescendant', `channel-${channels.at}`);
  else list.removeAttribute('aria-activedescendant');
}

$('channels').addEventListener('scroll', () => requestAnimationFrame(showRows), { passive: true });
$('channels').addEventListener('keydown', (event) => {
  const page = Math.floor($('channels').clientHeight / ROW) - 1;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || channels.shown.length === 0) return;
  event.preventDefault();
  channels.at = Math.max(0, Math.min(channels.shown.length - 1, channels.at + steps[event.key]));
  const top = channels.at * ROW;
  const list = $('channels');
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  showRows();
  clearTimeout(typing);
  typing = setTimeout(() => go('channels', channels.shown[channels.at][0]), 150);
});
$('search-text').addEventListener('input', () => {
  $('channels').scrollTop = 0;
  sortChannels();
  if (channels.total > channels.all.length) {
    clearTimeout(typing);
    typing = setTimeout(loadChannels, 300);
  }
});
$('search-sort').addEventListener('change', sortChannels);
$('search').addEventListener('submit', (event) => event.preventDefault());

async function showChannel() {
  const name = view.argument;
  if (view.name !== 'channels' || !name || document.hidden) return;
  const found = await ask(`api/channel?name=${encodeURIComponent(name)}`).catch(() => null);
  if (!found || view.argument !== name) return;
  const isGuarded = found.kind !== 'public';
  const facts = [['Kind', found.kind], ['Subscribed', plural(found.everywhere, 'socket') + (me.clustered ? ` on all nodes, ${number.format(found.here)} here` : '')]];
  if (found.members) facts.push(['Members', plural(found.users, 'user')]);
  const rateOf = h('dd', { id: 'channel-rate' }, channelRate());
  const parts = [
    h('h2', { class: 'mono' }, name),
    list([...facts, ['Events', rateOf]]),
    found.here === 0 && found.near && h('p', { class: 'warn' }, 'No client is here, but clients are in ', channelButton(found.near.channel), `: ${found.near.hint}`),
    h('div', { class: 'buttons' },
      h('button', { click: () => { $('ask-channel').value = name; go('why'); $('ask').requestSubmit(); } }, 'Why did my event not arrive?'),
      me.actions && h('button', { click: () => { $('send-channel').value = name; go('send'); } }, 'Send an event'),
      me.actions && isGuarded && sure('Ask Laravel again', 'Ask about all sockets?', async () => {
        const done = await post('api/act', { do: 'askAgain', channel: name });
        toast(`Laravel was asked about ${plural(done.checked, 'socket')}; ${number.format(done.removed)} were removed${done.undecided ? `, ${done.undecided} without an answer` : ''}.`);
        showChannel();
      })),
    found.members && found.members.length > 0 && [
      h('h3', {}, found.users > found.members.length ? `The first ${found.members.length} members` : 'Members'),
      table(['User', 'Info', 'Sockets', me.actions && ''], found.members.map(({ id, info, sockets }) => [
        whoButton(id), h('span', { class: 'mono quiet' }, info === null ? '' : JSON.stringify(info)), number.format(sockets),
        me.actions && kickUser(id, name),
      ])),
    ],
    found.sockets.length > 0 && [
      h('h3', {}, `${found.here > found.sockets.length ? `The first ${found.sockets.length} sockets` : 'Sockets'}${me.clustered ? ' of this node' : ''}`),
      socketTable(found.sockets, name),
    ],
    h('h3', {}, 'Last events, while this page is open'),
    h('ol', { class: 'trace', id: 'channel-events' }),
  ];
  // Does not replace a table that is being read, or a button that is being pressed.
  if ($('channel').contains(document.activeElement) && $('channel').dataset.name === name) return;
  $('channel').dataset.name = name;
  $('channel').replaceChildren(...parts.flat().filter(Boolean));
  showChannelEvents();
}

function list(facts) {
  return h('dl', { class: 'facts' }, facts.flatMap(([name, value]) => [h('dt', {}, name), value instanceof Element && value.tagName === 'DD' ? value : h('dd', {}, value)]));
}

function table(heads, rows) {
  const head = heads.filter((text) => text !== false && text !== undefined).map((text) => h('th', { scope: 'col' }, text === '' ? h('span', { class: 'hidden' }, 'What to do') : text));
  const line = (cells) => h('tr', {}, cells.filter((cell) => cell !== false && cell !== undefined).map((cell) => h('td', { class: typeof cell === 'string' ? 'num' : null }, cell)));
  return h('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Table' }, h('table', {}, h('thead', {}, h('tr', {}, head)), h('tbody', {}, rows.map(line))));
}

function socketTable(sockets, channel) {
  return table(['Socket', 'User', 'Address', 'Client', 'For', me.actions && ''], sockets.map((socket) => [
    whoButton(socket.id), socket.user === null ? '' : whoButton(socket.user), socket.address ?? '',
    `${clientName(socket.engine)}${socket.transport === 'polling' ? ', polling' : ''}`, duration(socket.age),
    me.actions && (channel ? kickSocket(socket.id, channel) : closeSocket(socket.id)),
  ]));
}

function channelRate() {
  const now = Date.now();
  channelPace = channelPace.filter((batch) => now - batch.now < 5000);
  const byNode = new Map();
  for (const { id, seen } of channelPace) byNode.set(id, (byNode.get(id) ?? 0) + seen);
  // An event reaches every node, so it is not summed.
  const seen = Math.max(0, ...byNode.values());
  return `${(seen / 5).toFixed(seen > 0 && seen < 50 ? 1 : 0)} a second`;
}

function takeChannelEvents(entries, seen, { id }) {
  channelPace.push({ now: Date.now(), seen, id });
  channelEvents = [...channelEvents, ...entries].slice(-30);
  showChannelEvents(entries);
}

function showChannelEvents() {
  const rows = $('channel-events');
  if (!rows) return;
  const key = ({ n, node = '' }) => `${n} ${node}`;
  const known = new Set([...rows.children].map((each) => each.dataset.n));
  const fresh = channelEvents.filter((entry) => !known.has(key(entry)));
  for (const entry of fresh) {
    const element = row(entry);
    element.dataset.n = key(entry);
    rows.prepend(element);
  }
  while (rows.children.length > 30) rows.lastChild.remove();
}

setInterval(() => {
  if (view?.name === 'channels' && $('channel-rate')) $('channel-rate').textContent = channelRate();
}, 1000);

// --- A user or a socket -------------------------------------------------------------------------------------------------

$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  go('who', $('find-text').value.trim());
});

async function showWho() {
  const id = view.argument;
  if (view.name !== 'who' || !id || document.hidden) return;
  $('find-text').value = id;
  const place = $('found');
  if (place.contains(document.activeElement) && place.dataset.id === id) return;
  const socket = /^\d+\.\d+$/.test(id) ? await ask(`api/socket?id=${encodeURIComponent(id)}`).catch(() => null) : null;
  const user = socket ? null : await ask(`api/user?id=${encodeURIComponent(id)}`).catch(() => null);
  if (view.argument !== id) return;
  place.dataset.id = id;
  const trace = h('button', { click: () => { $('filter-who').value = id; go('trace'); } }, 'Trace it');
  if (socket) {
    const waiting = socket.waiting.messages ? `${plural(socket.waiting.messages, 'message')}, ${bytes(socket.waiting.bytes)}` : 'nothing';
    place.replaceChildren(
      h('h2', { class: 'mono' }, id),
      list([
        ['User', socket.user === null ? 'not known' : whoButton(socket.user)],
        ['Address', socket.address ?? 'not known'],
        ['Client', `${clientName(socket.engine)} by ${socket.transport}`],
        ['Connected for', duration(socket.age)],
        ['Queued for it', waiting],
        ...(socket.origin ? [['Page', socket.origin]] : []),
        ...(socket.browser ? [['Browser', socket.browser]] : []),
      ]),
      h('div', { class: 'buttons' }, trace, me.actions && closeSocket(id)),
      h('h3', {}, socket.channels.length ? 'Channels' : 'Not in any channel'),
      socket.channels.length ? table(['Channel', 'Granted by', 'Until', me.actions && ''], socket.channels.map((stay) => [
        channelButton(stay.channel),
        stay.joined ? GRANTS[stay.by] ?? 'nothing, the channel is open' : 'waiting for Laravel…',
        stay.endsIn === null ? 'no end' : `${duration(stay.endsIn)} from now`,
        me.actions && kickSocket(id, stay.channel),
      ])) : '');
  } else if (user?.sockets.length) {
    place.replaceChildren(
      h('h2', {}, 'User ', h('span', { class: 'mono' }, id)),
      h('p', {}, `${plural(user.sockets.length, 'socket')}${me.clustered ? ' on this node' : ''}`),
      h('div', { class: 'buttons' }, trace, me.actions && sure('Close all connections', 'Close them all?', async () => {
        const done = await post('api/act', { do: 'closeUser', user: id });
        toast(`${plural(done.sockets, 'connection')} closed.`);
      })),
      h('h3', {}, 'Sockets'),
      socketTable(user.sockets));
  } else {
    place.replaceChildren(h('p', {}, `Nobody${me.clustered ? ' on this node' : ''} has the id `, h('code', {}, id),
      '. A user is known by a presence channel, by a token that names it, or by Pusher’s sign-in.'));
  }
}

// --- Actions ------------------------------------------------------------------------------------------------------------

/** A button that has to be pressed twice. */
function sure(text, question, act) {
  let asked;
  const button = h('button', {
    class: 'danger',
    click: async () => {
      if (!asked) {
        button.textContent = question;
        button.classList.add('asked');
        asked = setTimeout(() => { asked = null; button.textContent = text; button.classList.remove('asked'); }, 4000);
        return;
      }
      button.classList.remove('asked');
      clearTimeout(asked);
      asked = null;
      button.textContent = text;
      button.disabled = true;
      await act().catch((error) => toast(error.message));
      button.disabled = false;
      button.blur();
      refresh();
    },
  }, text);
  return button;
}

const kickUser = (user, channel) => sure('Kick', 'Kick out?', async () => {
  const done = await post('api/act', { do: 'kickUser', user, channel });
  toast(`${plural(done.sockets, 'socket')} of user ${user} taken out.`);
});
const kickSocket = (socket, channel) => sure('Kick', 'Kick out?', async () => {
  const done = await post('api/act', { do: 'kickSocket', socket, channel });
  toast(done.sockets ? 'Taken out of the channel.' : 'It was no longer in the channel.');
});
const closeSocket = (socket) => sure('Close', 'Close it?', async () => {
  const done = await post('api/act', { do: 'closeSocket', socket });
  toast(done.sockets ? 'Closed.' : 'It was already closed.');
});

$('send').addEventListener('submit', async (event) => {
  event.preventDefault();
  const result = $('send-result');
  result.className = '';
  let data;
  try {
    data = JSON.parse($('send-data').value);
  } catch (error) {
    result.className = 'bad';
    result.textContent = `The data is not JSON: ${error.message}`;
    return $('send-data').focus();
  }
  const channel = $('send-channel').value.trim();
  try {
    await post('api/event', { channel, name: $('send-name').value.trim(), data });
    result.replaceChildren('Sent. ', h('button', { type: 'button', class: 'plain-button', click: () => { $('filter-channel').value = channel; go('trace'); } }, 'See it in the trace'));
  } catch (error) {
    result.className = 'bad';
    result.textContent = error.message;
  }
});

function showListen() {
  const [channel, name] = [$('send-channel').value.trim(), $('send-name').value.trim()];
  const of = channel.startsWith('private-') ? `private('${channel.slice(8)}')` : channel.startsWith('presence-') ? `join('${channel.slice(9)}')` : `channel('${channel}')`;
  const event = name.startsWith('App\\Events\\') ? name.slice(11).replaceAll('\\', '.') : `.${name.replaceAll('\\', '\\\\')}`;
  $('send-listen').textContent = `Echo.${of}.listen('${event}', …)`;
}
$('send').addEventListener('input', showListen);

// --- Why? ---------------------------------------------------------------------------------------------------------------

let asked = null;
let askingSoon;

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  asked = { channel: $('ask-channel').value.trim(), event: $('ask-event').value.trim() };
  showWhy();
  check();
});
$('check').addEventListener('click', () => check());

const showFindings = (place, findings) => place.replaceChildren(...findings.map(({ weight, text, hint }) => h('li', { class: weight }, text, hint ? h('p', {}, hint) : null)));

/** The findings of `doctor`: it contacts Redis, Laravel and the application, so it runs only on request. */
async function check() {
  if (!me.checks || $('check').disabled) return;
  $('check').disabled = true;
  $('checks-state').textContent = 'Checking, which takes a few seconds…';
  try {
    const { findings } = await ask('api/checks');
    const weights = { problem: 'wrong', warning: 'doubt', unknown: 'note', ok: 'fine' };
    const found = findings.map(({ check: what, status, message, fix }) => ({ weight: weights[status], text: `${what}: ${message}`, hint: fix }));
    const order = Object.values(weights);
    showFindings($('checks'), found.sort((a, b) => order.indexOf(a.weight) - order.indexOf(b.weight)));
    $('checks-state').textContent = '';
  } catch (error) {
    $('checks-state').textContent = error.message;
  }
  $('check').disabled = false;
}

async function showWhy() {
  if (view.name !== 'why' || !asked || document.hidden) return;
  const found = await ask(`api/why?${new URLSearchParams(asked)}`).catch(() => null);
  if (!found) return;
  const text = JSON.stringify(found.findings);
  if (text === showWhy.last) return;
  showWhy.last = text;
  showFindings($('findings'), found.findings);
  $('ask-live').textContent = 'Live: send the event, and this updates.';
}

function askAgainSoon() {
  askingSoon ??= setTimeout(() => {
    askingSoon = null;
    showWhy();
  }, 500);
}

// --- Views --------------------------------------------------------------------------------------------------------------

const VIEWS = ['trace', 'channels', 'who', 'why', 'send'];
let view = { name: 'trace', argument: '' };

function go(name, argument = '') {
  const hash = `#${name}${argument ? `/${encodeURIComponent(argument)}` : ''}`;
  if (location.hash === hash) showView();
  else location.hash = hash;
}

function showView() {
  const [name, argument = ''] = location.hash.slice(1).split('/');
  const before = view;
  let decoded = '';
  try {
    decoded = decodeURIComponent(argument);
  } catch {
    // A hash that was typed by hand.
  }
  view = { name: VIEWS.includes(name) && (name !== 'send' || me?.actions) ? name : 'trace', argument: decoded };
  for (const each of VIEWS) {
    const isIt = each === view.name;
    $(`view-${each}`).hidden = !isIt;
    $(`tab-${each}`).setAttribute('aria-selected', String(isIt));
    $(`tab-${each}`).tabIndex = isIt ? 0 : -1;
  }
  if (view.name === 'channels') {
    if (before.name !== 'channels' || !channels.all.length) loadChannels();
    else sortChannels();
    if (before.argument !== view.argument) channelPace = [];
    if (!view.argument) $('channel').replaceChildren(h('p', { class: 'quiet' }, 'Choose a channel.'));
    else showChannel();
  }
  if (view.name === 'who') showWho();
  if (view.name === 'why') showWhy();
  if (view.name === 'send') showListen();
  stream.open();
}

function refresh() {
  showChannel();
  showWho();
}

window.addEventListener('hashchange', () => me && !$('app').hidden && showView());
document.addEventListener('visibilitychange', () => !document.hidden && me && refresh());
for (const [index, name] of VIEWS.entries()) {
  $(`tab-${name}`).addEventListener('click', () => go(name));
  $(`tab-${name}`).addEventListener('keydown', (event) => {
    const shown = VIEWS.filter((each) => !$(`tab-${each}`).hidden);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = shown[(to + shown.length) % shown.length];
    go(next);
    $(`tab-${next}`).focus();
  });
}
setInterval(() => view.name === 'channels' && me && !$('app').hidden && loadChannels(), 5000);
setInterval(() => me && !$('app').hidden && refresh(), 3000);
setInterval(() => me && !$('app').hidden && showWhy(), 3000);

// --- The demo -----------------------------------------------------------------------------------------------------------

/** With `start --demo` the page is also a subscriber, and shows the first event and the next step. */
async function beginDemo() {
  if (!sessionStorage.getItem('demo') || !$('first').hidden) return;
  const answer = await fetch('/demo/next').catch(() => null);
  if (!answer?.ok) return;
  const { channel, key, tinker, hasRedisServer } = await answer.json();
  const event = { channel, name: 'hello', data: { text: 'Hi' } };
  $('first').hidden = false;
  $('first-send').addEventListener('click', () => post('api/event', event).catch((error) => toast(error.message)));
  $('curl').textContent = `curl -X POST '${location.origin}/apps/${channel}/events?auth_key=${key}' -d '${JSON.stringify(event)}'`;
  $('first-where').textContent = hasRedisServer ? ', whose Redis broadcasts this server accepts itself' : ', with the Redis that this server listens to';
  $('laravel').textContent = tinker;
  listen(channel);
}

/** A hand-written laravel-echo and socket.io-client: 0 open, 40 connect, 42 event, 2 ping, 3 pong. */
function listen(channel) {
  const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  socket.addEventListener('message', ({ data: packet }) => {
    if (packet === '2') socket.send('3');
    else if (packet.startsWith('0')) socket.send('40');
    else if (packet.startsWith('40')) socket.send('42' + JSON.stringify(['subscribe', { channel }]));
    else if (packet.startsWith('42')) {
      const [event, on, data] = JSON.parse(packet.slice(2));
      $('first-events').append(h('li', {}, `✓ arrived: ${event} on ${on}: ${JSON.stringify(data)}`));
      while ($('first-events').children.length > 3) $('first-events').firstChild.remove();
    }
  });
  socket.addEventListener('close', () => setTimeout(() => listen(channel), 1000));
}

begin();
