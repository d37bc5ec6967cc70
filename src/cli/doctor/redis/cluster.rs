//! Checks of a Redis Cluster: whether its nodes respond, it serves all slots, and the addresses that it announces can be
//! reached from here. Output: the settings of a node.

use laravel_echo_server::config::{Config, Database, RedisConfig, RedisNode};
use laravel_echo_server::redis_client::Loss;
use laravel_echo_server::redis_client::topology::CLUSTER_NODE;
use redis::aio::MultiplexedConnection;

use super::{Fault, Open, fix_of, open};
use crate::cli::doctor::report::Report;

const CHECK: &str = "cluster";

/// Asks all configured nodes. `None` if none of them belongs to a cluster.
pub(super) async fn node(settings: &RedisConfig, report: &mut Report) -> Option<RedisConfig> {
    let (mut found, mut faults) = (None, Vec::new());
    for node in &settings.cluster {
        match ask(settings, node).await {
            Ok(answer) => found = found.or(Some(answer)),
            Err(fault) => faults.push(fault),
        }
    }
    // If another node responds, everything still works: only a warning.
    for Fault { message, fix } in faults {
        match found {
            None => report.problem(CHECK, message, fix),
            Some(_) => report.warning(CHECK, message, fix),
        }
    }
    let (node, info, nodes) = found?;
    let address = format!("{}:{}", node.host, node.port);
    let masters = masters(&nodes, &node.host);
    for (host, port) in &masters {
        let master = of(settings, host, *port);
        if let Err(Fault { message, fix }) = open(&master).await {
            let fix = format!("{fix}\nnodes must announce addresses that other machines reach: cluster-announce-ip, cluster-announce-port");
            report.problem(CHECK, format!("{address} announces a node that cannot be used: {message}"), fix);
        }
    }
    match (field(&info, "cluster_state"), field(&info, "cluster_slots_ok")) {
        ("ok", _) => report.ok(CHECK, format!("{address} serves all slots, with {} masters", masters.len())),
        (state, slots) => report.problem(
            CHECK,
            format!("{address} reports the cluster state {state}: {slots} of 16384 slots are served"),
            format!("`redis-cli --cluster check {address}` shows what is missing"),
        ),
    }
    Some(node)
}

/// Checks that a Redis configured by a single address is not a node of a cluster; the server warns about that at start.
pub(super) async fn lone_node(config: &Config, connection: &mut MultiplexedConnection, address: &str, report: &mut Report) {
    let info = redis::cmd("INFO").arg("cluster").query_async::<String>(connection).await;
    if !info.is_ok_and(|info| info.contains(CLUSTER_NODE)) {
        return;
    }
    let message =
        format!("{address} is a node of a Redis Cluster: events arrive, but presence channels of `database = \"redis\"` fail with `Moved`");
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    let fix = format!("[databaseConfig.redis] cluster = [{{ host = {host:?}, port = {port} }}], instead of `host` and `port`");
    match config.database {
        Database::Redis => report.problem(CHECK, message, fix),
        _ => report.warning(CHECK, message, fix),
    }
}

/// The settings of one node. A cluster only has database 0.
fn of(settings: &RedisConfig, host: &str, port: u16) -> RedisConfig {
    RedisConfig { host: host.to_owned(), port, db: 0, cluster: Vec::new(), ..settings.clone() }
}

/// A node's view of the cluster: `CLUSTER INFO` and `CLUSTER NODES`.
async fn ask(settings: &RedisConfig, node: &RedisNode) -> Result<(RedisConfig, String, String), Fault> {
    let node = of(settings, &node.host, node.port);
    let Open { mut connection, address, .. } = open(&node).await?;
    let mut question = redis::pipe();
    question.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("NODES");
    match question.query_async::<(String, String)>(&mut connection).await {
        Ok((info, nodes)) => Ok((node, info, nodes)),
        Err(error) if error.to_string().contains("cluster support disabled") => Err(Fault {
            message: format!("{address} is a standalone Redis, not a node of a cluster"),
            fix: "set `host` and `port` instead of `databaseConfig.redis.cluster`, or `cluster-enabled yes` in that Redis".to_owned(),
        }),
        Err(error) => {
            let reason = Loss::from(&error).reason;
            Err(Fault { message: format!("cannot read the cluster's state from {address}: {reason}"), fix: fix_of(&error, &node) })
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// Host and port of every master that is not failed; `asked` is the host of the queried node, which may not know its own
/// address.
fn masters(nodes: &str, asked: &str) -> Vec<(String, u16)> {
    let master = |line: &str| {
        let mut words = line.split(' ');
        let (place, flags) = (words.nth(1)?, words.next()?);
        let is_gone = flags.split(',').any(|flag| matches!(flag, "fail" | "noaddr" | "handshake"));
        if is_gone || !flags.split(',').any(|flag| flag == "master") {
            return None;
        }
        let (host, port) = place.split(['@', ',']).next()?.rsplit_once(':')?;
        Some((if host.is_empty() { asked } else { host }.to_owned(), port.parse().ok()?))
    };
    nodes.lines().filter_map(master).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_read_from_any_version() {
        let nodes = "a1 :7000@17000 myself,master - 0 0 1 connected 0-5460\n\
                     b2 10.0.0.2:7001@17001,redis-2.internal master - 0 1 2 connected 5461-10922\n\
                     c3 10.0.0.3:7002@17002 master,fail - 0 1 3 disconnected 10923-16383\n\
                     d4 10.0.0.4:7003@17003 slave b2 0 1 2 connected\n\
                     e5 fd00::5:7004@17004 master - 0 1 2 connected\n";
        let expected = [("10.0.0.1", 7000), ("10.0.0.2", 7001), ("fd00::5", 7004)];
        assert_eq!(masters(nodes, "10.0.0.1"), expected.map(|(host, port)| (host.to_owned(), port)));
    }

    #[test]
    fn fields_stand_on_lines() {
        let info = "cluster_state:fail\r\ncluster_slots_ok:5461\r\n";
        assert_eq!((field(info, "cluster_state"), field(info, "cluster_slots_ok"), field(info, "x")), ("fail", "5461", ""));
    }
}
