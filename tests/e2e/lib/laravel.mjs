/** Runs fixtures/laravel-app, and visits it like a browser. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { makeFolder, removeFolder } from './folder.mjs';
import { Child, onFreePort } from './process.mjs';
import { ENDPOINT_PASSWORD } from './redis.mjs';
import { program, requireLaravel } from './tools.mjs';
import { DEADLINE_MS } from './wait.mjs';

export const APP = fileURLToPath(new URL('../../../fixtures/laravel-app', import.meta.url));

/** The users that setup.php creates. */
export const USERS = {
  ann: { id: 1, name: 'Ann' },
  bob: { id: 2, name: 'Bob' },
  eve: { id: 100, name: 'Eve' },
};

export class LaravelApp {
  /**
   * `client`: "phpredis" or "predis". `echoPort`: the port of the echo server's own endpoint, to broadcast to it. `app`: the directory
   * of a copy with its own settings. `pusher`: `{ appId, key, secret, port }` of the echo server, to broadcast to its HTTP API.
   */
  static async start({ redisPort, echoPort, pusher, client = 'phpredis', app = APP }) {
    requireLaravel();
    const storage = app === APP ? makeFolder('echo-laravel-') : `${app}/storage`;
    const env = {
      APP_STORAGE: storage,
      PHP_CLI_SERVER_WORKERS: '4',
      REDIS_CLIENT: client,
      REDIS_HOST: '127.0.0.1',
      ...(redisPort && { REDIS_PORT: String(redisPort) }),
      ...(pusher && {
        BROADCAST_DRIVER: 'pusher',
        PUSHER_APP_ID: pusher.appId,
        PUSHER_APP_KEY: pusher.key,
        PUSHER_APP_SECRET: pusher.secret,
        PUSHER_PORT: String(pusher.port),
      }),
      ...(echoPort && { BROADCAST_CONNECTION: 'echo', ECHO_REDIS_PORT: String(echoPort), ECHO_REDIS_PASSWORD: ENDPOINT_PASSWORD }),
    };
    try {
      execFileSync(program('php'), ['setup.php'], { cwd: app, env: { ...process.env, ...env }, encoding: 'utf8' });
      return await onFreePort(async (port) => {
        const argv = [program('php'), '-S', `127.0.0.1:${port}`, '-t', 'public', 'public/index.php'];
        const child = new Child(argv, { cwd: app, env });
        await child.whenReady(async () => (await fetch(`http://127.0.0.1:${port}/me`)).ok);
        return new LaravelApp(child, port, storage, { cwd: app, env });
      });
    } catch (error) {
      removeFolder(storage);
      throw error;
    }
  }

  constructor(child, port, storage, place) {
    this.child = child;
    this.place = place;
    this.storage = storage;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Starts a command of Laravel, such as `queue:work`. */
  artisan(...words) {
    return new Child([program('php'), 'artisan', ...words], this.place);
  }

  /** A new visitor who has logged in. */
  async login(name) {
    const visitor = new Visitor(this.url);
    await visitor.login(name);
    return visitor;
  }

  /** A visitor with a session but no account. */
  async guest() {
    const visitor = new Visitor(this.url);
    await visitor.get('/me');
    return visitor;
  }

  async stop() {
    await this.child.stop();
    removeFolder(this.storage);
  }
}

/** An HTTP client with a cookie jar that sends Laravel's CSRF token back. */
export class Visitor {
  #url;
  #cookies = new Map();

  constructor(url) {
    this.#url = url;
  }

  /** The Cookie header. */
  get cookie() {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  async login(name) {
    await this.get('/me'); // for the CSRF token
    await this.post('/login', { email: `${name}@example.test`, password: 'secret' });
  }

  get(address) {
    return this.#request('GET', address);
  }

  post(address, body = {}, headers = {}) {
    return this.#request('POST', address, {
      body: JSON.stringify(body),
      headers: {
        'Content-Type': 'application/json',
        'X-XSRF-TOKEN': decodeURIComponent(this.#cookies.get('XSRF-TOKEN') ?? ''),
        ...headers,
      },
    });
  }

  /** POST /ship: publishes an order on channels such as "private:orders.1". */
  ship(order, on, { others = false, socketId } = {}) {
    return this.post('/ship', { order, on, others }, socketId ? { 'X-Socket-ID': socketId } : {});
  }

  async #request(method, address, { body, headers = {} } = {}) {
    const response = await fetch(this.#url + address, {
      method,
      body,
      headers: { Accept: 'application/json', Cookie: this.cookie, ...headers },
      redirect: 'manual',
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(';', 1)[0].split(/=(.*)/s);
      this.#cookies.set(name, value);
    }
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${address} answered ${response.status}: ${text.slice(0, 500)}`);
    return JSON.parse(text);
  }
}
