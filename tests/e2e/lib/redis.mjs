/** A Redis server of one's own, without persistence. */
import Redis from 'ioredis';
import { Child, onFreePort } from './process.mjs';
import { program } from './tools.mjs';

/** The prefix that Laravel puts before every Redis name by default. */
export const KEY_PREFIX = 'laravel_database_';

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

  /** Publish as Laravel does; resolves to the number of subscribers. */
  publish(channel, event, data) {
    return this.connection.publish(KEY_PREFIX + channel, JSON.stringify({ event, data, socket: null }));
  }

  async stop() {
    this.connection.disconnect();
    await this.child.stop();
  }
}
