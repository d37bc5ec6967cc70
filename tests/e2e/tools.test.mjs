/** A missing program is named with its Debian package, and fails the tests instead of skipping them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { program, requireLaravel } from './lib/tools.mjs';

for (const [name, debianPackage] of [['php', 'php-cli'], ['redis-server', 'redis-server'], ['chromium', 'chromium']]) {
  test(`without ${name} the package ${debianPackage} is named`, () => {
    assert.throws(() => program(name, '/nowhere'), { message: `${name} is not installed: apt-get install ${debianPackage}` });
  });
}

test('without Laravel its package is named', () => {
  assert.throws(() => requireLaravel({ libraries: '/nowhere' }), {
    message: '/nowhere/Illuminate/autoload.php is not installed: apt-get install php-laravel-framework',
  });
});
