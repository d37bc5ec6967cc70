/**
 * One Engine.IO session, driven step by step with bare HTTP requests and websockets.
 *
 * Input: steps. Output: the client's observations after each, in a form that is equal for servers that behave equally.
 */
import { once } from 'node:events';
import http from 'node:http';
import WebSocket from 'ws';

/** A little longer than a poll waits here for the probe of a websocket that was accepted. */
const EXPECTANT_MS = 60;
/** What has not arrived this long after the server answered another request will not arrive. */
const QUIET_MS = 30;
const PROBED_MS = 700;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const SEPARATOR = '\x1e';

export class Session {
  #agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  #sid;
  #seen = [];
  #polls = 0;
  #websockets = [];
  #pending = new Set();

  /** `publish` sends an event to all subscribers; with `isLate`, the first poll belongs to the handshake. */
  constructor(version, { port, publish, isLate }) {
    Object.assign(this, { version, port, publish, isLate });
  }

  #path(transport) {
    return `/socket.io/?EIO=${this.version}&transport=${transport}${this.#sid ? `&sid=${this.#sid}` : ''}`;
  }

  async #request(method, body, path = this.#path('polling')) {
    const headers = body === undefined ? {} : { 'content-type': 'text/plain;charset=UTF-8', 'content-length': Buffer.byteLength(body) };
    const request = http.request({ host: '127.0.0.1', port: this.port, path, method, headers, agent: this.#agent });
    request.end(body);
    try {
      const [response] = await once(request, 'response');
      let text = '';
      for await (const chunk of response.setEncoding('utf8')) text += chunk;
      return [response.statusCode, text];
    } catch {
      return ['dropped', ''];
    }
  }

  #see(what) {
    this.#seen.push(what);
  }

  /** Runs `work` concurrently. Its observations count for the step in which they are made. */
  #beside(work) {
    const pending = work.finally(() => this.#pending.delete(pending));
    this.#pending.add(pending);
  }

  /** Takes a step, and returns what was observed until nothing more arrived, in a deterministic order. */
  async step([name, argument]) {
    await this[name](argument);
    for (let before = -1; before !== this.#seen.length; ) {
      before = this.#seen.length;
      await this.#request('GET', undefined, '/socket.io/?transport=none');
      await pause(QUIET_MS);
    }
    return this.#seen.splice(0).sort();
  }

  async open() {
    const [status, body] = await this.#request('GET');
    const [open, ...more] = this.#packets(body);
    if (status !== 200) return this.#see(`open: ${status}`);
    const { sid, upgrades, pingInterval, pingTimeout } = JSON.parse(open.slice(1));
    this.#sid = sid;
    if (this.isLate) more.push(...this.#packets((await this.#request('GET'))[1]).filter((packet) => packet !== '2'));
    this.#see(`open: ${JSON.stringify({ upgrades, pingInterval, pingTimeout })} ${more}`);
  }

  async connect() {
    if (this.version === 3) return;
    await this.post(['40']);
    await this.poll();
  }

  async poll() {
    const number = this.#polls++;
    const [status, body] = await this.#request('GET');
    const said = status === 200 ? this.#packets(body).map(plain) : [];
    this.#see(`poll ${number}: ${status} ${said.join(' | ')}`);
  }

  /** A poll that may have to wait. */
  async waitingPoll() {
    this.#beside(this.poll());
    const websocket = this.#websockets.at(-1);
    if (websocket?.hasAsked && websocket.readyState === WebSocket.OPEN) await this.#probed();
  }

  /** During a probe, this server and engine.io answer polls, each at its own intervals. */
  #probed() {
    return Promise.race([Promise.allSettled([...this.#pending]), pause(PROBED_MS)]);
  }

  async post(packets) {
    const body = this.version === 4 ? packets.join(SEPARATOR) : packets.map((packet) => `${packet.length}:${packet}`).join('');
    await this.raw(body);
  }

  async raw(body) {
    const [status, text] = await this.#request('POST', body);
    this.#see(`post: ${status} ${status === 200 ? text : ''}`);
  }

  async websocket() {
    const number = this.#websockets.length;
    const websocket = new WebSocket(`ws://127.0.0.1:${this.port}${this.#path('websocket')}`);
    this.#websockets.push(websocket);
    websocket.on('message', (data) => this.#see(`websocket ${number}: ${plain(String(data))}`));
    websocket.on('close', () => this.#see(`websocket ${number} is closed`));
    websocket.on('error', () => {});
    this.#beside(Promise.race([once(websocket, 'open'), once(websocket, 'close')]).catch(() => {}));
    await Promise.allSettled([...this.#pending].slice(-1));
    await pause(EXPECTANT_MS);
  }

  /** No client upgrades without a probe: this server would refuse it, and engine.io would not. None probes again later. */
  async frame(text) {
    const websocket = this.#websockets.at(-1);
    if (websocket?.readyState !== WebSocket.OPEN || (text === '5' && !websocket.hasAsked) || (text === '2probe' && websocket.hasChanged)) return;
    websocket.hasAsked ||= text === '2probe';
    websocket.hasChanged ||= text === '5';
    websocket.send(text);
    if (text === '2probe') await this.#probed();
  }

  /** An upgrade from its begin to its end. */
  async upgrade() {
    await this.websocket();
    const websocket = this.#websockets.at(-1);
    const answered = Promise.race([once(websocket, 'message'), once(websocket, 'close')]).catch(() => {});
    await this.frame('2probe');
    if (websocket.readyState === WebSocket.OPEN) await answered;
    await this.frame('5');
  }

  closeWebsocket() {
    this.#websockets.at(-1)?.close();
  }

  async event(number) {
    await this.publish(number);
  }

  #packets(body) {
    if (this.version === 4) return body.split(SEPARATOR);
    const packets = [];
    for (let rest = body; rest; ) {
      const at = rest.indexOf(':');
      const length = Number(rest.slice(0, at));
      packets.push(rest.slice(at + 1, at + 1 + length));
      rest = rest.slice(at + 1 + length);
    }
    return packets;
  }

  async end() {
    for (const websocket of this.#websockets) websocket.terminate();
    this.#agent.destroy();
    await Promise.allSettled([...this.#pending]);
  }
}

/** A packet without ids. */
const plain = (packet) => packet.replace(/"(sid|pid)":"[^"]*"/g, '"$1":"…"');
