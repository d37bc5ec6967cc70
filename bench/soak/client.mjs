// An Echo client that can misbehave: both versions of Engine.IO, all three transports, and ways to disconnect that no library
// offers. Input: packets of the server. Output: `onEvent`, and `onEnd` when the connection ends unexpectedly.

import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../tests/compat/package.json', import.meta.url));
const WebSocket = require('ws');

/** How long a client waits for an expected answer. */
const PATIENCE = 20_000;

/** Every kind of client; `upgrade` begins with polling. */
export const KINDS = ['websocket', 'polling', 'upgrade'].flatMap((way) => [3, 4].map((engine) => ({ way, engine })));

/** Rejects when `promise` takes too long. */
export function within(promise, what, ms = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export class Client {
  /** `onEvent(name, channel, data)`; `onEnd(reason)` at most once, and not after `leave`. */
  constructor(port, { way, engine }, { cookie, onEvent = () => {}, onEnd = () => {} } = {}) {
    Object.assign(this, { port, way, engine, cookie, onEvent, onEnd });
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
    this.posting = Promise.resolve();
    this.held = null;
    this.isMute = false;
    this.hasEnded = false;
    this.connected = new Promise((resolve) => {
      this.connect = resolve;
    });
  }

  get path() {
    return `/socket.io/?EIO=${this.engine}${this.sid ? `&sid=${this.sid}` : ''}`;
  }

  /** Resolves when the namespace is joined, and any upgrade is done. */
  async open() {
    if (this.way === 'websocket') {
      this.socket = this.#webSocket();
      this.socket.on('message', (data) => this.#packet(String(data)));
    } else {
      (await this.#get()).forEach((packet) => this.#packet(packet));
      this.polling = this.#poll();
    }
    await within(this.connected, `${this.way} ${this.engine} to connect`);
    if (this.way === 'upgrade') await within(this.#upgrade(), 'the upgrade');
  }

  emit(event, argument) {
    this.#send(`42${JSON.stringify([event, argument])}`);
  }

  subscribe(channel) {
    this.emit('subscribe', { channel, auth: { headers: {} } });
  }

  whisper(channel, event, data) {
    this.emit('client event', { channel, event, data });
  }

  /** Stops reading and answering. */
  freeze() {
    this.isMute = true;
    this.socket?._socket?.pause();
  }

  /** Disconnects as clients do: `goodbye`, `drop`, `silent` (the server has to detect it). */
  async leave(manner) {
    this.hasEnded = true;
    clearInterval(this.heartbeat);
    if (manner === 'silent') {
      this.freeze();
      return;
    }
    if (manner === 'goodbye') {
      if (this.socket) {
        if (this.socket.readyState === WebSocket.OPEN) this.socket.send('41');
        this.socket.close();
      } else {
        this.#send('41');
        this.#send('1');
        await this.posting.catch(() => {});
        await this.polling;
      }
    } else {
      this.socket?.terminate();
    }
    this.agent.destroy();
  }

  #end(reason) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearInterval(this.heartbeat);
    this.agent.destroy();
    this.onEnd(reason);
  }

  #packet(packet) {
    switch (packet[0]) {
      case '0': {
        const { sid, pingInterval } = JSON.parse(packet.slice(1));
        this.sid = sid;
        if (this.engine === 4) this.#send('40');
        else this.heartbeat = setInterval(() => this.#send('2'), pingInterval);
        return;
      }
      case '1':
        return this.#end('closed by the server');
      case '2':
        return this.isMute || this.#send('3');
      case '4':
        break;
      default:
        return;
    }
    if (packet[1] === '0') {
      this.connect();
    } else if (packet[1] === '1') {
      this.#end('told to go away');
    } else if (packet[1] === '2' && !this.isMute) {
      this.onEvent(...JSON.parse(packet.slice(2)));
    }
  }

  #send(packet) {
    if (this.held) {
      this.held.push(packet);
    } else if (this.socket) {
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(packet);
    } else {
      const body = this.engine === 3 ? `${packet.length}:${packet}` : packet;
      this.posting = this.posting.then(() => this.#request('POST', body)).catch((error) => this.#end(`POST: ${error.message}`));
    }
  }

  #webSocket() {
    const headers = this.cookie ? { cookie: this.cookie } : {};
    const socket = new WebSocket(`ws://127.0.0.1:${this.port}${this.path}&transport=websocket`, { headers });
    socket.on('error', (error) => this.#end(`websocket: ${error.message}`));
    socket.on('close', (code) => this.#end(`websocket closed with ${code}`));
    return socket;
  }

  #request(method, body) {
    return new Promise((resolve, reject) => {
      const headers = { ...(this.cookie && { cookie: this.cookie }), ...(body && { 'content-type': 'text/plain;charset=UTF-8' }) };
      const path = `${this.path}&transport=polling`;
      const request = http.request({ host: '127.0.0.1', port: this.port, path, method, agent: this.agent, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk) => (text += chunk));
        response.on('error', reject);
        response.on('end', () => (response.statusCode === 200 ? resolve(text) : reject(new Error(`${response.statusCode} ${text}`))));
      });
      request.on('error', reject).end(body);
    });
  }

  async #get() {
    let rest = await this.#request('GET');
    if (this.engine === 4) return rest.split('\x1e');
    const packets = [];
    while (rest) {
      const colon = rest.indexOf(':');
      const end = colon + 1 + Number(rest.slice(0, colon));
      packets.push(rest.slice(colon + 1, end));
      rest = rest.slice(end);
    }
    return packets;
  }

  /** Polls until the client ends or switches to a websocket. */
  async #poll() {
    try {
      while (!this.hasEnded && !this.held && !this.isMute) (await this.#get()).forEach((packet) => this.#packet(packet));
    } catch (error) {
      this.#end(`GET: ${error.message}`);
    }
  }

  async #upgrade() {
    const socket = this.#webSocket();
    await new Promise((resolve, reject) => {
      socket.on('open', () => socket.send('2probe'));
      socket.on('close', () => reject(new Error('the probe was refused')));
      socket.once('message', resolve);
    });
    // Like engine.io-client: posts nothing from now on, and waits for the pending poll first.
    this.held = [];
    await Promise.all([this.polling, this.posting]);
    this.socket = socket;
    socket.on('message', (data) => this.#packet(String(data)));
    socket.send('5');
    const held = this.held;
    this.held = null;
    held.forEach((packet) => socket.send(packet));
  }
}
