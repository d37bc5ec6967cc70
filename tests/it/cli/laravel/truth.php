<?php
// php truth.php PROJECT: what Laravel (Debian's) makes of a project's .env and config files, as JSON.
error_reporting(0);
require '/usr/share/php/Illuminate/autoload.php';
require '/usr/share/php/Dotenv/autoload.php';
foreach (glob('/usr/share/php/Illuminate/*/helpers.php') as $helpers) {
    require_once $helpers;
}
use Illuminate\Support\Env;
[, $dir] = $argv;
$special = Env::get('APP_ENV');
$file = $special && is_file("$dir/.env.$special") ? ".env.$special" : '.env';
Dotenv\Dotenv::create(Env::getRepository(), $dir, $file)->safeLoad();
$app = new Illuminate\Foundation\Application($dir);
(new Illuminate\Foundation\Bootstrap\LoadConfiguration)->bootstrap($app);
$config = $app['config'];
$broadcaster = $config->get('broadcasting.connections.' . $config->get('broadcasting.default'));
$name = $broadcaster['connection'] ?? 'default';
$parse = new ReflectionMethod(Illuminate\Redis\RedisManager::class, 'parseConnectionConfiguration');
$parse->setAccessible(true);
$redis = $parse->invoke(new Illuminate\Redis\RedisManager($app, 'phpredis', []), $config->get("database.redis.$name"));
$host = (string) $redis['host'];
$password = empty($redis['password']) ? null : (string) $redis['password'];
$socket = strpos($host, '/') === 0 ? $host : null;
echo json_encode([
    'keyPrefix' => (string) $config->get('database.redis.options.prefix'),
    'host' => $socket ? null : preg_replace('#^\w+://#', '', $host),
    'port' => $socket ? null : (int) $redis['port'],
    'path' => $socket,
    'password' => $password,
    'username' => $password === null ? null : ($redis['username'] ?: null),
    'db' => (int) $redis['database'],
    'tls' => ($redis['scheme'] ?? '') === 'tls' || strpos($host, 'tls://') === 0,
]);
