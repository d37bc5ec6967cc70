/**
 * A Laravel 8 project in its own directory, in a newcomer's state before the first step of the README: broadcasting is disabled
 * and events are queued. It is fixtures/laravel-app, on Debian's Laravel.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { makeFolder, removeFolder } from './folder.mjs';
import { APP } from './laravel.mjs';
import { Child } from './process.mjs';
import { target } from './targets.mjs';

const PACKAGES = new URL('../node_modules/', import.meta.url);

/** The packages that `npm i` would download are installed with these tests, under other names. Other npm commands fail. */
const NPM = `#!/usr/bin/env node
const { mkdirSync, symlinkSync } = require('node:fs');
const [command, ...packages] = process.argv.slice(2);
const installed = { 'laravel-echo': 'echo-2', 'socket.io-client': 'sio-4' };
if (command !== 'i' || packages.some((name) => !installed[name])) throw new Error('these tests have no npm ' + process.argv.slice(2).join(' '));
mkdirSync('node_modules', { recursive: true });
for (const name of packages) symlinkSync(${JSON.stringify(PACKAGES.pathname)} + installed[name], 'node_modules/' + name);
`;

/** As in Laravel's own .env.example, except for the ports and the queue. */
const variables = (redisPort) => `APP_NAME="First Shop"
APP_ENV=local
APP_URL=http://localhost
BROADCAST_DRIVER=null
QUEUE_CONNECTION=redis
REDIS_HOST=127.0.0.1
REDIS_PASSWORD=null
REDIS_PORT=${redisPort}
`;

export class Project {
  static make(redisPort) {
    const folder = makeFolder('echo-project-');
    cpSync(APP, folder, { recursive: true });
    const project = new Project(folder);
    writeFileSync(path.join(folder, '.env'), variables(redisPort));
    project.change('config/app.php', (text) => text.replace('App\\Providers\\Broadcast', '// App\\Providers\\Broadcast'));
    project.change('app/Events/OrderShipped.php', (text) => text.replaceAll('ShouldBroadcastNow', 'ShouldBroadcast'));
    return project;
  }

  constructor(folder) {
    this.folder = folder;
    this.storage = path.join(folder, 'storage');
    const shims = path.join(folder, '.bin');
    mkdirSync(shims);
    writeFileSync(path.join(shims, 'npm'), NPM);
    chmodSync(path.join(shims, 'npm'), 0o755);
    symlinkSync(target.command[0], path.join(shims, 'laravel-echo-server'));
    this.env = { PATH: `${shims}:${process.env.PATH}`, APP_STORAGE: this.storage };
  }

  /** Edits a file; the edit has to change it. */
  change(file, edit) {
    const place = path.join(this.folder, file);
    const before = readFileSync(place, 'utf8');
    const after = edit(before);
    assert.notEqual(after, before, `nothing to change in ${file}`);
    writeFileSync(place, after);
  }

  /** Runs a command and answers its questions: one that matches a pattern with its text, others with Enter. Returns the output. */
  type(command, answers = []) {
    const child = spawn('bash', ['-c', command], { cwd: this.folder, env: { ...process.env, ...this.env } });
    let output = '';
    let asked = 0;
    child.stdin.on('error', () => {}); // it did not wait for the answer
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk) => {
        output += chunk;
        const question = /\? ([^\n]*)\]: $/.exec(output.slice(asked));
        if (!question) return;
        asked = output.length;
        const [, answer = ''] = answers.find(([pattern]) => pattern.test(question[1])) ?? [];
        child.stdin.write(`${answer}\n`);
      });
    }
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => (code === 0 ? resolve(output) : reject(new Error(`${command} ended with ${code}:\n${output}`))));
    });
  }

  /** Leaves a command running. */
  run(command) {
    return new Child(['bash', '-c', command], { cwd: this.folder, env: this.env });
  }

  remove() {
    removeFolder(this.folder);
  }
}
