/** Redis, Laravel and the server under test, working together. */
import { EchoServer } from './echo-server.mjs';
import { LaravelApp } from './laravel.mjs';
import { onFreePort } from './process.mjs';
import { HttpPublisher, PUSHER_APP } from './pusher.mjs';
import { Endpoint, RedisServer } from './redis.mjs';

export class Stack {
  #started = [];

  /** `redisClient`: Laravel's; `format`: of the echo server's config file; `settings`: more of it, or what makes it of Laravel's URL. */
  static async start({ redisClient, format, settings } = {}) {
    const stack = new Stack();
    try {
      stack.redis = await stack.#start(RedisServer.start());
      stack.laravel = await stack.#start(LaravelApp.start({ redisPort: stack.redis.port, client: redisClient }));
      stack.echo = await stack.#start(
        EchoServer.start({ redisPort: stack.redis.port, laravelUrl: stack.laravel.url, format, settings: typeof settings === 'function' ? settings(stack.laravel.url) : settings }),
      );
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  /** The same without Redis: Laravel broadcasts to the echo server itself. */
  static async startWithoutRedis({ redisClient, format } = {}) {
    const stack = new Stack();
    try {
      await onFreePort(async (endpointPort) => {
        stack.laravel = await stack.#start(LaravelApp.start({ echoPort: endpointPort, client: redisClient }));
        stack.echo = await stack.#start(EchoServer.start({ endpointPort, laravelUrl: stack.laravel.url, format }));
        stack.redis = await stack.#start(new Endpoint(endpointPort));
      });
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  /** Laravel with its pusher driver, which publishes to the echo server's HTTP API. */
  static async startWithPusher({ format } = {}) {
    const stack = new Stack();
    try {
      await onFreePort(async (port) => {
        const pusher = { ...PUSHER_APP, port };
        stack.laravel = await stack.#start(LaravelApp.start({ pusher }));
        stack.echo = await stack.#start(EchoServer.start({ pusher, laravelUrl: stack.laravel.url, format }));
        stack.redis = new HttpPublisher(stack.echo.url);
      });
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  async #start(starting) {
    const part = await starting;
    this.#started.unshift(part);
    return part;
  }

  async stop() {
    for (const part of this.#started) await part.stop();
  }
}
