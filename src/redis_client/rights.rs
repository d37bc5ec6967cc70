//! The rights that an ACL user of Redis needs. Input: the settings of Redis. Output: the command that grants them.

use super::{glob, username};
use crate::config::RedisConfig;

/// The categories of commands that the server sends.
const COMMANDS: &str = "+@read +@write +@scripting +@pubsub +@connection +@transaction +time +info";

/// The arguments of `ACL SETUSER`, after the name of the user: `'~app_laravel-echo:*' … '&app_*' … +@read …`, quoted for a shell.
#[must_use]
pub(super) fn arguments(config: &RedisConfig) -> String {
    // Neither quoted words of a shell nor patterns of an ACL can contain these.
    let is_plain = |letter: char| !letter.is_whitespace() && letter != '\'' && !letter.is_control();
    let prefix = glob(&config.key_prefix, &['*']);
    let keys: String = prefix.chars().map(|letter| if is_plain(letter) { letter } else { '?' }).collect();
    // Redis compares the pattern of PSUBSCRIBE with those of the user letter by letter.
    let channels = if prefix.chars().all(is_plain) { format!("&{prefix}*") } else { "&*".to_owned() };
    let cluster = if config.cluster.is_empty() { "" } else { " +cluster" };
    // `publishPresence` publishes without the prefix, as the original does.
    format!("'~{keys}laravel-echo:*' '~{keys}*:members' '~{keys}queues:*' '{channels}' '&PresenceChannelUpdated' {COMMANDS}{cluster}")
}

/// The command for a shell that grants the configured user these rights. `cli` is `redis-cli` with the address.
#[must_use]
pub(super) fn command(config: &RedisConfig, cli: &str) -> String {
    let user = username(config).unwrap_or_else(|| "default".to_owned());
    let user = Some(&*user).filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\'')).unwrap_or("USER");
    format!("{cli} ACL SETUSER '{user}' {}", arguments(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_taken_literally() {
        let of = |prefix: &str| arguments(&RedisConfig { key_prefix: prefix.to_owned(), ..RedisConfig::default() });
        assert!(
            of("app_").starts_with("'~app_laravel-echo:*' '~app_*:members' '~app_queues:*' '&app_*' '&PresenceChannelUpdated' +@read"),
            "{}",
            of("app_")
        );
        assert!(of("").starts_with("'~laravel-echo:*' '~*:members' '~queues:*' '&*' '&PresenceChannelUpdated' +@read"), "{}", of(""));
        assert!(of("a[1]*").contains(r"'&a\[1\]\**'"), "{}", of("a[1]*"));
        assert!(of("my app'").starts_with("'~my?app?laravel-echo:*'") && of("my app'").contains(" '&*' "), "{}", of("my app'"));
    }
}
