//! Unix: the holder is stopped by a signal, and files are compared by device and inode.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::Holder;

/// Asks the process that holds the lock to stop.
///
/// # Errors
/// If it is not visible from here, or may not be signalled.
pub(super) fn tell_to_end(holder: &Holder) -> anyhow::Result<()> {
    let shown = holder.path.display();
    let process = holder.process.with_context(|| format!("`{shown}` is locked, but contains no process id"))?;
    if !is_visible(&holder.file, process) {
        anyhow::bail!(
            "`{shown}` is locked by a server that cannot be seen from here (another container or user?); process {process} is left alone"
        );
    }
    let pid = Pid::from_raw(process).with_context(|| format!("`{shown}` contains {process}, which is not a process id"))?;
    kill_process(pid, Signal::TERM).with_context(|| format!("stopping process {process}"))
}

/// Whether that process has this very file open. Without `/proc` this is assumed, because the lock is held.
fn is_visible(file: &File, process: i32) -> bool {
    if !Path::new("/proc/self/fd").exists() {
        return true;
    }
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| is_at(file, &descriptor.path()))
}

/// Whether `file` is the file at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(own), Ok(there)) => identity(own) == identity(there),
        _ => false,
    }
}
