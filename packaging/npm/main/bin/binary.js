'use strict';
// Finds the server's binary: LARAVEL_ECHO_SERVER_BINARY, or else the package for this platform.
// The variable is removed from the server's environment, because the server warns about unknown variables with its prefix.

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
          '  Build one with `cargo build --release` and set LARAVEL_ECHO_SERVER_BINARY to its path'
    );
  }
};

exports.environment = function environment(env) {
  const { LARAVEL_ECHO_SERVER_BINARY: _, ...rest } = env;
  return rest;
};
