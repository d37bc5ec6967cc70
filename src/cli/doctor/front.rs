//! Check of the front end: whether its socket.io-client recovers missed events after a lost connection.
//!
//! Input: the lock file of npm, Yarn, pnpm or Bun in the project's folder. Output: the version in it, and whether it supports that.

use std::path::Path;

use laravel_echo_server::config::Config;
use serde_json::Value;

use super::report::{Report, Status};

/// The library, as lock files name it.
const CLIENT: &str = "socket.io-client";

/// The first version that can resume a session.
const FIRST: (u64, u64) = (4, 6);

/// A lock file, and a function that finds the version in it. Where a file may have several, the second argument tells which one
/// the project asks for, as package.json words it.
type LockFile = (&'static str, fn(&str, Option<&str>) -> Option<String>);

/// npm reads the first one before the second.
const LOCK_FILES: [LockFile; 5] = [
    ("npm-shrinkwrap.json", of_npm),
    ("package-lock.json", of_npm),
    ("yarn.lock", of_yarn),
    ("pnpm-lock.yaml", of_pnpm),
    ("bun.lock", of_bun),
];

/// Checks whether the front end's client can resume its session.
pub(super) fn recovery(config: &Config, dir: &Path, report: &mut Report) {
    if !config.recovery.enabled {
        return;
    }
    let wanted = std::fs::read_to_string(dir.join("package.json")).ok().and_then(|text| wanted(&text));
    let found = LOCK_FILES.iter().find_map(|(file, version)| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        Some((file, version(&text, wanted.as_deref())?))
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

/// The versions that package.json allows, such as `^4.7.0`.
fn wanted(text: &str) -> Option<String> {
    let package: Value = serde_json::from_str(text).ok()?;
    let lists = ["dependencies", "devDependencies", "optionalDependencies"];
    lists.iter().find_map(|list| package[list][CLIENT].as_str()).map(str::to_owned)
}

/// `packages` since npm 7, `dependencies` before.
fn of_npm(text: &str, _: Option<&str>) -> Option<String> {
    let lock: Value = serde_json::from_str(text).ok()?;
    let entry = [&lock["packages"][format!("node_modules/{CLIENT}")], &lock["dependencies"][CLIENT]];
    entry.iter().find_map(|entry| entry["version"].as_str()).map(str::to_owned)
}

/// `socket.io-client@^4.7.0, socket.io-client@^4.8.0:` or `"socket.io-client@npm:^4.7.0":`, with the version in one of the next
/// lines. Other packages may have entries of their own for other versions.
fn of_yarn(text: &str, wanted: Option<&str>) -> Option<String> {
    let is_entry = |line: &&str| line.trim_start_matches('"').starts_with(&format!("{CLIENT}@"));
    let is_wanted = |line: &&str| {
        let asked = |key: &str| key.trim().trim_matches('"').strip_prefix(CLIENT)?.strip_prefix('@').map(str::to_owned);
        let mut keys = line.trim_end_matches(':').split(',').filter_map(asked);
        keys.any(|key| Some(key.strip_prefix("npm:").unwrap_or(&key)) == wanted)
    };
    let entries = || text.lines().enumerate().filter(|(_, line)| is_entry(line));
    let (at, _) = entries().find(|(_, line)| is_wanted(line)).or_else(|| entries().next())?;
    let version = text.lines().skip(at).find_map(|line| line.trim().strip_prefix("version"))?;
    Some(version.trim_matches([' ', ':', '"']).to_owned())
}

/// The project's own version comes first: `socket.io-client: 4.7.2`, or `socket.io-client:` with `version: 4.7.2` below. Otherwise
/// `/socket.io-client/4.7.2:`, `/socket.io-client@4.7.2:` or `socket.io-client@4.7.2:`.
fn of_pnpm(text: &str, _: Option<&str>) -> Option<String> {
    let is_version = |version: &&str| version.starts_with(|first: char| first.is_ascii_digit());
    let plain = |version: &str| version.trim().trim_matches('\'').split(['(', '_']).next().unwrap_or_default().to_owned();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let own = lines.iter().enumerate().find_map(|(at, line)| {
        let rest = line.trim_start_matches('\'').strip_prefix(CLIENT)?.trim_start_matches('\'').strip_prefix(':')?.trim();
        let below = || lines[at + 1..].iter().take(2).find_map(|line| line.strip_prefix("version:")).map(str::trim);
        Some(rest).filter(is_version).or_else(below).filter(is_version).map(plain)
    });
    own.or_else(|| {
        lines.iter().find_map(|line| {
            let rest = line.trim_start_matches(['\'', '/']).strip_prefix(CLIENT)?;
            let version = rest.strip_prefix(['@', '/'])?.split([':', '(', '\'']).next()?;
            Some(version).filter(is_version).map(str::to_owned)
        })
    })
}

/// `"socket.io-client": ["socket.io-client@4.8.1", …`; a package's own version has the package's name before it.
fn of_bun(text: &str, _: Option<&str>) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix(&format!("\"{CLIENT}\": [\"{CLIENT}@"))?;
        rest.split('"').next().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_every_lock_file() {
        let npm = r#"{"packages":{"node_modules/x/node_modules/socket.io-client":{"version":"1.0.0"},"node_modules/socket.io-client":{"version":"4.8.1"}}}"#;
        assert_eq!(of_npm(npm, None).as_deref(), Some("4.8.1"));
        assert_eq!(of_npm(r#"{"dependencies":{"socket.io-client":{"version":"2.5.0"}}}"#, None).as_deref(), Some("2.5.0"));
        let yarn = "laravel-echo@^2:\n  version \"2.1.0\"\n\nsocket.io-client@^4.7.0:\n  version \"4.7.2\"\n  resolved \"x\"\n";
        assert_eq!(of_yarn(yarn, None).as_deref(), Some("4.7.2"));
        assert_eq!(of_yarn("\"socket.io-client@npm:^4.5.0\":\n  version: 4.5.4\n", None).as_deref(), Some("4.5.4"));
        for pnpm in [
            "  /socket.io-client/4.7.2:\n",
            "  /socket.io-client@4.7.2:\n",
            "  socket.io-client@4.7.2:\n",
            "  'socket.io-client@4.7.2(x@1)':\n",
            "dependencies:\n  socket.io-client: 4.7.2\npackages:\n  /socket.io-client/2.5.0:\n",
            "specifiers:\n  socket.io-client: ^4.7.0\ndependencies:\n  socket.io-client: 4.7.2_x@1\n",
            "importers:\n  .:\n    dependencies:\n      socket.io-client:\n        specifier: ^4.7.0\n        version: 4.7.2(x@1)\npackages:\n  socket.io-client@2.5.0:\n",
        ] {
            assert_eq!(of_pnpm(pnpm, None).as_deref(), Some("4.7.2"), "{pnpm}");
        }
        assert_eq!(of_pnpm("  socket.io-client:\n    specifier: ^4.7.0\n", None), None);
        let bun = "{\n  \"packages\": {\n    \"x/socket.io-client\": [\"socket.io-client@2.5.0\", \"\", {}, \"\"],\n    \"socket.io-client\": [\"socket.io-client@4.8.1\", \"\", {}, \"\"],\n";
        assert_eq!(of_bun(bun, None).as_deref(), Some("4.8.1"));
        for text in ["", "{", "[]", "socket.io-client"] {
            let all: Vec<_> = LOCK_FILES.iter().map(|(_, version)| version(text, None)).collect();
            assert_eq!(all, [None, None, None, None, None], "{text}");
        }
    }

    #[test]
    fn of_several_versions_that_of_the_project_counts() {
        let yarn =
            "socket.io-client@^2.0.0:\n  version \"2.5.0\"\n\n\"socket.io-client@^4.7.0\", socket.io-client@^4.8.0:\n  version \"4.8.1\"\n";
        assert_eq!(of_yarn(yarn, wanted(r#"{"devDependencies":{"socket.io-client":"^4.8.0"}}"#).as_deref()).as_deref(), Some("4.8.1"));
        assert_eq!(of_yarn(yarn, Some("^2.0.0")).as_deref(), Some("2.5.0"));
        assert_eq!(of_yarn(yarn, Some("*")).as_deref(), Some("2.5.0"));
        let berry = "\"socket.io-client@npm:2\":\n  version: 2.5.0\n\n\"socket.io-client@npm:^4.7.0, socket.io-client@npm:^4.8.0\":\n  version: 4.8.1\n";
        assert_eq!(of_yarn(berry, Some("^4.8.0")).as_deref(), Some("4.8.1"));
    }

    #[test]
    fn a_client_can_come_back_since_4_6() {
        assert!(["4.6.0", "4.10.1", "5.0.0"].into_iter().all(can_recover));
        assert!(["4.5.4", "3.1.3", "2.5.0", "", "x"].into_iter().all(|version| !can_recover(version)));
    }
}
