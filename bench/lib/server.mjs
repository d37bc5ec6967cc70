/**
 * A server to be measured, in its own directory. Input: ECHO_BIN or target/release/laravel-echo-server, settings as TOML.
 * Output: its process, once it is ready. It ends with this process.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const BIN = path.resolve(process.env.ECHO_BIN ?? 'target/release/laravel-echo-server');

/** A port that was free a moment ago. */
export async function freePort() {
  const listener = net.createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

/** Resident memory of a process in bytes. */
export const memory = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

/** CPU time of a process so far, in seconds. */
export function cpu(pid) {
  // Fields 14 and 15, in hundredths of a second; field 2, a name, is in parentheses.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Starts a server with these settings, which include its port. */
export async function startServer(settings) {
  const dir = mkdtempSync(path.join(tmpdir(), 'echo-bench-'));
  writeFileSync(path.join(dir, 'laravel-echo-server.toml'), settings);
  const server = spawn(BIN, ['start', `--dir=${dir}`], { stdio: ['ignore', 'pipe', 'pipe'] });
  process.on('exit', () => {
    server.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });
  let log = '';
  await new Promise((resolve, reject) => {
    const read = (chunk) => {
      log += chunk;
      if (log.includes('Server ready!')) resolve();
    };
    server.stdout.on('data', read);
    server.stderr.on('data', read);
    server.on('exit', () => reject(new Error(`the server has ended:\n${log}`)));
  });
  return server;
}

/** A connection that sends Redis commands one at a time. */
export async function connect(port) {
  const socket = net.connect(port, '127.0.0.1');
  socket.setNoDelay();
  await once(socket, 'connect');
  return socket;
}

/** A command in the Redis protocol. */
export const command = (...words) => `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;

/** Sends a command and returns the line of its reply. */
export async function ask(socket, ...words) {
  socket.write(command(...words));
  const [answer] = await once(socket, 'data');
  return answer.toString().trim();
}
