//! Limits of the machine. Input: limits of the process and the kernel. Output: the limit of open files, raised as far as
//! possible, and log lines about how many clients it allows and about limits that are too low.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files for things other than clients: logs, Redis, callbacks to the application, and some in reserve.
pub(in crate::cli) const OWN_FILES: u64 = 200;

/// A limit below this many clients is soon reached, so it is a warning.
const FEW_CLIENTS: u64 = 4_000;

/// The length of the accept queue that the listener requests.
const BACKLOG: u64 = 4_096;

/// Raises the limit of open files as far as this user may, and logs how many clients that allows.
pub(super) fn prepare() {
    let limit = raise_open_files();
    let clients = limit.map_or(u64::MAX, |limit| limit.saturating_sub(OWN_FILES));
    match limit {
        None => tracing::info!("open files are not limited"),
        Some(limit) if clients < FEW_CLIENTS => tracing::warn!(
            limit,
            "open files allow for about {clients} clients; raise the hard limit (LimitNOFILE= of systemd, minfds of Supervisor, --ulimit nofile of Docker)"
        ),
        Some(limit) => tracing::info!(limit, "open files allow for about {clients} clients"),
    }
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(most) = most.filter(|&most| most < BACKLOG) {
        tracing::warn!(
            "net.core.somaxconn is {most}: if more clients than that connect at once, as after a restart, the others are delayed by a \
             second or more; fix: `sysctl net.core.somaxconn={BACKLOG}`"
        );
    }
}

/// The limit of open files after raising it; `None` for no limit.
#[cfg(unix)]
fn raise_open_files() -> Option<u64> {
    /// macOS refuses more than this (`OPEN_MAX`), but reports that there is no limit.
    const MACOS: u64 = 10_240;
    let before = getrlimit(Resource::Nofile);
    let wanted = if cfg!(target_os = "macos") { Some(before.maximum.map_or(MACOS, |most| most.min(MACOS))) } else { before.maximum };
    let is_lower = |limit: u64| wanted.is_none_or(|wanted| limit < wanted);
    if before.current.is_some_and(is_lower) {
        // Errors are ignored: some kernels enforce a lower limit, and the old one remains then.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: before.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// What the limit of open files can be raised to; `None` for no limit.
#[cfg(unix)]
pub(in crate::cli) fn most_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Windows has no such limit.
#[cfg(not(unix))]
const fn raise_open_files() -> Option<u64> {
    None
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub(in crate::cli) const fn most_open_files() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(raise_open_files(), limit.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
