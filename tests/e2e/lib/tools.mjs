/** The programs that must be installed, and the Debian packages that contain them. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import path from 'node:path';

const PROGRAMS = {
  php: 'php-cli',
  'redis-server': 'redis-server',
  chromium: 'chromium',
};

const PHP_EXTENSIONS = {
  redis: 'php-redis',
  pdo_sqlite: 'php-sqlite3',
};

const PHP_LIBRARIES = {
  'Illuminate/autoload.php': 'php-laravel-framework',
  'Predis/autoload.php': 'php-nrk-predis',
};

function missing(what, debianPackage) {
  return new Error(`${what} is not installed: apt-get install ${debianPackage}`);
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The path of a program; `searchPath` is for tests. */
export function program(name, searchPath = process.env.PATH) {
  const found = searchPath.split(path.delimiter).map((folder) => path.join(folder, name)).find(isExecutable);
  if (!found) throw missing(name, PROGRAMS[name]);
  return found;
}

/** Fails unless PHP has all that fixtures/laravel-app needs; `libraries` is for tests. */
export function requireLaravel({ libraries = '/usr/share/php' } = {}) {
  const extensions = execFileSync(program('php'), ['-m'], { encoding: 'utf8' }).toLowerCase().split('\n');
  for (const [extension, debianPackage] of Object.entries(PHP_EXTENSIONS)) {
    if (!extensions.includes(extension)) throw missing(`the PHP extension ${extension}`, debianPackage);
  }
  for (const [file, debianPackage] of Object.entries(PHP_LIBRARIES)) {
    if (!existsSync(path.join(libraries, file))) throw missing(path.join(libraries, file), debianPackage);
  }
}
