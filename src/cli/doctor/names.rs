//! Checks the key prefix against the names of Redis channels. Input: the configured prefix, the names of channels with events, and
//! the Laravel project. Output: a finding. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::report::Status;
use crate::cli::laravel::Project;

/// Maximum number of names shown.
const SHOWN: usize = 3;

/// The start, after the prefix, of the channels through which nodes and dashboards communicate.
const SERVERS_OWN: &str = "laravel-echo:";

/// The ends of Laravel's default prefixes, in older and newer versions.
const USUAL_ENDS: [&str; 2] = ["_database_", "-database-"];

/// Status, message, and how to fix it.
pub(super) fn judge(prefix: &str, heard: &BTreeSet<String>, listened: Duration, project: &Project) -> (Status, String, String) {
    // Keyspace notifications, and messages between servers, are not events.
    let is_event = |name: &&String| !name.starts_with("__key") && !name.ends_with("PresenceChannelUpdated") && !name.contains(SERVERS_OWN);
    let events: Vec<_> = heard.iter().filter(is_event).collect();
    if events.is_empty() {
        let message = match listened.as_secs() {
            0 => "Redis accepts the subscription; `--listen 0` does not wait for events".to_owned(),
            1 => "nothing was published within a second".to_owned(),
            seconds => format!("nothing was published within {seconds} seconds"),
        };
        let fix = format!(
            "run this again with `--listen 30` and fire an event in Laravel meanwhile; if none arrives, {} is not redis, the queue \
             worker is not running, or Laravel uses another Redis",
            project.broadcast_variable()
        );
        return (Status::Unknown, message, fix);
    }
    if let Some((name, found)) = events.iter().find_map(|name| Some((name, actual_prefix(name, prefix)?))) {
        let message = format!("events carry the prefix {found:?} (`{name}`), but `databaseConfig.redis.keyPrefix` is {prefix:?}");
        return (Status::Problem, message, format!("[databaseConfig.redis] keyPrefix = {found:?}"));
    }
    let (ours, strangers): (Vec<_>, Vec<_>) = events.into_iter().partition(|name| name.starts_with(prefix));
    if ours.is_empty() {
        let message = format!("none of the published channels has the prefix {prefix:?}: {}", shown(&strangers));
        let fix = format!("check `databaseConfig.redis.keyPrefix` against `{}`", project.show_redis_options());
        return (Status::Warning, message, fix);
    }
    let mut message = match ours.len() {
        1 => format!("1 channel has the configured prefix: {}", shown(&ours)),
        several => format!("{several} channels have the configured prefix, such as {}", shown(&ours)),
    };
    if !strangers.is_empty() {
        message += &format!("; ignored channels without it, such as {}", shown(&strangers));
    }
    (Status::Ok, message, String::new())
}

/// The prefix that this name seems to have, if it differs from the configured one.
fn actual_prefix(name: &str, configured: &str) -> Option<String> {
    let guarded = ["private-", "presence-"].iter().filter_map(|kind| name.find(kind)).min();
    let usual = || USUAL_ENDS.iter().find_map(|end| name.find(end).map(|at| at + end.len()));
    let found = &name[..guarded.or_else(usual)?];
    // After the right prefix, a name may contain such a word itself.
    let is_right = found == configured || !configured.is_empty() && name.starts_with(configured);
    (!is_right).then(|| found.to_owned())
}

fn shown(names: &[impl AsRef<str>]) -> String {
    names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(prefix: &str, names: &[&str]) -> (Status, String) {
        let heard = names.iter().map(|name| (*name).to_owned()).collect();
        let (status, _, fix) = judge(prefix, &heard, Duration::from_secs(3), &Project::default());
        (status, fix)
    }

    #[test]
    fn a_prefix_that_is_not_cut_is_found_in_guarded_names() {
        let (found, fix) = status("", &["news", "shop_private-orders"]);
        assert_eq!((found, fix.as_str()), (Status::Problem, "[databaseConfig.redis] keyPrefix = \"shop_\""));
        let (found, fix) = status("", &["laravel_database_news"]);
        assert_eq!((found, fix.as_str()), (Status::Problem, "[databaseConfig.redis] keyPrefix = \"laravel_database_\""));
        let (found, fix) = status("laravel_database_", &["private-orders"]);
        assert_eq!((found, fix.as_str()), (Status::Problem, "[databaseConfig.redis] keyPrefix = \"\""));
    }

    #[test]
    fn names_with_the_right_prefix_are_ok() {
        assert_eq!(status("", &["news", "private-orders"]).0, Status::Ok);
        assert_eq!(status("shop_", &["shop_private-orders", "shop_a-database-b", "other"]).0, Status::Ok);
    }

    #[test]
    fn silence_is_neither_well_nor_wrong() {
        assert_eq!(status("", &[]).0, Status::Unknown);
        assert_eq!(status("x_", &["PresenceChannelUpdated", "__keyspace@0__:a"]).0, Status::Unknown);
        assert_eq!(status("", &["laravel-echo:control", "shop-database-laravel-echo:control"]).0, Status::Unknown);
    }

    #[test]
    fn strangers_are_not_shown_as_ours() {
        let message =
            |names: &[&str]| judge("shop_", &names.iter().map(|name| (*name).to_owned()).collect(), Duration::ZERO, &Project::default()).1;
        let expected = "1 channel has the configured prefix: `shop_news`; ignored channels without it, such as `other_news`";
        assert_eq!(message(&["other_news", "shop_news"]), expected);
        assert_eq!(message(&["shop_a", "shop_b"]), "2 channels have the configured prefix, such as `shop_a`, `shop_b`");
    }

    #[test]
    fn names_that_all_lack_the_prefix_are_told() {
        assert_eq!(status("shop_", &["news", "orders"]).0, Status::Warning);
    }
}
