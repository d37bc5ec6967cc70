/** A private Redis server without persistence. */
import Redis from 'ioredis';
import { Child, onFreePort } from './process.mjs';
import { program } from './tools.mjs';

/** The prefix that Laravel puts before every Redis name by default. */
export const KEY_PREFIX = 'laravel_database_';

/** Password of the echo server's own endpoint. */
export const ENDPOINT_PASSWORD = 'endpoint secret';

/** Publish as Laravel does; resolves to the number that Redis returns. */
const publish = (connection, channel, event, data) =>
  connection.publish(KEY_PREFIX + channel, JSON.stringify({ event, data, socket: null }));

/** The echo server's own endpoint, for ioredis as for Laravel. */
export class Endpoint {
  constructor(port) {
    this.port = port;
    this.connection = new Redis({ host: '127.0.0.1', port, password: ENDPOINT_PASSWORD });
  }

  publish(channel, event, data) {
    return publish(this.connection, channel, event, data);
  }

  stop() {
    this.connection.disconnect();
  }
}

export class RedisServer {
  static start() {
    return onFreePort(async (port) => {
      const argv = [program('redis-server'), '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
      const child = await new Child(argv, { cwd: '/tmp' }).whenReady(({ output }) => /Ready to accept connections/.test(output));
      return new RedisServer(child, port);
    });
  }

  constructor(child, port) {
    this.child = child;
    this.port = port;
    this.connection = new Redis({ host: '127.0.0.1', port });
  }

  publish(channel, event, data) {
    return publish(this.connection, channel, event, data);
  }

  async stop() {
    this.connection.disconnect();
    await this.child.stop();
  }
}
