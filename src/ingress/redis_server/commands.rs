//! The commands: those that publish, and those that clients send before and around them.
//!
//! Input: commands of a [`Connection`]. Output: their replies, and messages to publish.

use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Next};
use super::frame::Command;
use super::reply::{Protocol, Reply};
use crate::hub::Socket;

/// Longest name that a client may set for itself.
const MAX_NAME_BYTES: usize = 1024;
/// Delay before a wrong password is answered.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(200);
/// The Redis version reported to clients.
const VERSION: &str = "7.0.0";

impl<S: Socket> Connection<S> {
    /// Answers publishing commands directly from the read buffer; `None` for any other command.
    pub(super) async fn broadcast(&mut self) -> Option<Reply> {
        let arguments = self.framer.arguments();
        let name = arguments.get(0);
        if !self.is_allowed {
            return None;
        }
        if arguments.len() == 3 && (name.eq_ignore_ascii_case(b"publish") || name.eq_ignore_ascii_case(b"spublish")) {
            return Some(self.shared.publish(arguments.get(1), arguments.get(2)).await);
        }
        if arguments.len() >= 3 && name.eq_ignore_ascii_case(b"eval") {
            return Some(self.shared.eval(arguments.get(1), arguments.iter().skip(2)).await);
        }
        None
    }

    /// Answers any other command.
    pub(super) async fn take(&mut self, command: Command) -> (Reply, Next) {
        let name = command[0].to_ascii_uppercase();
        let name = String::from_utf8_lossy(&name);
        if !self.is_allowed && !matches!(&*name, "AUTH" | "HELLO" | "QUIT" | "RESET") {
            return (Reply::Error("NOAUTH Authentication required.".to_owned()), Next::Go);
        }
        if name == "QUIT" {
            return (Reply::OK, Next::Close);
        }
        (self.execute(&name, &command[1..]).await, Next::Go)
    }

    async fn execute(&mut self, name: &str, args: &[Bytes]) -> Reply {
        match (name, args) {
            ("RESET", []) => {
                self.protocol = Protocol::Resp2;
                self.name = Bytes::new();
                self.is_allowed = self.shared.access.is_open();
                Reply::Status("RESET")
            }
            ("AUTH", [password]) => self.auth(None, password).await,
            ("AUTH", [user, password]) => self.auth(Some(user), password).await,
            ("HELLO", args) => self.hello(args).await,
            ("CLIENT", [what, rest @ ..]) => self.client(what, rest),
            ("PING", []) => Reply::Status("PONG"),
            ("PING" | "ECHO", [text]) => Reply::Bulk(text.clone()),
            ("SELECT", [database]) => match std::str::from_utf8(database).ok().and_then(|text| text.parse::<u32>().ok()) {
                Some(_) => Reply::OK,
                None => Reply::error("value is not an integer or out of range"),
            },
            ("READONLY", _) => Reply::OK,
            ("INFO", _) => Reply::Bulk(info().into()),
            ("COMMAND", [what, ..]) if what.eq_ignore_ascii_case(b"count") => Reply::Integer(0),
            ("COMMAND", [what, ..]) if what.eq_ignore_ascii_case(b"docs") => Reply::Map(Vec::new()),
            ("COMMAND", _) => Reply::List(Vec::new()),
            ("CONFIG", [what, names @ ..]) if what.eq_ignore_ascii_case(b"get") && !names.is_empty() => config(names),
            (name, _) if is_known(name) => {
                Reply::error(format_args!("wrong number of arguments for '{}' command", name.to_ascii_lowercase()))
            }
            (name, _) => unknown(name),
        }
    }

    async fn auth(&mut self, user: Option<&Bytes>, password: &Bytes) -> Reply {
        if self.shared.access.is_open() {
            return Reply::error("a password was sent, but redisServer.password is not set");
        }
        if self.shared.access.allows(user.map(|user| user.as_ref()), password) {
            self.is_allowed = true;
            return Reply::OK;
        }
        tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
        Reply::Error("WRONGPASS invalid username-password pair or user is disabled.".to_owned())
    }

