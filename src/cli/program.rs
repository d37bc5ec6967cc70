//! A running program, as far as `/proc` shows it. Input: its process id, or a port that it listens on. Output: its command line.

use std::fmt;
use std::fs;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its process id.
    pub(crate) process: i32,
    command: String,
}

impl Program {
    /// The program of a running process.
    pub(crate) fn find(process: i32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{process}/cmdline")).ok()?;
        let words: Vec<_> = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
        let command = words.join(" ").trim_end().to_owned();
        (!command.is_empty()).then_some(Self { process, command })
    }

    /// The program that listens on a TCP port, if this user may see it.
    pub(crate) fn listening_on(port: u16) -> Option<Self> {
        let sockets: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let lines = sockets.iter().flat_map(|text| text.lines().skip(1));
        let links: Vec<_> = lines.filter_map(|line| listener(line, port)).map(|inode| format!("socket:[{inode}]")).collect();
        if links.is_empty() {
            return None;
        }
        let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut holders = processes.filter(|process: &i32| {
            let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            descriptors
                .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
                .any(|link| links.iter().any(|own| link == Path::new(own)))
        });
        Self::find(holders.next()?)
    }

    /// Whether it is laravel-echo-server 1, which runs on Node.
    pub(crate) fn is_original(&self) -> bool {
        self.command.contains("laravel-echo-server") && !self.is_ours()
    }

    /// Whether it runs the same executable as this process.
    fn is_ours(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.process)).ok() == std::env::current_exe().ok()
    }

    /// Whether it runs this server in a way that leaves a lock file next to the config.
    pub(crate) fn keeps_lock_beside_config(&self) -> bool {
        self.is_ours() && !["--no-lock", "--lockfile", "--demo", "--defaults"].iter().any(|option| self.command.contains(option))
    }

    /// How many files it may open, if it is this server and `/proc` tells.
    pub(crate) fn most_open_files(&self) -> Option<u64> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.process)).ok().filter(|_| self.is_ours())?;
        let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        soft.split_whitespace().next()?.parse().ok()
    }

    /// Says how to stop it.
    pub(crate) fn how_to_stop(&self) -> String {
        let process = self.process;
        if self.is_original() {
            return format!("the Node server; `kill {process}` stops it; if pm2, Supervisor or systemd restarts it, stop it there");
        }
        if self.is_ours() {
            let or = if self.keeps_lock_beside_config() { ", or `laravel-echo-server stop` in the folder of its config" } else { "" };
            return format!("`kill {process}` stops it{or}");
        }
        format!("if it is not needed, `kill {process}` stops it")
    }
}

/// `process 4711 (node server.js)`
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        write!(f, "process {} ({})", self.process, self.command.chars().take(SHOWN).collect::<String>())
    }
}

/// The inode in a line of `/proc/net/tcp`, if the socket listens on this port.
fn listener(line: &str, port: u16) -> Option<&str> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let is_port = u16::from_str_radix(local.rsplit(':').next()?, 16) == Ok(port);
    (is_port && *state == LISTENS).then_some(inode)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = Program::listening_on(port).unwrap();
        assert_eq!(found.process, std::process::id() as i32);
        assert!(!found.is_original());
        assert_eq!(found.most_open_files(), rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
        drop(listener);
        assert!(Program::listening_on(port).is_none());
    }
}
