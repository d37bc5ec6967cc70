//! The commands: those that publish, and what clients send before and around them.
//!
//! Input: commands of a [`Connection`]. Output: their answers, and messages for the publisher and those who watch.

use std::time::Duration;

use bytes::Bytes;

use super::connection::{Connection, Next, Transaction};
use super::frame::Command;
use super::reply::{Protocol, Reply};
use super::watch::Kind;
use crate::hub::Socket;

/// Commands of one transaction.
const MAX_TRANSACTION: usize = 100_000;
/// What an argument of a waiting command takes beside its bytes.
const COST_OF_AN_ARGUMENT: usize = 64;
/// Longest name that a client may give itself.
const MAX_NAME_BYTES: usize = 1024;
/// A wrong password is answered after this time.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(200);
/// The version of Redis that clients take this for.
const VERSION: &str = "7.0.0";

impl<S: Socket> Connection<S> {
    /// Answers the commands that this is all for out of the bytes that have arrived, where nothing stands in their way;
    /// `None` for any other.
    pub(super) async fn broadcast(&mut self) -> Option<Reply> {
        let is_free = self.is_allowed && self.transaction.is_none() && self.watch.is_empty();
        let arguments = self.framer.arguments();
        let name = arguments.get(0);
        if is_free && arguments.len() == 3 && name.eq_ignore_ascii_case(b"publish") {
            return Some(self.shared.publish(arguments.get(1), arguments.get(2)).await);
        }
        if is_free && arguments.len() >= 3 && name.eq_ignore_ascii_case(b"eval") {
            let script = match &self.script {
                Some(script) if script.text() == arguments.get(1) => script,
                _ => self.script.insert(self.shared.scripts.load(arguments.get(1)).ok()?.1),
            };
            let rest: Vec<_> = arguments.iter().skip(2).collect();
            return Some(self.shared.eval(script, &rest).await);
        }
        None
    }

    /// Answers a command.
    pub(super) async fn take(&mut self, command: Command) -> (Reply, Next) {
        let name = command[0].to_ascii_uppercase();
        let name = String::from_utf8_lossy(&name);
        if !self.is_allowed && !matches!(&*name, "AUTH" | "HELLO" | "QUIT" | "RESET") {
            return (Reply::Error("NOAUTH Authentication required.".to_owned()), Next::Go);
        }
        match &*name {
            "QUIT" => return (Reply::OK, Next::Close),
            "RESET" => {
                self.reset();
                return (Reply::Status("RESET"), Next::Go);
            }
            _ => {}
        }
        let is_watching = !self.watch.is_empty() && self.protocol == Protocol::Resp2;
        if is_watching
            && !matches!(&*name, "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" | "PING")
        {
            return (Reply::error("only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"), Next::Go);
        }
        let reply = match (&*name, self.transaction.is_some()) {
            ("MULTI", true) => Reply::error("MULTI calls can not be nested"),
            ("MULTI", false) => {
                self.transaction = Some(Transaction::default());
                Reply::OK
            }
            ("EXEC", _) => self.exec().await,
            ("DISCARD", true) => {
                self.transaction = None;
                Reply::OK
            }
            ("DISCARD", false) => Reply::error("DISCARD without MULTI"),
            (_, true) => self.queue(&name, command),
            (_, false) => self.execute(&name, &command[1..]).await,
        };
        (reply, Next::Go)
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.watch = super::watch::Watch::default();
        self.protocol = Protocol::Resp2;
        self.name = Bytes::new();
        self.is_allowed = self.shared.access.is_open();
    }

    fn queue(&mut self, name: &str, command: Command) -> Reply {
        let limit = self.shared.max_message;
        let Some(transaction) = &mut self.transaction else { return Reply::error("EXEC without MULTI") };
        if !is_known(name) {
            *transaction = Transaction::broken();
            return unknown(name);
        }
        let bytes: usize = command.iter().map(|argument| argument.len() + COST_OF_AN_ARGUMENT).sum();
        if transaction.bytes + bytes > limit || transaction.commands.len() >= MAX_TRANSACTION {
            *transaction = Transaction::broken();
            return Reply::error(format_args!("the transaction is larger than redisServer.maxMessageBytes ({limit})"));
        }
        if !transaction.is_broken {
            transaction.bytes += bytes;
            transaction.commands.push(command);
        }
        Reply::Status("QUEUED")
    }

    async fn exec(&mut self) -> Reply {
        let Some(transaction) = self.transaction.take() else { return Reply::error("EXEC without MULTI") };
        if transaction.is_broken {
            return Reply::Error("EXECABORT Transaction discarded because of previous errors.".to_owned());
        }
        let mut replies = Vec::with_capacity(transaction.commands.len());
        for command in transaction.commands {
            let name = String::from_utf8_lossy(&command[0]).to_ascii_uppercase();
            replies.push(self.execute(&name, &command[1..]).await);
        }
        Reply::List(replies)
    }

