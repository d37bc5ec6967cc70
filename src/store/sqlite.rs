//! Members in an SQLite file, for a single node. What an earlier run left behind is dropped when the file is opened:
//! those sockets are gone.
//!
//! Input: joins and leaves, each a transaction. Output: the file `databaseConfig.sqlite.databasePath`, below the
//! working directory whatever its first character is, as in the original (`src/database/sqlite.ts:19`).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::{Joined, Left, Member, Members, PresenceStore, StoreError};
use crate::channel::ChannelName;
use crate::config::SqliteConfig;
use crate::event::SocketId;

/// `place` grows with every join. Nothing in the file is of use after a crash, so nothing waits for the disk.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    DROP TABLE IF EXISTS presence_members;
    CREATE TABLE presence_members (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        channel TEXT NOT NULL,
        socket TEXT NOT NULL,
        user TEXT NOT NULL,
        member TEXT NOT NULL,
        UNIQUE (channel, socket)
    );
    CREATE INDEX presence_users ON presence_members (channel, user);
";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// No folder, or no right to write there.
    #[error("databaseConfig.sqlite.databasePath: cannot write `{path}`")]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process keeps its members there.
    #[error(
        "databaseConfig.sqlite.databasePath: `{path}` is used by another server; each needs a file of its own, or `database` to be `redis`"
    )]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a broken one.
    #[error("databaseConfig.sqlite.databasePath: cannot open `{path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that opens the file failed.
    #[error("databaseConfig.sqlite.databasePath: opening was broken off")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Members in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    // Held open for its lock.
    _owner: File,
}

impl SqliteStore {
    /// Opens the file, with its folder if that is missing, and empties it.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub async fn open(config: &SqliteConfig) -> Result<Self, SqliteError> {
        let path = PathBuf::from(config.database_path.trim_start_matches('/'));
        tokio::task::spawn_blocking(move || open(&path)).await?
    }

    /// Runs something in a transaction of its own, off the threads that serve clients.
    async fn transact<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let work = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = run(&transaction)?;
            transaction.commit()?;
            Ok::<_, rusqlite::Error>(result)
        });
        work.await.map_err(|error| StoreError(error.into()))?.map_err(|error| StoreError(error.into()))
    }
}

fn open(path: &Path) -> Result<SqliteStore, SqliteError> {
    let folder = |source| SqliteError::Folder { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(folder)?;
    }
    // Beside the database, since its own locks belong to SQLite.
    let owner = File::create(path.with_extension("owner")).map_err(folder)?;
    owner.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => SqliteError::Taken { path: path.to_owned() },
        TryLockError::Error(source) => folder(source),
    })?;
    let open = || {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(connection)
    };
    let connection = open().map_err(|source| SqliteError::Open { path: path.to_owned(), source })?;
    Ok(SqliteStore { connection: Arc::new(Mutex::new(connection)), _owner: owner })
}

#[async_trait]
impl PresenceStore for SqliteStore {
    async fn join(&self, channel: &ChannelName, socket: SocketId, member: Member) -> Result<Joined, StoreError> {
        let channel = channel.clone();
        self.transact(move |sql| {
            let is_first = !has_user(sql, &channel, member.user())?;
            let replaced = match take_out(sql, &channel, socket)? {
                Some(old) if old.user() != member.user() && !has_user(sql, &channel, old.user())? => Some(old),
                _ => None,
            };
            sql.prepare_cached("INSERT INTO presence_members (channel, socket, user, member) VALUES (?, ?, ?, ?)")?.execute((
                channel.as_str(),
                socket.to_string(),
                member.user(),
                member.json(),
            ))?;
            Ok(Joined { is_first, replaced, members: list(sql, &channel)?, version: 0, has_lost: false })
        })
        .await
    }

    async fn leave(&self, channel: &ChannelName, socket: SocketId) -> Result<Left, StoreError> {
        let channel = channel.clone();
        self.transact(move |sql| {
            Ok(match take_out(sql, &channel, socket)? {
                None => Left::NotThere,
                Some(member) if has_user(sql, &channel, member.user())? => Left::Remains,
                Some(member) => Left::Gone(member),
            })
        })
        .await
    }

    async fn members(&self, channel: &ChannelName) -> Result<Members, StoreError> {
        let channel = channel.clone();
        self.transact(move |sql| list(sql, &channel)).await
    }
}

fn has_user(sql: &Transaction<'_>, channel: &ChannelName, user: &str) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT 1 FROM presence_members WHERE channel = ? AND user = ? LIMIT 1")?.exists((channel.as_str(), user))
}

fn take_out(sql: &Transaction<'_>, channel: &ChannelName, socket: SocketId) -> rusqlite::Result<Option<Member>> {
    sql.prepare_cached("DELETE FROM presence_members WHERE channel = ? AND socket = ? RETURNING member")?
        .query_row((channel.as_str(), socket.to_string()), |row| member(row, 0))
        .optional()
}

fn list(sql: &Transaction<'_>, channel: &ChannelName) -> rusqlite::Result<Members> {
    let mut select = sql.prepare_cached("SELECT socket, member FROM presence_members WHERE channel = ? ORDER BY place")?;
    let rows = select.query_map((channel.as_str(),), |row| {
        let socket: String = row.get(0)?;
        let socket = SocketId::parse(&socket).ok_or(rusqlite::Error::InvalidQuery)?;
        Ok((socket, member(row, 1)?))
    })?;
    rows.collect()
}

fn member(row: &Row<'_>, column: usize) -> rusqlite::Result<Member> {
    let json: String = row.get(column)?;
    let unreadable = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    Member::parse(&json).map_err(unreadable)
}
