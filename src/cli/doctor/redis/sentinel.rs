//! Checks of sentinels: whether they respond, know the master by its name, agree on its address, and could start a
//! failover. Output: the settings of the master.

use std::collections::{BTreeSet, HashMap};

use laravel_echo_server::config::{RedisConfig, RedisNode};
use laravel_echo_server::redis_client::Cause;
use redis::RedisError;

use super::{Fault, Open, fault, open};
use crate::cli::doctor::report::Report;

const CHECK: &str = "sentinel";

/// What one sentinel says about the master.
struct Answer {
    sentinel: String,
    host: String,
    port: u16,
    /// Whether it considers the master dead.
    is_down: bool,
    replicas: String,
    /// Why it could not start a failover.
    obstacle: Option<RedisError>,
}

/// Asks all sentinels. `None` if none of them knows the master.
pub(super) async fn master(settings: &RedisConfig, report: &mut Report) -> Option<RedisConfig> {
    let name = settings.name.as_deref().unwrap_or_default();
    let (mut answers, mut faults) = (Vec::new(), Vec::new());
    for node in &settings.sentinels {
        match ask(settings, node, name, report).await {
            Ok(answer) => answers.push(answer),
            Err(fault) => faults.push(fault),
        }
    }
    // If another sentinel knows the master, everything still works: only a warning.
    for Fault { message, fix } in faults {
        match answers.is_empty() {
            true => report.problem(CHECK, message, fix),
            false => report.warning(CHECK, message, fix),
        }
    }
    let first = answers.first()?;
    let places: BTreeSet<String> = answers.iter().map(|answer| format!("{}:{}", answer.host, answer.port)).collect();
    let place = format!("{}:{}", first.host, first.port);
    if places.len() > 1 {
        let places: Vec<_> = places.into_iter().collect();
        let message = format!("the sentinels name different masters of `{name}`: {}", places.join(", "));
        report.warning(CHECK, message, "a failover is in progress, or they are not one group: `redis-cli -p 26379 sentinel master <name>`");
    } else {
        let count = format!("{} of {} sentinels", answers.len(), settings.sentinels.len());
        report.ok(CHECK, format!("{place} is the master of `{name}`, by {count}; replicas: {}", first.replicas));
    }
    for answer in &answers {
        if answer.is_down {
            let message = format!("{} considers the master {place} dead", answer.sentinel);
            report.problem(CHECK, message, "start it again, or `redis-cli -p 26379 sentinel failover <name>`");
        } else if let Some(obstacle) = &answer.obstacle {
            let message = format!("{} could not start a failover: {}", answer.sentinel, obstacle.detail().unwrap_or_default());
            report.warning(CHECK, message, "more sentinels must run and see each other, or `quorum` is too high");
        }
    }
    if answers.iter().all(|answer| answer.replicas == "0") {
        report.warning(CHECK, format!("`{name}` has no replica"), "without one no failover is possible: set `replicaof` on another server");
    }
    let (host, port) = (first.host.clone(), first.port);
    Some(RedisConfig { host, port, sentinels: Vec::new(), name: None, ..settings.clone() })
}

async fn ask(settings: &RedisConfig, node: &RedisNode, name: &str, report: &mut Report) -> Result<Answer, Fault> {
    let sentinel = RedisConfig {
        host: node.host.clone(),
        port: node.port,
        username: None,
        password: settings.sentinel_password.clone(),
        db: 0,
        ..settings.clone()
    };
    let sentinel = RedisConfig { sentinels: Vec::new(), ..sentinel };
    let of_sentinel = |fault: Fault| Fault { fix: fault.fix.replace("redis.password", "redis.sentinelPassword"), ..fault };
    let opened = open(&sentinel).await.map_err(of_sentinel)?;
    opened.tell_of_password(CHECK, "sentinelPassword", report);
    let Open { mut connection, address, .. } = opened;
    let mut command = redis::cmd("SENTINEL");
    let found = command.arg("MASTER").arg(name).query_async::<HashMap<String, String>>(&mut connection).await;
    let master = match found {
        Ok(master) => master,
        Err(error) if Cause::of(&error).is_refusal() => return Err(of_sentinel(fault(&error, &address, &sentinel))),
        Err(error) => return Err(unknown(&mut connection, &address, name, &error).await),
    };
    let field = |key: &str| master.get(key).cloned().unwrap_or_default();
    let obstacle = redis::cmd("SENTINEL").arg("CKQUORUM").arg(name).exec_async(&mut connection).await.err();
    Ok(Answer {
        sentinel: address,
        host: field("ip"),
        port: field("port").parse().unwrap_or_default(),
        is_down: field("flags").contains("_down"),
        replicas: field("num-slaves"),
        obstacle,
    })
}

/// The problem for a sentinel that does not know the master.
async fn unknown(connection: &mut redis::aio::MultiplexedConnection, address: &str, name: &str, error: &RedisError) -> Fault {
    let masters = redis::cmd("SENTINEL").arg("MASTERS").query_async::<Vec<HashMap<String, String>>>(connection).await;
    match masters {
        Ok(masters) => {
            let names: Vec<_> = masters.iter().filter_map(|master| master.get("name")).map(|name| format!("`{name}`")).collect();
            let known = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
            let message = format!("sentinel {address} watches no master `{name}`; it watches {known}");
            Fault { message, fix: "set `databaseConfig.redis.name` to the name in `sentinel monitor` of sentinel.conf".to_owned() }
        }
        Err(_) => Fault {
            message: format!("{address} is not a sentinel: {error}"),
            fix: "`databaseConfig.redis.sentinels` needs the ports of the sentinels (usually 26379), not those of Redis".to_owned(),
        },
    }
}
