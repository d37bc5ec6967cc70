/** Starts the server under test on a config of its own. */
import { writeConfig } from './config.mjs';
import { makeFolder, removeFolder } from './folder.mjs';
import { Child, onFreePort } from './process.mjs';
import { KEY_PREFIX } from './redis.mjs';
import { target } from './targets.mjs';

export class EchoServer {
  static async start({ redisPort, laravelUrl, format = 'json' }) {
    const folder = makeFolder('echo-server-');
    const { clientPath } = target.script;
    try {
      return await onFreePort(async (port) => {
        writeConfig(folder, format, {
          host: '127.0.0.1',
          port,
          authHost: laravelUrl,
          authEndpoint: '/broadcasting/auth',
          database: 'redis',
          databaseConfig: { redis: { host: '127.0.0.1', port: redisPort, keyPrefix: KEY_PREFIX } },
          devMode: true,
          socketio: clientPath ? { clientPath } : {},
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
