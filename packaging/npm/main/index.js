'use strict';
// require('laravel-echo-server') as in 1.6.3: run(options) starts a server, stop() stops it.

const { spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { binary, environment } = require('./bin/binary');

const READY = 'Server ready!';

/** Runs the server's binary. */
function command(args, stdio) {
  return spawn(binary(process.env), args, { stdio, env: environment(process.env), windowsHide: true });
}

class EchoServer {
  #child = null;
  #starting = null;
  #folder = null;
  /** Arguments that make `start` and `stop` refer to the same server. */
  #place = [];

  /**
   * Starts a server with the options of laravel-echo-server.json. Resolves when it is ready; rejects when it fails.
   * @returns {Promise<EchoServer>}
   */
  run(options = {}) {
    if (this.#starting) return Promise.reject(new Error('laravel-echo-server is already running: call stop() first'));
    this.#starting = this.#start(options);
    this.#starting.catch(() => {});
    return this.#starting;
  }

  #start(options) {
    return new Promise((resolve, reject) => {
      // Options can contain passwords, so only this user can read the folder and the file. Relative paths in them start at the cwd.
      this.#folder = fs.mkdtempSync(path.join(os.tmpdir(), 'laravel-echo-server-'));
      let child;
      try {
        const config = path.join(this.#folder, 'laravel-echo-server.json');
        fs.writeFileSync(config, JSON.stringify(options), { mode: 0o600 });
        this.#place = ['--config', config, '--lockfile', path.join(this.#folder, 'server.lock')];
        child = command(['start', ...this.#place], ['ignore', 'pipe', 'pipe']);
      } catch (error) {
        this.#forget();
        reject(error);
        return;
      }
      this.#child = child;
      const stopWithParent = () => child.kill('SIGTERM');
      process.once('exit', stopWithParent);

      let seen = '';
      let complaint = '';
      child.stdout.on('data', (data) => {
        process.stdout.write(data);
        if (seen === null) return;
        seen = (seen + data).slice(-4096);
        if (seen.includes(READY)) {
          seen = null;
          resolve(this);
        }
      });
      child.stderr.on('data', (data) => {
        process.stderr.write(data);
        complaint = (complaint + data).slice(-4096);
      });
      child.on('error', (error) => {
        this.#forget();
        reject(error);
      });
      child.on('close', (code, signal) => {
        process.removeListener('exit', stopWithParent);
        this.#forget();
        reject(new Error(`laravel-echo-server ended with ${signal ?? `exit code ${code}`}\n${complaint.trim()}`));
      });
    });
  }

  #forget() {
    // On Windows a file cannot be deleted while a process has it open, so retry.
    fs.rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10 });
    this.#child = this.#starting = null;
  }

  /**
   * Stops the server. Resolves when its process has exited.
   * @returns {Promise<void>}
   */
  stop() {
    const child = this.#child;
    if (!child) return Promise.resolve();
    return new Promise((resolve) => {
      child.once('close', () => resolve());
      // Not a signal: on Windows that would kill the server without disconnecting its clients.
      const asking = command(['stop', ...this.#place], 'ignore');
      // A server that has not created its lock file yet has no clients.
      const instead = () => child.kill('SIGTERM');
      asking.once('error', instead);
      asking.once('exit', (code) => code !== 0 && instead());
    });
  }
}

module.exports = new EchoServer();
