/** laravel-echo on pusher-js, in Node, and events over the echo server's HTTP API. */
import { Recording } from './clients.mjs';
import { until } from './wait.mjs';

/** The entry in the echo server's `clients` that Laravel and its pages use. */
export const PUSHER_APP = { appId: 'shop', key: 'shop-key', secret: 'shop-secret' };

/** Publishes with the application's key. */
export class HttpPublisher {
  constructor(echoUrl) {
    this.url = `${echoUrl}/apps/${PUSHER_APP.appId}/events`;
  }

  async publish(channel, name, data) {
    const headers = { Authorization: `Bearer ${PUSHER_APP.key}`, 'Content-Type': 'application/json' };
    const response = await fetch(this.url, { method: 'POST', headers, body: JSON.stringify({ channel, name, data }) });
    if (!response.ok) throw new Error(`${this.url} answered ${response.status}: ${await response.text()}`);
  }
}

async function load(name) {
  const { default: exported } = await import(name);
  return exported.default ?? exported;
}

/** By name: [laravel-echo, pusher-js, broadcaster]. */
const CLIENTS = {
  'echo 2, reverb': ['echo-2', 'pusher-js-8', 'reverb'],
  'echo 1, pusher': ['echo-1', 'pusher-js-7', 'pusher'],
};

/** One user's page: Echo with a visitor's cookies, with the same methods as the EchoClient of Socket.IO. */
export class PusherClient {
  static async connect(name, stack, visitor) {
    const [echo, pusher, broadcaster] = CLIENTS[name];
    const client = new PusherClient({ Echo: await load(echo), Pusher: await load(pusher), broadcaster, stack, visitor });
    await until(() => client.socketId, () => `${name} to connect; the server's log:\n${stack.echo.log}`);
    return client;
  }

  constructor({ Echo, Pusher, broadcaster, stack, visitor }) {
    this.stack = stack;
    this.visitor = visitor;
    const { hostname, port } = new URL(stack.echo.url);
    /** Asks Laravel with the visitor's session, as pusher-js does in a page of Laravel. */
    const ask = async (path, form, callback) => {
      try {
        callback(null, await visitor.post(path, form));
      } catch (error) {
        callback(error, null);
      }
    };
    const options = {
      wsHost: hostname,
      wsPort: Number(port),
      cluster: '',
      forceTLS: false,
      enabledTransports: ['ws'],
      disableStats: true,
      authorizer: (channel) => ({
        authorize: (socketId, callback) => ask('/broadcasting/auth', { socket_id: socketId, channel_name: channel.name }, callback),
      }),
      userAuthentication: { customHandler: ({ socketId }, callback) => ask('/pusher/sign-in', { socket_id: socketId }, callback) },
    };
    this.pusher = new Pusher(PUSHER_APP.key, options);
    this.echo = new Echo({ broadcaster, key: PUSHER_APP.key, ...options, client: this.pusher });
  }

  get socketId() {
    return this.pusher.connection.socket_id;
  }

  record(what, register) {
    const recording = new Recording(() => `${what}; the server's log:\n${this.stack.echo.log}`);
    register((value) => recording.add(value));
    return recording;
  }

  async listen(channel, event) {
    const recording = this.record(`${event} on ${channel.name}`, (callback) => channel.listen(event, callback));
    await this.whenDelivering(channel.name);
    return recording;
  }

  /** This protocol confirms a subscribe. */
  async whenDelivering(name) {
    await until(() => this.pusher.channel(name)?.subscribed, () => `${name} to be joined; the server's log:\n${this.stack.echo.log}`);
  }

  /** The status with which a channel is refused; call it right after the subscribe. */
  async refusal(name) {
    const refused = this.record(`${name} to be refused`, (callback) => this.pusher.channel(name).bind('pusher:subscription_error', callback));
    // pusher-js passes on the answers of its own handlers as text.
    return Number(/ answered (\d+)/.exec((await refused.next()).error)?.[1]);
  }

  close() {
    this.echo.disconnect();
  }
}
