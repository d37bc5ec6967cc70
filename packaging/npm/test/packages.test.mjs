// The npm packages, installed from PACKAGES (a folder of .tgz files) and run as users run them.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const tools = fileURLToPath(new URL('node_modules/.bin', import.meta.url));
const packed = fs.readdirSync(process.env.PACKAGES).filter((file) => file.endsWith('.tgz'));
const platformFile = packed.find((file) => file.includes(`${process.platform}-${process.arch}`));
const mainFile = packed.find((file) => file !== platformFile);
const archive = (file) => `file:${path.join(process.env.PACKAGES, file)}`;
const NAME = '@laravel-echo-server/server';
const PLATFORM = `${NAME}-${process.platform}-${process.arch}`;
const root = fs.mkdtempSync(path.join(os.tmpdir(), 'npm-packages-'));
// pm2 keeps its daemon's files in its home, whose path must be short enough for a Unix socket.
const env = { ...process.env, PATH: `${tools}:${process.env.PATH}`, HOME: root, PM2_HOME: path.join(root, 'pm2') };
delete env.ECHO_BIN;
// node --test sets this for its children, and pm2 prints nothing then.
delete env.NODE_TEST_CONTEXT;

const DEADLINE = { timeout: 120_000 };

function command(folder, file, args, more = {}) {
  const result = spawnSync(file, args, { cwd: folder, env: { ...env, ...more }, encoding: 'utf8', timeout: 100_000 });
  return { ...result, output: `${result.stdout}${result.stderr}` };
}

function must(...call) {
  const result = command(...call);
  assert.equal(result.status, 0, `${call[1]} ${call[2].join(' ')}: ${result.error ?? ''}\n${result.output}`);
  return result.output;
}

/** A project that has the packages, by the package manager's own command. */
function project(name, install) {
  const folder = path.join(root, name);
  fs.mkdirSync(folder);
  const overrides = { [PLATFORM]: archive(platformFile) };
  const manifest = {
    private: true,
    name,
    version: '1.0.0',
    scripts: { start: 'laravel-echo-server start --defaults' },
    dependencies: { [NAME]: archive(mainFile), ...overrides },
    pnpm: { overrides },
    resolutions: overrides,
  };
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest));
  must(folder, install[0], install.slice(1));
  return folder;
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function settings() {
  const port = await freePort();
  return {
    port,
    LARAVEL_ECHO_SERVER_HOST: '127.0.0.1',
    LARAVEL_ECHO_SERVER_PORT: String(port),
    LARAVEL_ECHO_SERVER_SUBSCRIBERS_REDIS: 'false',
  };
}

async function until(what, check) {
  const end = Date.now() + 60_000;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < end, `in time: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

const answers = async (port) => {
  try {
    return (await fetch(`http://127.0.0.1:${port}/health`)).ok;
  } catch {
    return false;
  }
};