    async fn execute(&mut self, name: &str, args: &[Bytes]) -> Reply {
        match (name, args) {
            ("PUBLISH" | "SPUBLISH", [channel, payload]) => self.shared.publish(channel, payload).await,
            ("EVAL" | "EVAL_RO", [script, rest @ ..]) if !rest.is_empty() => match self.shared.scripts.load(script) {
                Ok((_, script)) => self.shared.eval(&script, &slices(rest)).await,
                Err(error) => Reply::error(error),
            },
            ("EVALSHA" | "EVALSHA_RO", [sha, rest @ ..]) if !rest.is_empty() => match self.shared.scripts.find(sha) {
                Some(script) => self.shared.eval(&script, &slices(rest)).await,
                None => Reply::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned()),
            },
            ("SCRIPT", [what, rest @ ..]) => self.script(what, rest),
            ("AUTH", [password]) => self.auth(None, password).await,
            ("AUTH", [user, password]) => self.auth(Some(user), password).await,
            ("HELLO", args) => self.hello(args).await,
            ("CLIENT", [what, rest @ ..]) => self.client(what, rest),
            ("SUBSCRIBE" | "SSUBSCRIBE", names) if !names.is_empty() => self.subscribe(Kind::Channel, names),
            ("PSUBSCRIBE", names) if !names.is_empty() => self.subscribe(Kind::Pattern, names),
            ("UNSUBSCRIBE" | "SUNSUBSCRIBE", names) => self.watch.remove(Kind::Channel, names),
            ("PUNSUBSCRIBE", names) => self.watch.remove(Kind::Pattern, names),
            ("PING", args) if args.len() <= 1 => self.ping(args),
            ("ECHO", [text]) => Reply::Bulk(text.clone()),
            ("SELECT", [database]) => match std::str::from_utf8(database).ok().and_then(|text| text.parse::<u32>().ok()) {
                Some(_) => Reply::OK,
                None => Reply::error("value is not an integer or out of range"),
            },
            ("WATCH" | "UNWATCH" | "READONLY", _) => Reply::OK,
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

    fn script(&self, what: &[u8], rest: &[Bytes]) -> Reply {
        match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"LOAD", [text]) => match self.shared.scripts.load(text) {
                Ok((sha, _)) => Reply::text(&sha),
                Err(error) => Reply::error(error),
            },
            (b"EXISTS", shas) => {
                Reply::List(shas.iter().map(|sha| Reply::Integer(self.shared.scripts.find(sha).is_some().into())).collect())
            }
            (b"FLUSH", _) => {
                self.shared.scripts.clear();
                Reply::OK
            }
            _ => Reply::error("SCRIPT takes LOAD, EXISTS or FLUSH here"),
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
            // To be silent is not offered: an answer that is not expected would be taken for that of another command.
            (b"REPLY", [mode]) if mode.eq_ignore_ascii_case(b"on") => Reply::OK,
            _ => Reply::error("CLIENT takes ID, GETNAME, SETNAME or SETINFO here"),
        }
    }

    fn subscribe(&mut self, kind: Kind, names: &[Bytes]) -> Reply {
        self.watch.add(kind, names).unwrap_or_else(|| Reply::error("too many subscriptions"))
    }

    fn ping(&self, args: &[Bytes]) -> Reply {
        let is_watching = !self.watch.is_empty() && self.protocol == Protocol::Resp2;
        match args.first() {
            text if is_watching => Reply::List(vec![Reply::text("pong"), Reply::Bulk(text.cloned().unwrap_or_default())]),
            Some(text) => Reply::Bulk(text.clone()),
            None => Reply::Status("PONG"),
        }
    }
}

fn slices(arguments: &[Bytes]) -> Vec<&[u8]> {
    arguments.iter().map(AsRef::as_ref).collect()
}

/// Commands that [`Connection::execute`] answers.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 26] = [
        "PUBLISH",
        "SPUBLISH",
        "EVAL",
        "EVAL_RO",
        "EVALSHA",
        "EVALSHA_RO",
        "SCRIPT",
        "AUTH",
        "HELLO",
        "CLIENT",
        "SUBSCRIBE",
        "SSUBSCRIBE",
        "PSUBSCRIBE",
        "UNSUBSCRIBE",
        "SUNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "PING",
        "ECHO",
        "SELECT",
        "WATCH",
        "UNWATCH",
        "READONLY",
        "INFO",
        "COMMAND",
        "CONFIG",
        "QUIT",
    ];
    KNOWN.contains(&name)
}

fn unknown(name: &str) -> Reply {
    let shown: String = name.chars().take(40).collect();
    Reply::error(format_args!(
        "unknown command '{shown}': this endpoint of laravel-echo-server takes broadcasts only; point cache, queue and sessions at a real Redis"
    ))
}

/// What tools ask for before they begin; nothing is saved here.
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
