'use strict';
// Finds the server's binary: LARAVEL_ECHO_SERVER_BINARY, else the package of this platform.
// The variable is taken out of the environment, because the server knows each of its own.

const path = require('path');

exports.binary = function binary(env) {
  if (env.LARAVEL_ECHO_SERVER_BINARY) return path.resolve(env.LARAVEL_ECHO_SERVER_BINARY);
  const platform = `${process.platform}-${process.arch}`;
  const { name, optionalDependencies = {} } = require('../package.json');
  const wanted = `${name}-${platform}`;
  const file = process.platform === 'win32' ? 'laravel-echo-server.exe' : 'laravel-echo-server';
  try {
    return require.resolve(`${wanted}/${file}`);
  } catch {
    const known = Object.keys(optionalDependencies).map((dependency) => dependency.slice(name.length + 1));
    throw new Error(
      wanted in optionalDependencies
        ? `laravel-echo-server: the package ${wanted} is not installed\n` +
          '  Install again without --omit=optional; a lock file made on another system can also leave it out:\n' +
          '  delete node_modules and the lock file, then run npm install'
        : `laravel-echo-server: there is no binary for ${platform}, only for ${known.join(', ')}\n` +
          '  Build one with `cargo build --release` and name it in LARAVEL_ECHO_SERVER_BINARY'
    );
  }
};

exports.environment = function environment(env) {
  const { LARAVEL_ECHO_SERVER_BINARY: _, ...rest } = env;
  return rest;
};
