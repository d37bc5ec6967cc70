// Prints this project's evaluated configuration as JSON after a marker. Only the configuration is loaded.
error_reporting(E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR);
chdir($argv[1]);
is_file('vendor/autoload.php') && require_once 'vendor/autoload.php';
$app = require 'bootstrap/app.php';
$boot = 'Illuminate\\Foundation\\Bootstrap\\';
$environment = class_exists($boot . 'LoadEnvironmentVariables') ? 'LoadEnvironmentVariables' : 'DetectEnvironment';
$app->bootstrapWith([$boot . $environment, $boot . 'LoadConfiguration']);
$config = $app['config'];
$connections = [];
foreach ((array) $config->get('broadcasting.connections') as $name => $connection) {
    $connections[$name] = array_intersect_key((array) $connection, ['driver' => 1, 'connection' => 1]);
}
echo $argv[2], json_encode([
    'version' => $app->version(),
    'app' => ['url' => $config->get('app.url')],
    'broadcasting' => ['default' => $config->get('broadcasting.default'), 'connections' => $connections],
    'database' => ['redis' => $config->get('database.redis')],
], JSON_PARTIAL_OUTPUT_ON_ERROR);
