// The environment of the soak test: the server, its Redis, and a stand-in for the Laravel application. All three report their
// state, and the last two can go down.

import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { RedisServer } from '../../tests/compat/lib/redis.mjs';
import { freePort, sleep, until } from '../../tests/compat/lib/util.mjs';

const KEY = 'soak-key';
/** Clock ticks per second of /proc/<pid>/stat. */
const TICKS = 100;

/** Expected log lines; all others of this level are findings. */
const EXPECTED = [
  /^lost the connection to Redis|^still no connection to Redis|^cannot reach Redis|until Redis is back$/,
  /^Error authenticating client$|^Client can not be authenticated, got HTTP status \d+$/,
  /^the application does not respond|^subscribe refused: the application/,
  /^closed a client that does not keep up/,
  /^could not (store|remove) a presence member|^could not repair presence members/,
  /^open files allow for about|^net\.core\.somaxconn is/,
];

/** Answers callbacks as Laravel does. The user is in the cookie. */
export class App {
  callbacks = 0;
  isInMaintenance = false;

  async up() {
    this.server = http.createServer((request, response) => {
      let body = '';
      request.on('data', (chunk) => (body += chunk));
      request.on('end', () => setTimeout(() => this.#answer(request, response, new URLSearchParams(body).get('channel_name')), 5 + Math.random() * 25));
    });
    // Closing an idle connection just as it is reused would look like an outage.
    this.server.keepAliveTimeout = 60_000;
    await new Promise((resolve) => this.server.listen(this.port ?? 0, '127.0.0.1', 4096, resolve));
    this.port = this.server.address().port;
  }

  down() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }

  #answer(request, response, channel) {
    this.callbacks += 1;
    const user = Number(/user=(\d+)/.exec(request.headers.cookie ?? '')?.[1] ?? 0);
    if (this.isInMaintenance) {
      response.writeHead(503).end('Service Unavailable');
    } else if (channel.includes('forbidden')) {
      response.writeHead(403).end('{"message":"no"}');
    } else if (channel.startsWith('presence-')) {
      response.end(JSON.stringify({ channel_data: { user_id: user, user_info: { name: `user ${user}` } } }));
    } else {
      response.end('true');
    }
  }
}

export class Stack {
  app = new App();
  /** Lines of WARN and above, by level and text, with their count. */
  log = new Map();

  static async start(binary) {
    const stack = new Stack();
    await stack.app.up();
    stack.redis = await RedisServer.start();
    stack.port = await freePort();
    stack.dir = mkdtempSync(path.join(tmpdir(), 'soak-'));
    const config = {
      authHost: `http://127.0.0.1:${stack.app.port}`,
      host: '127.0.0.1',
      port: stack.port,
      database: 'redis',
      databaseConfig: { redis: { host: '127.0.0.1', port: stack.redis.port }, publishPresence: true },
      subscribers: { http: true, redis: true },
      clients: [{ appId: 'app', key: KEY }],
      // Small limits, so that dead and slow clients are detected many times.
      socketio: { pingInterval: 5_000, pingTimeout: 5_000 },
      limits: { clientQueueBytes: 1_000_000 },
      log: { format: 'json' },
    };
    writeFileSync(path.join(stack.dir, 'laravel-echo-server.json'), JSON.stringify(config));
    stack.child = spawn(path.resolve(binary), ['start', `--dir=${stack.dir}`], { stdio: ['ignore', 'ignore', 'pipe'] });
    stack.child.on('exit', (code, signal) => {
      stack.exit = signal ?? code;
    });
    stack.#readLog();
    await until(() => stack.isReady(), 'the server to start');
    return stack;
  }

  #readLog() {
    let rest = '';
    this.child.stderr.setEncoding('utf8').on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines.filter(Boolean)) {
        let entry;
        try {
          entry = JSON.parse(line);
        } catch {
          entry = { level: 'NOT JSON', message: line };
        }
        if (entry.level === 'INFO' || entry.level === 'DEBUG') continue;
        const text = `${entry.level} ${entry.message.replace(/\d+/g, (digits) => (/status/.test(entry.message) ? digits : 'N'))}`;
        this.log.set(text, (this.log.get(text) ?? 0) + 1);
      }
    });
  }

  /** Unexpected log lines. */
  get surprises() {
    const isExpected = (text) => EXPECTED.some((pattern) => pattern.test(text.replace(/^\w+ /, '')));
    return [...this.log.keys()].filter((text) => !isExpected(text));
  }

  async get(route) {
    const response = await fetch(`http://127.0.0.1:${this.port}${route}`, { headers: { authorization: `Bearer ${KEY}` } });
    return response.ok ? response.text() : Promise.reject(new Error(`${route}: ${response.status}`));
  }

  isReady() {
    return this.get('/ready').then(() => true, () => false);
  }

  async count(channel) {
    return JSON.parse(await this.get(`/apps/app/channels/${channel}`)).subscription_count;
  }

  async users(channel) {
    return JSON.parse(await this.get(`/apps/app/channels/${channel}/users`)).users.map((user) => user.id);
  }

  /** Sums of metrics by name, without labels. */
  async metrics() {
    const sums = {};
    for (const line of (await this.get('/metrics')).split('\n')) {
      const match = /^laravel_echo_(\w+)(?:\{[^}]*\})? (\S+)/.exec(line);
      if (match) sums[match[1]] = (sums[match[1]] ?? 0) + Number(match[2]);
    }
    return sums;
  }

  async publishHttp(channel, name, data) {
    const response = await fetch(`http://127.0.0.1:${this.port}/apps/app/events`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ channel, name, data }),
    });
    if (!response.ok) throw new Error(`POST /events: ${response.status} ${await response.text()}`);
  }

  /** Keys in Redis about members. The list of a channel without members remains, as an empty list. */
  async keysLeft() {
    const left = [];
    for (const key of await this.redis.client.keys('*')) {
      if (/laravel-echo:node(s$|:\{.*\}:lease$)/.test(key)) continue;
      if (key.endsWith(':channels')) left.push(`${key}: ${await this.redis.client.smembers(key)}`);
      else if (!key.endsWith(':members')) left.push(key);
      else if ((await this.redis.client.get(key)) !== '[]') left.push(`${key}: ${await this.redis.client.get(key)}`);
    }
    return left;
  }

  /** Resolves once the server has reconnected to a restarted Redis. */
  async restartRedis(pause) {
    await this.redis.down();
    await sleep(pause);
    await this.redis.up();
    await until(async () => (await this.redis.client.pubsub('NUMPAT')) > 0 && this.isReady(), 'the server to find Redis again', 60_000);
  }

  /** Resident memory in MB, CPU seconds so far, open files. */
  usage() {
    const stat = readFileSync(`/proc/${this.child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.child.pid}/status`, 'utf8'))[1];
    return {
      rss: Number(rss) / 1024,
      cpu: (Number(stat[11]) + Number(stat[12])) / TICKS,
      files: readdirSync(`/proc/${this.child.pid}/fd`).length,
    };
  }

  /** Stops everything; returns the server's exit status. */
  async stop() {
    if (this.exit === undefined) {
      this.child.kill('SIGTERM');
      await until(() => this.exit !== undefined, 'the server to end', 20_000).catch(() => this.child.kill('SIGKILL'));
    }
    await this.redis.stop();
    await this.app.down();
    rmSync(this.dir, { recursive: true, force: true });
    return this.exit;
  }
}
