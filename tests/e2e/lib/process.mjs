/** Child processes that never outlive the tests. */
import { spawn } from 'node:child_process';
import net from 'node:net';
import { stripVTControlCharacters } from 'node:util';
import { GiveUp, until } from './wait.mjs';

const STOP_MS = 10_000;
const running = new Set();

process.once('exit', () => {
  for (const child of running) child.signal('SIGKILL');
});
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(name, () => process.exit(1));

/** A program in its own process group, because PHP's workers outlive their parent. */
export class Child {
  constructor(argv, { cwd, env = {} } = {}) {
    this.argv = argv;
    this.output = '';
    this.exit = null; // what ended it, as text
    this.process = spawn(argv[0], argv.slice(1), {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(this);
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk) => (this.output += stripVTControlCharacters(chunk)));
    }
    this.ended = new Promise((resolve) => {
      const end = (exit) => {
        this.exit ??= exit;
        running.delete(this);
        resolve(this.exit);
      };
      this.process.once('error', (error) => end(error.message));
      this.process.once('exit', (code, signal) => end(signal ?? `exit status ${code}`));
    });
  }

  /** Wait until the probe is true; fails if the child ends first. */
  async whenReady(probe) {
    const name = this.argv.join(' ');
    await until(
      async () => {
        if (this.exit) throw new GiveUp(`${name} ended (${this.exit}):\n${this.output}`);
        return probe(this);
      },
      () => `${name} to be ready:\n${this.output}`,
    );
    return this;
  }

  /** Signal the whole process group. */
  signal(name) {
    if (this.process.pid === undefined) return;
    try {
      process.kill(-this.process.pid, name);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error; // all of it ended before
    }
  }

  /** Ask it to end, kill what remains after a while; returns what ended it. */
  async stop() {
    const timer = setTimeout(() => this.signal('SIGKILL'), STOP_MS);
    this.signal('SIGTERM');
    const exit = await this.ended;
    clearTimeout(timer);
    this.signal('SIGKILL'); // workers that stayed behind
    return exit;
  }
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/**
 * Start something on a random free port: `start(port)` is tried again on another port when
 * someone else was faster. Ports are below the range that outgoing connections take theirs from.
 */
export async function onFreePort(start) {
  for (let attempt = 1; ; attempt += 1) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    if (!(await canListen(port))) continue;
    try {
      return await start(port);
    } catch (error) {
      if (attempt === 5 || !/already in use|EADDRINUSE/i.test(error.message)) throw error;
    }
  }
}
