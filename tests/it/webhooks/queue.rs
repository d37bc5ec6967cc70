//! Webhooks as jobs that a real Laravel worker processes.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Laravel, Redis, TestServer, until};

/// Runs the jobs of a queue with Laravel's own worker, and prints their payloads. Each job is retried once; for that Laravel writes
/// it again.
const WORKER: &str = r#"<?php
require '/usr/share/php/Illuminate/autoload.php';
class EchoWebhook {
    public function fire($job, array $data) {
        if ($job->attempts() == 1) { $job->release(0); return; }
        echo json_encode(['body' => $data['body'], 'name' => $job->resolveName(), 'id' => $job->getJobId(), 'uuid' => $job->uuid()]), "\n";
        $job->delete();
    }
}
$app = new Illuminate\Container\Container;
$redis = new Illuminate\Redis\RedisManager($app, 'phpredis', [
    'options' => ['prefix' => 'app_'],
    'default' => ['host' => '127.0.0.1', 'port' => (int) $argv[1], 'database' => 0],
]);
$queue = new Illuminate\Queue\RedisQueue($redis, 'default', 'default', 60);
$queue->setContainer($app);
while ($job = $queue->pop('default')) { $job->fire(); }
"#;

fn work(redis: &Redis) -> Vec<Value> {
    let folder: PathBuf = std::env::temp_dir().join(format!("echo-queue-{}-{}", std::process::id(), redis.port));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("work.php");
    std::fs::write(&file, WORKER).expect("a file");
    let output =
        Command::new("php").arg(&file).arg(redis.port.to_string()).output().expect("these tests need php: apt-get install php-cli");
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).expect("a job")).collect()
}

#[tokio::test]
async fn laravel_processes_webhook_jobs() {
    let (redis, laravel) = (Redis::start().await, Laravel::start().await);
    let webhook = json!({ "target": "queue", "job": "EchoWebhook" });
    let settings = json!({ "webhooks": [webhook], "databaseConfig": { "redis": { "keyPrefix": "app_" } } });
    let server = TestServer::with(&redis, &laravel, settings).await;
    let mut client = server.client_of(1).await;
    client.subscribe("presence-room").await;
    client.event("presence:subscribed").await;
    // In one delivery or in two.
    let mut events = Vec::new();
    while events.len() < 2 {
        until("a job", async || !redis.keys("app_queues:default").await.is_empty()).await;
        for job in work(&redis) {
            assert_eq!(job["name"], "EchoWebhook");
            assert!(job["id"].is_string() && job["uuid"].is_string());
            let body: Value = serde_json::from_str(job["body"].as_str().expect("text")).expect("JSON");
            events.extend_from_slice(body["events"].as_array().expect("a list"));
        }
    }
    assert_eq!(super::short(&events), ["channel_occupied presence-room", "member_added presence-room 1"]);
    assert!(events[0]["seq"].as_u64().expect("a number") > 1_700_000_000_000_000);
    assert!(redis.keys("app_queues:*").await.is_empty(), "{:?}", redis.keys("app_queues:*").await);
}
