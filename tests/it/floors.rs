//! The layering of the library's modules: each may use only modules on lower floors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The floors, lowest first. Every new module has to be added here.
const FLOORS: [&[&str]; 15] = [
    &["channel", "clock", "event", "files", "jws", "proxies", "signature"],
    &["config"],
    &["checks", "metrics", "net", "telemetry"],
    &["redis_client"],
    &["admission", "auth", "readiness", "store"],
    &["cluster"],
    &["hub"],
    &["client", "webhooks"],
    &["socket_io", "pusher"],
    &["ingress"],
    &["api"],
    &["demo"],
    &["server"],
    // Tests and fuzz targets may use everything.
    &["fuzzing"],
    &["lib", "main", "cli"],
];

/// Permitted uses of a higher floor, each with its reason.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("client", "socket_io", "what clients missed is kept in the one dialect that has recovery, while no client is connected")];

/// A line that uses another module: file, line number, and both modules.
struct Use {
    place: String,
    from: String,
    to: String,
}

#[test]
fn modules_use_only_modules_on_lower_floors() {
    let uses = uses();
    assert!(uses.len() > 100, "only {} uses were found: does this test still read the sources?", uses.len());
    let wrong: Vec<_> = uses
        .iter()
        .filter(|Use { from, to, .. }| floor(to) >= floor(from) && !is_exception(from, to))
        .map(|Use { place, from, to }| format!("{place}: `{from}` uses `{to}`"))
        .collect();
    assert!(wrong.is_empty(), "wrong floors, see FLOORS in {}:\n{}", file!(), wrong.join("\n"));
    for (from, to, reason) in EXCEPTIONS {
        assert!(uses.iter().any(|one| one.from == from && one.to == to), "obsolete exception: `{from}` uses `{to}` ({reason})");
    }
}

#[test]
fn one_place_decides_what_goes_through_the_clusters_redis() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let uses_bus = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).expect("a source file");
        text.split("\nmod tests {").next().is_some_and(|code| code.contains(".bus."))
    };
    let mut found: Vec<_> = files(&sources.join("hub")).into_iter().chain(files(&sources.join("ingress"))).filter(uses_bus).collect();
    found.retain(|file| !file.components().any(|part| part.as_os_str() == "tests"));
    found.sort();
    // Events and messages, and questions.
    assert_eq!(found, ["hub/cluster_wide.rs", "hub/nodes.rs"].map(|file| sources.join(file)), "leave it to hub/nodes.rs");
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|modules| modules.contains(&module));
    floor.unwrap_or_else(|| panic!("the module `{module}` is missing in FLOORS of {}", file!()))
}

fn is_exception(from: &str, to: &str) -> bool {
    EXCEPTIONS.iter().any(|exception| (exception.0, exception.1) == (from, to))
}

/// All uses between modules, except in tests and fuzz targets.
fn uses() -> Vec<Use> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut uses = Vec::new();
    for file in files(&sources) {
        let path = file.strip_prefix(&sources).expect("a path below src").with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("UTF-8")).collect();
        if parts.iter().any(|part| ["tests", "fuzzing"].contains(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        let code = text.split("\nmod tests {").next().unwrap_or(&text);
        for (index, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let place = format!("{}:{}", file.display(), index + 1);
            for to in used(line).into_iter().filter(|&to| to != parts[0]) {
                uses.push(Use { place: place.clone(), from: parts[0].to_owned(), to: to.to_owned() });
            }
        }
    }
    uses
}

/// Modules that a line names with `crate::`. Macros belong to the module that defines them.
fn used(line: &str) -> BTreeSet<&str> {
    let names = line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap_or(rest.len());
        &rest[..end]
    });
    names.filter(|name| !name.is_empty()).map(|name| if name == "warn_throttled" { "telemetry" } else { name }).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
