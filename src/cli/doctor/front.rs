//! Check of the front end: whether its socket.io-client recovers missed events after a lost connection.
//!
//! Input: the lock file of npm, Yarn or pnpm in the project's folder. Output: the version in it, and whether it supports that.

use std::path::Path;

use laravel_echo_server::config::Config;
use serde_json::Value;

use super::report::{Report, Status};

/// The library, as lock files name it.
const CLIENT: &str = "socket.io-client";

/// The first version that can resume a session.
const FIRST: (u64, u64) = (4, 6);

/// A lock file, and a function that finds the version in it.
type LockFile = (&'static str, fn(&str) -> Option<String>);

const LOCK_FILES: [LockFile; 3] = [("package-lock.json", of_npm), ("yarn.lock", of_yarn), ("pnpm-lock.yaml", of_pnpm)];

/// Checks whether the front end's client can resume its session.
pub(super) fn recovery(config: &Config, dir: &Path, report: &mut Report) {
    if !config.recovery.enabled {
        return;
    }
    let found = LOCK_FILES.iter().find_map(|(file, version)| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        Some((file, version(&text)?))
    });
    let Some((file, version)) = found else { return };
    if can_recover(&version) {
        report.ok("front end", format!("{CLIENT} {version} ({file}) recovers events that it missed while disconnected"));
    } else {
        let message = format!("{CLIENT} {version} ({file}) does not recover events that it missed while disconnected");
        report.add("front end", Status::Ok, message, format!("{CLIENT} 4.6 and newer do: npm install {CLIENT}@4, and rebuild the assets"));
    }
}

fn can_recover(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= FIRST
}

/// `packages` since npm 7, `dependencies` before.
fn of_npm(text: &str) -> Option<String> {
    let lock: Value = serde_json::from_str(text).ok()?;
    let entry = [&lock["packages"][format!("node_modules/{CLIENT}")], &lock["dependencies"][CLIENT]];
    entry.iter().find_map(|entry| entry["version"].as_str()).map(str::to_owned)
}

/// `socket.io-client@^4.7.0:` or `"socket.io-client@npm:^4.7.0":`, with the version in one of the next lines.
fn of_yarn(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start_matches('"').starts_with(&format!("{CLIENT}@")));
    let version = lines.find_map(|line| line.trim().strip_prefix("version"))?;
    Some(version.trim_matches([' ', ':', '"']).to_owned())
}

/// `/socket.io-client/4.7.2:`, `/socket.io-client@4.7.2:` or `socket.io-client@4.7.2:`.
fn of_pnpm(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().trim_start_matches(['\'', '/']).strip_prefix(CLIENT)?;
        let version = rest.strip_prefix(['@', '/'])?.split([':', '(', '\'']).next()?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_every_lock_file() {
        let npm = r#"{"packages":{"node_modules/x/node_modules/socket.io-client":{"version":"1.0.0"},"node_modules/socket.io-client":{"version":"4.8.1"}}}"#;
        assert_eq!(of_npm(npm).as_deref(), Some("4.8.1"));
        assert_eq!(of_npm(r#"{"dependencies":{"socket.io-client":{"version":"2.5.0"}}}"#).as_deref(), Some("2.5.0"));
        let yarn = "laravel-echo@^2:\n  version \"2.1.0\"\n\nsocket.io-client@^4.7.0:\n  version \"4.7.2\"\n  resolved \"x\"\n";
        assert_eq!(of_yarn(yarn).as_deref(), Some("4.7.2"));
        assert_eq!(of_yarn("\"socket.io-client@npm:^4.5.0\":\n  version: 4.5.4\n").as_deref(), Some("4.5.4"));
        for pnpm in [
            "  /socket.io-client/4.7.2:\n",
            "  /socket.io-client@4.7.2:\n",
            "  socket.io-client@4.7.2:\n",
            "  'socket.io-client@4.7.2(x@1)':\n",
        ] {
            assert_eq!(of_pnpm(pnpm).as_deref(), Some("4.7.2"), "{pnpm}");
        }
        assert_eq!(of_pnpm("  socket.io-client:\n    specifier: ^4.7.0\n"), None);
        for text in ["", "{", "[]", "socket.io-client"] {
            assert_eq!([of_npm(text), of_yarn(text), of_pnpm(text)], [None, None, None], "{text}");
        }
    }

    #[test]
    fn a_client_can_come_back_since_4_6() {
        assert!(["4.6.0", "4.10.1", "5.0.0"].into_iter().all(can_recover));
        assert!(["4.5.4", "3.1.3", "2.5.0", "", "x"].into_iter().all(|version| !can_recover(version)));
    }
}
