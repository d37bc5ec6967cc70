//! Unix: the holder is told by a signal, and files are the same by device and inode.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::Holder;

/// Asks the process that holds the lock to end.
///
/// # Errors
/// When it is not visible from here, or may not be signalled.
pub(super) fn tell_to_end(holder: &Holder) -> anyhow::Result<()> {
    let shown = holder.path.display();
    let process = holder.process.with_context(|| format!("`{shown}` is locked, but names no process"))?;
    if !is_visible(&holder.file, process) {
        anyhow::bail!(
            "`{shown}` is locked by a server that cannot be seen from here (another container or user?); process {process} is left alone"
        );
    }
    let pid = Pid::from_raw(process).with_context(|| format!("`{shown}` names process {process}, which cannot be one"))?;
    kill_process(pid, Signal::TERM).with_context(|| format!("stopping process {process}"))
}

/// Whether that process has this very file open. Where there is no `/proc`, the lock itself has to do as proof.
fn is_visible(file: &File, process: i32) -> bool {
    if !Path::new("/proc/self/fd").exists() {
        return true;
    }
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| is_at(file, &descriptor.path()))
}

/// Whether the open file is the one at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(own), Ok(there)) => identity(own) == identity(there),
        _ => false,
    }
}
