/** laravel-echo on socket.io-client, in Node. */
import assert from 'node:assert/strict';
import { KEY_PREFIX } from './redis.mjs';
import { until } from './wait.mjs';

/** The exports of a package, whether it is an ES module or CommonJS. */
async function load(name) {
  const { default: exported } = await import(name);
  return exported.default ?? exported;
}

const UPGRADE = ['polling', 'websocket'];

/** By name: [laravel-echo, socket.io-client, transports]. */
const CLIENTS = {
  'echo 2, socket.io 4': ['echo-2', 'sio-4', UPGRADE],
  'echo 2, socket.io 4, websocket': ['echo-2', 'sio-4', ['websocket']],
  'echo 2, socket.io 2': ['echo-2', 'sio-2', UPGRADE],
  'echo 1, socket.io 2': ['echo-1', 'sio-2', UPGRADE],
  'echo 1, socket.io 2, polling': ['echo-1', 'sio-2', ['polling']],
};

/** One user's page: Echo with the cookies of a visitor of the Laravel application. */
export class EchoClient {
  /** Connect; `name` is one of CLIENTS. */
  static async connect(name, stack, visitor) {
    const [echo, socketIo, transports] = CLIENTS[name];
    const client = new EchoClient({ Echo: await load(echo), io: await load(socketIo), transports, stack, visitor });
    await until(
      () => client.socketId,
      () => `${name} to connect (last error: ${client.#lastError}); the server's log:\n${stack.echo.log}`,
    );
    return client;
  }

  #lastError = 'none';
  #refusals = [];

  constructor({ Echo, io, transports, stack, visitor }) {
    this.stack = stack;
    this.visitor = visitor;
    this.echo = new Echo({
      broadcaster: 'socket.io',
      client: io,
      host: stack.echo.url,
      transports,
      forceNew: true,
      extraHeaders: { Cookie: visitor.cookie },
    });
    this.socket = this.echo.connector.socket;
    this.socket.on('connect_error', (error) => (this.#lastError = error.message));
    // Echo has no callback for a refusal that works in all its versions.
    this.socket.on('subscription_error', (...refusal) => this.#refusals.push(refusal));
  }

  get socketId() {
    return this.echo.socketId();
  }

  /** Record the values with which `register(callback)` calls back. */
  record(what, register) {
    const recording = new Recording(() => `${what}; the server's log:\n${this.stack.echo.log}`);
    register((value) => recording.add(value));
    return recording;
  }

  /** Record an event of an Echo channel, and wait until the channel delivers. */
  async listen(channel, event) {
    const recording = this.record(`${event} on ${channel.name}`, (callback) => channel.listen(event, callback));
    await this.whenDelivering(channel.name);
    return recording;
  }

  /**
   * The server does not confirm that a channel was joined, so publish a probe through Redis
   * until one comes through. `name` is the full name, as in "private-orders.1".
   */
  async whenDelivering(name) {
    let delivered = false;
    const onProbe = (channel) => (delivered ||= channel === name);
    this.socket.on('e2e.probe', onProbe);
    await until(
      async () => {
        if (!delivered) await this.stack.redis.publish(name, 'e2e.probe', {});
        return delivered;
      },
      () => `events on ${KEY_PREFIX}${name} to be delivered; the server's log:\n${this.stack.echo.log}`,
    );
    this.socket.off('e2e.probe', onProbe);
  }

  /** The status with which the server refused a channel. */
  async refusal(name) {
    const refused = ([channel]) => channel === name;
    await until(() => this.#refusals.some(refused), () => `${name} to be refused; the server's log:\n${this.stack.echo.log}`);
    assert.equal(this.#refusals.filter(refused).length, 1, `${name} is refused once`);
    return this.#refusals.find(refused)[1];
  }

  /** True when no channel was refused. */
  get nothingRefused() {
    return this.#refusals.length === 0;
  }

  close() {
    this.echo.disconnect();
  }
}

/** The values with which a callback was called, in order. */
export class Recording {
  #values = [];
  #read = 0;
  #what;

  constructor(what) {
    this.#what = what;
  }

  add(value) {
    this.#values.push(value);
  }

  /** The next unread value; waits for it. */
  async next() {
    await until(() => this.#values.length > this.#read, this.#what);
    this.#read += 1;
    return this.#values[this.#read - 1];
  }

  /** All values so far. */
  get all() {
    return [...this.#values];
  }
}
