/** Starts the server under test with its own config. */
import { writeConfig } from './config.mjs';
import { makeFolder, removeFolder } from './folder.mjs';
import { Child, onFreePort } from './process.mjs';
import { ENDPOINT_PASSWORD, KEY_PREFIX } from './redis.mjs';
import { target } from './targets.mjs';

const ownRedis = (port) => ({
  database: 'memory',
  subscribers: { http: true, redis: false },
  redisServer: { enabled: true, port, password: ENDPOINT_PASSWORD },
});

/** Laravel publishes only over the HTTP API. */
const byHttp = ({ appId, key, secret }) => ({
  database: 'memory',
  subscribers: { http: true, redis: false },
  clients: [{ appId, key, secret }],
});

export class EchoServer {
  /**
   * With `endpointPort` instead of `redisPort` it is its own Redis; with `pusher` (`{ appId, key, secret, port }`) it listens on
   * that port, and Laravel's pusher driver publishes to it. `settings` replace top-level keys.
   */
  static async start({ redisPort, endpointPort, pusher, laravelUrl, format = 'json', settings = {} }) {
    const folder = makeFolder('echo-server-');
    const { clientPath } = target.script;
    try {
      const onPort = pusher ? (start) => start(pusher.port) : onFreePort;
      return await onPort(async (port) => {
        writeConfig(folder, format, {
          host: '127.0.0.1',
          port,
          authHost: laravelUrl,
          authEndpoint: '/broadcasting/auth',
          ...(pusher ? byHttp(pusher) : endpointPort ? ownRedis(endpointPort) : { database: 'redis' }),
          databaseConfig: { redis: { host: '127.0.0.1', port: redisPort ?? 1, keyPrefix: KEY_PREFIX } },
          devMode: true,
          socketio: clientPath ? { clientPath } : {},
          ...settings,
        });
        const url = `http://127.0.0.1:${port}`;
        const child = new Child([...target.command, 'start', '--dir', folder], { cwd: folder });
        await child.whenReady(async () => (await (await fetch(url)).text()) === 'OK');
        return new EchoServer(child, url, folder);
      });
    } catch (error) {
      removeFolder(folder);
      throw error;
    }
  }

  constructor(child, url, folder) {
    this.child = child;
    this.url = url;
    this.folder = folder;
  }

  get log() {
    return this.child.output;
  }

  async stop() {
    await this.child.stop();
    removeFolder(this.folder);
  }
}