    /// `HELLO [2|3 [AUTH user password] [SETNAME name]]`
    async fn hello(&mut self, args: &[Bytes]) -> Reply {
        let protocol = match args.first().map(AsRef::as_ref) {
            None => self.protocol,
            Some(b"2") => Protocol::Resp2,
            Some(b"3") => Protocol::Resp3,
            Some(_) => return Reply::Error("NOPROTO unsupported protocol version".to_owned()),
        };
        let mut options = args.get(1..).unwrap_or_default();
        while let Some((option, rest)) = options.split_first() {
            options = match (option.to_ascii_uppercase().as_slice(), rest) {
                (b"AUTH", [user, password, rest @ ..]) => {
                    if let refused @ Reply::Error(_) = self.auth(Some(user), password).await {
                        return refused;
                    }
                    rest
                }
                (b"SETNAME", [name, rest @ ..]) if name.len() <= MAX_NAME_BYTES => {
                    self.name = Bytes::copy_from_slice(name);
                    rest
                }
                _ => return Reply::error("syntax error in HELLO"),
            };
        }
        if !self.is_allowed {
            return Reply::Error("NOAUTH HELLO must be called with the client already authenticated, or with AUTH".to_owned());
        }
        self.protocol = protocol;
        let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
        Reply::Map(vec![
            (Reply::text("server"), Reply::text("redis")),
            (Reply::text("version"), Reply::text(VERSION)),
            (Reply::text("proto"), Reply::Integer(version)),
            (Reply::text("id"), Reply::count(self.id)),
            (Reply::text("mode"), Reply::text("standalone")),
            (Reply::text("role"), Reply::text("master")),
            (Reply::text("modules"), Reply::List(Vec::new())),
        ])
    }

    fn client(&mut self, what: &[u8], rest: &[Bytes]) -> Reply {
        match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"ID", _) => Reply::count(self.id),
            (b"GETNAME", _) => Reply::Bulk(self.name.clone()),
            (b"SETNAME", [name]) if name.len() <= MAX_NAME_BYTES => {
                self.name = Bytes::copy_from_slice(name);
                Reply::OK
            }
            (b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH" | b"TRACKING", _) => Reply::OK,
            // Refuses OFF and SKIP: a client that expects no replies would take ours for replies to later commands.
            (b"REPLY", [mode]) if mode.eq_ignore_ascii_case(b"on") => Reply::OK,
            _ => Reply::error("CLIENT takes ID, GETNAME, SETNAME or SETINFO here"),
        }
    }
}

/// Whether this is a supported command, so that the error is about its arguments.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 13] =
        ["PUBLISH", "SPUBLISH", "EVAL", "AUTH", "HELLO", "CLIENT", "PING", "ECHO", "SELECT", "RESET", "INFO", "COMMAND", "CONFIG"];
    KNOWN.contains(&name)
}

fn unknown(name: &str) -> Reply {
    let shown: String = name.chars().take(40).collect();
    Reply::error(format_args!(
        "unknown command '{shown}': this endpoint of laravel-echo-server takes broadcasts only; point cache, queue and sessions at a real Redis"
    ))
}

/// Settings that tools read first. The server persists nothing.
fn config(names: &[Bytes]) -> Reply {
    const KNOWN: [(&str, &str); 3] = [("save", ""), ("appendonly", "no"), ("databases", "16")];
    let is_asked = |name: &str| names.iter().any(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
    let known = KNOWN.iter().filter(|(name, _)| is_asked(name));
    Reply::Map(known.map(|(name, value)| (Reply::text(name), Reply::text(value))).collect())
}

fn info() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "# Server\r\nredis_version:{VERSION}\r\nserver_name:laravel-echo-server\r\nlaravel_echo_server:{version}\r\nredis_mode:standalone\r\n\r\n# Persistence\r\nloading:0\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
    )
}