/** The process that listens on a port, and so the server itself. */
function serverOf(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const line = fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').find((each) => each.includes(`:${hex} 00000000:0000 0A`));
  const inode = line?.trim().split(/\s+/)[9];
  for (const pid of fs.readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    try {
      for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
        if (fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`) return Number(pid);
      }
    } catch {
      // The process has just exited.
    }
  }
  return undefined;
}

async function started(folder, file, args, more = {}) {
  const { port, ...variables } = await settings();
  const child = spawn(file, args, { cwd: folder, env: { ...env, ...variables, ...more } });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const ended = once(child, 'exit');
  await until(() => output, () => output.includes('Server ready!'));
  assert.ok(await answers(port));
  return { child, port, ended, output: () => output };
}

let npm;
before(() => {
  npm = project('npm', ['npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts']);
});
after(() => {
  command(root, 'pm2', ['kill']);
  fs.rmSync(root, { recursive: true, force: true });
});

test('arguments, output and exit code are the server’s', DEADLINE, () => {
  assert.match(must(npm, 'npx', ['laravel-echo-server', '--version']), /laravel-echo-server \d/);
  assert.equal(command(npm, 'npx', ['laravel-echo-server', 'nonsense']).status, 2);
  const file = path.join(npm, 'node_modules/.bin/laravel-echo-server');
  const failed = command(npm, file, ['start', '--config', 'absent.json']);
  assert.equal(failed.status, 1, failed.output);
  assert.match(failed.output, /absent\.json/);
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  test(`${signal} to the launcher stops the server in good order`, DEADLINE, async () => {
    const server = await started(npm, 'node', ['node_modules/.bin/laravel-echo-server', 'start', '--defaults']);
    server.child.kill(signal);
    assert.deepEqual(await server.ended, [0, null], server.output());
    assert.equal(await answers(server.port), false);
    assert.doesNotMatch(server.output(), /second signal/);
  });
}

test('a signal to launcher and server at once stops it in good order', DEADLINE, async () => {
  const server = await started(npm, 'node', ['node_modules/.bin/laravel-echo-server', 'start', '--defaults']);
  process.kill(serverOf(server.port), 'SIGTERM');
  server.child.kill('SIGTERM');
  assert.deepEqual(await server.ended, [0, null], server.output());
  assert.doesNotMatch(server.output(), /second signal/);
});

test('a crash of the server is told on as shells do', DEADLINE, async () => {
  const server = await started(npm, 'node', ['node_modules/.bin/laravel-echo-server', 'start', '--defaults']);
  process.kill(serverOf(server.port), 'SIGKILL');
  const [code, signal] = await server.ended;
  assert.ok(code === 137 || signal === 'SIGKILL', `${code} ${signal}`);
});

const managers = {
  npm: { install: null, start: ['npm', 'start'] },
  npx: { install: null, start: ['npx', 'laravel-echo-server', 'start', '--defaults'] },
  pnpm: { install: ['pnpm', 'install', '--ignore-scripts'], start: ['pnpm', 'start'] },
  yarn: { install: ['yarn', 'install', '--ignore-scripts'], start: ['yarn', 'start'] },
};
for (const [name, { install, start }] of Object.entries(managers)) {
  test(`${name}: installs, starts, stops`, DEADLINE, async () => {
    const folder = install ? project(name, install) : npm;
    const server = await started(folder, start[0], start.slice(1));
    // Package managers handle signals differently, so signal the server's own process, as a supervisor would.
    process.kill(serverOf(server.port), 'SIGTERM');
    await server.ended;
    assert.equal(await answers(server.port), false);
  });
}

test('pm2: fork mode starts, restarts after a crash, stops in good order', DEADLINE, async () => {
  const { port, ...variables } = await settings();
  const file = path.join(npm, 'ecosystem.config.cjs');
  const script = path.join(npm, 'node_modules/.bin/laravel-echo-server');
  const log = path.join(npm, 'pm2.log');
  const apps = [{ name: 'echo', script, interpreter: 'node', args: 'start --defaults', env: variables, out_file: log, error_file: log }];
  fs.writeFileSync(file, `module.exports = ${JSON.stringify({ apps })}`);
  const logged = () => (fs.existsSync(log) ? fs.readFileSync(log, 'utf8') : '');
  must(npm, 'pm2', ['start', file]);
  await until(logged, () => answers(port));
  const first = serverOf(port);
  process.kill(first, 'SIGKILL');
  const second = await until(logged, async () => (await answers(port)) && serverOf(port) !== first && serverOf(port));
  must(npm, 'pm2', ['restart', 'echo']);
  await until(logged, async () => (await answers(port)) && serverOf(port) !== second);
  must(npm, 'pm2', ['stop', 'echo']);
  await until(logged, async () => !(await answers(port)));
  assert.doesNotMatch(logged(), /second signal/);
  must(npm, 'pm2', ['delete', 'echo']);
});

test('pm2: cluster mode is refused with a sentence', DEADLINE, async () => {
  const log = path.join(npm, 'cluster.log');
  const script = path.join(npm, 'node_modules/.bin/laravel-echo-server');
  const apps = [{ name: 'many', script, args: 'start --defaults', exec_mode: 'cluster', instances: 2, autorestart: false, out_file: log, error_file: log }];
  const file = path.join(npm, 'cluster.config.cjs');
  fs.writeFileSync(file, `module.exports = ${JSON.stringify({ apps })}`);
  command(npm, 'pm2', ['start', file]);
  const logged = () => fs.readdirSync(npm).filter((each) => each.startsWith('cluster') && each.endsWith('.log'))
    .map((each) => fs.readFileSync(path.join(npm, each), 'utf8')).join('');
  await until(logged, () => logged().includes("exec_mode: 'fork'"));
  command(npm, 'pm2', ['delete', 'many']);
});

test('supervisor: starts, restarts after a crash, stops', DEADLINE, async () => {
  const { port, ...variables } = await settings();
  const file = path.join(npm, 'supervisord.conf');
  const environment = Object.entries(variables).map(([key, value]) => `${key}="${value}"`).join(',');
  const launcher = path.join(npm, 'node_modules/.bin/laravel-echo-server');
  fs.writeFileSync(
    file,
    `[supervisord]\nnodaemon=true\nlogfile=${npm}/supervisord.log\npidfile=${npm}/supervisord.pid\nchildlogdir=${npm}\n` +
      `[program:echo]\ncommand=${launcher} start --defaults\nautorestart=true\nstartsecs=0\nenvironment=${environment}\nstopasgroup=true\nredirect_stderr=true\nstdout_logfile=${npm}/supervised.log\n`
  );
  const supervisor = spawn('supervisord', ['-c', file], { cwd: npm, env, stdio: 'ignore' });
  const ended = once(supervisor, 'exit');
  const logged = () => (fs.existsSync(`${npm}/supervised.log`) ? fs.readFileSync(`${npm}/supervised.log`, 'utf8') : '');
  await until(logged, () => answers(port));
  const first = serverOf(port);
  process.kill(first, 'SIGKILL');
  await until(logged, async () => (await answers(port)) && serverOf(port) !== first);
  supervisor.kill('SIGTERM');
  await ended;
  assert.equal(await answers(port), false);
  assert.doesNotMatch(logged(), /second signal/);
});

test('require: run() with the options of 1.6.3 settles when ready, and stop() when ended', DEADLINE, async () => {
  const port = await freePort();
  const options = { host: '127.0.0.1', port: String(port), devMode: 'true', database: 'sqlite', databaseConfig: { sqlite: { databasePath: '/echo.sqlite' } }, subscribers: { http: 'true', redis: 'false' } };
  fs.writeFileSync(
    path.join(npm, 'embed.js'),
    `const echo = require('${NAME}');
     (async () => {
       await echo.run(${JSON.stringify(options)});
       const first = (await fetch('http://127.0.0.1:${port}/health')).ok;
       await echo.stop();
       await echo.run(${JSON.stringify(options)});
       await echo.stop();
       const early = echo.run(${JSON.stringify(options)}).then(() => 'ran', () => 'stopped');
       await echo.stop();
       await early;
       const failed = await echo.run({ port: 'no port' }).then(() => 'ran', (error) => error.message);
       console.log('RESULT ' + JSON.stringify({ first, failed }));
     })();`
  );
  const output = must(npm, 'node', ['embed.js'], { TMPDIR: fs.mkdtempSync(path.join(root, 'tmp-')) });
  const { first, failed } = JSON.parse(output.split('RESULT ')[1].split('\n')[0]);
  assert.equal(first, true);
  assert.match(failed, /exit code 1[^]*port/);
  assert.ok(output.split('stopping: removing presence members').length > 2, output);
});

test('the types take what 1.6.3 took', DEADLINE, () => {
  fs.writeFileSync(path.join(npm, 'typed.ts'), `import server = require('${NAME}');\nserver.run({ devMode: 'true', port: '6001', databaseConfig: { redis: { host: 'redis' } } }).then((running) => running.stop());\n`);
  must(npm, 'tsc', ['--noEmit', '--strict', '--module', 'node16', '--moduleResolution', 'node16', 'typed.ts']);
});

test('a missing platform package says what to install', DEADLINE, () => {
  const folder = path.join(root, 'alone');
  fs.mkdirSync(folder);
  spawnSync('tar', ['-xf', path.join(process.env.PACKAGES, mainFile), '-C', folder]);
  const result = command(folder, 'node', ['package/bin/server.js', 'start']);
  assert.equal(result.status, 1);
  assert.match(result.output, new RegExp(`${PLATFORM} is not installed[^]*--omit=optional`));
});
