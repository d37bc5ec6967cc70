#!/usr/bin/env node
'use strict';
// Runs the server with this process's arguments. If Node has process.execve, the server replaces this process, and so has its
// process id, signals and exit code. Otherwise it is a child process that gets this process's signals and stdio.

const { spawn } = require('child_process');
const os = require('os');
const { binary, environment } = require('./binary');

// Exit only after the text is written: pm2 writes it to its log asynchronously.
function fail(message) {
  process.stderr.write(`${message}\n`, 'utf8', () => process.exit(1));
}

if (require('cluster').isWorker) {
  return fail(
    'laravel-echo-server: pm2 cannot run this in cluster mode, because the server is not written in JavaScript\n' +
      "  Start it with exec_mode: 'fork' and instances: 1. It uses all the processors by itself"
  );
}

let file;
try {
  file = binary(process.env);
} catch (error) {
  return fail(error.message);
}
const args = process.argv.slice(2);
const env = environment(process.env);

// Not under pm2, which reads a pipe of this process and uses an IPC channel; neither survives execve.
if (process.execve && process.platform !== 'win32' && !process.send) {
  // Suppress Node's warning that execve is experimental, which operators cannot do anything about.
  process.removeAllListeners('warning');
  try {
    process.execve(file, [file, ...args], env);
  } catch (error) {
    return fail(`laravel-echo-server: cannot start ${file}: ${error.message}`);
  }
}

// Terminals, systemd and pm2 signal the child as well; the server treats signals in quick succession as one.
const child = spawn(file, args, { stdio: 'inherit', env, windowsHide: true });
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2', 'SIGQUIT']) {
  // On Windows the console notifies the server directly, and a signal would kill it.
  process.on(signal, () => process.platform !== 'win32' && child.kill(signal));
}
// Sent by pm2 with shutdown_with_message.
process.on('message', (message) => message === 'shutdown' && child.kill('SIGTERM'));
process.on('exit', () => child.exitCode === null && child.signalCode === null && child.kill('SIGTERM'));
child.on('error', (error) => fail(`laravel-echo-server: cannot start ${file}: ${error.message}`));
child.on('exit', (code, signal) => process.exit(code === null ? 128 + os.constants.signals[signal] : code));
