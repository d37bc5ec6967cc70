//! Windows: the holder is stopped through a named pipe that it listens on, because there are no signals.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use same_file::Handle;

use super::Holder;

/// The pipe of the server that holds this lock file.
pub(crate) fn stop_pipe(lock: &Path) -> String {
    let absolute = lock.canonicalize().or_else(|_| std::path::absolute(lock)).unwrap_or_else(|_| lock.to_owned());
    let digest = HEXLOWER.encode(digest(&SHA256, absolute.as_os_str().as_encoded_bytes()).as_ref());
    format!(r"\\.\pipe\laravel-echo-server-{digest}")
}

/// Asks the process that holds the lock to stop.
///
/// # Errors
/// If it does not listen, or this user may not write to the pipe.
pub(super) fn tell_to_end(holder: &Holder) -> anyhow::Result<()> {
    let asking = || format!("asking the server that holds `{}` to stop", holder.path.display());
    let mut pipe = OpenOptions::new().write(true).open(stop_pipe(&holder.path)).with_context(asking)?;
    pipe.write_all(b"\n").with_context(asking)
}

/// Whether `file` is the file at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let own = file.try_clone().and_then(Handle::from_file);
    matches!((own, Handle::from_path(path)), (Ok(own), Ok(there)) if own == there)
}
