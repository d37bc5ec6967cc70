/** The servers under test: this repository's, and the original from npm with TARGET=original. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const repository = fileURLToPath(new URL('../../..', import.meta.url));

/** The directory of an installed npm package. */
const packageFolder = (name) => path.join(fileURLToPath(new URL('../node_modules', import.meta.url)), name);

function ourBinary() {
  const built = path.join(process.env.CARGO_TARGET_DIR ?? path.join(repository, 'target'), 'debug/laravel-echo-server');
  const binary = path.resolve(process.env.ECHO_BIN ?? built);
  if (!existsSync(binary)) throw new Error(`${binary} does not exist: run cargo build, or name the binary in ECHO_BIN`);
  return binary;
}

/**
 * Each target has
 *   command        argv up to the subcommand
 *   configFormats  what it reads
 *   clients        the clients of lib/clients.mjs it can serve
 *   endpointClients  Laravel's Redis clients that can publish to it without a Redis
 *   pusherClients  the clients of lib/pusher.mjs it can serve
 *   script         which socket.io-client it serves as /socket.io/socket.io.js: clientPath is put
 *                  into the config; protocol is its Engine.IO: 3 in socket.io-client 2.x, 4 in 3.x and 4.x
 */
const TARGETS = {
  rust: () => ({
    command: [ourBinary()],
    configFormats: ['json', 'toml'],
    clients: ['echo 2, socket.io 4', 'echo 2, socket.io 4, websocket', 'echo 1, socket.io 2', 'echo 1, socket.io 2, polling'],
    script: { clientPath: path.join(packageFolder('sio-4'), 'dist'), protocol: 4 },
    endpointClients: ['phpredis', 'predis'],
    pusherClients: ['echo 2, reverb', 'echo 1, pusher'],
  }),
  // Speaks only Engine.IO 3, so it supports only socket.io-client 2; brings that script itself.
  original: () => ({
    command: [process.execPath, require.resolve('laravel-echo-server/bin/server.js')],
    configFormats: ['json'],
    clients: ['echo 2, socket.io 2', 'echo 1, socket.io 2', 'echo 1, socket.io 2, polling'],
    script: { protocol: 3 },
    endpointClients: [],
    pusherClients: [],
  }),
};

function select(name) {
  if (!TARGETS[name]) throw new Error(`TARGET is "${name}", expected one of ${Object.keys(TARGETS).join(', ')}`);
  return TARGETS[name]();
}

export const target = select(process.env.TARGET ?? 'rust');
