//! Windows: Ctrl-C and Ctrl-Break, the closed console, the system's shutdown, and the pipe that `stop` writes to.
//!
//! Wrappers that make a service of a program (NSSM, WinSW) send Ctrl-C to stop it.

use std::future::pending;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::task::JoinHandle;

use super::SignalAction;
use crate::cli::lock_file;

/// Time for whoever opens the pipe to write to it.
const PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Containers of Windows leave nothing to process 1.
pub(in crate::cli::start) const fn reap_orphans() -> anyhow::Result<Option<JoinHandle<()>>> {
    Ok(None)
}

/// The events, as they come.
pub(super) struct Source {
    interrupt: CtrlC,
    r#break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
    pipe: Option<NamedPipeServer>,
}

impl Source {
    pub(super) fn listen(lock: Option<&Path>) -> io::Result<Self> {
        // Only this user and administrators may write to a pipe that is made like this, and nobody from another machine.
        let pipe = lock.map(|lock| ServerOptions::new().first_pipe_instance(true).create(lock_file::stop_pipe(lock))).transpose()?;
        Ok(Self { interrupt: ctrl_c()?, r#break: ctrl_break()?, close: ctrl_close()?, shutdown: ctrl_shutdown()?, pipe })
    }

    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.r#break.recv() => SignalAction::Stop,
            _ = self.close.recv() => SignalAction::Stop,
            _ = self.shutdown.recv() => SignalAction::Stop,
            () = asked(self.pipe.as_mut()) => SignalAction::Stop,
        }
    }
}

/// Waits until somebody writes to the pipe.
async fn asked(pipe: Option<&mut NamedPipeServer>) {
    let Some(pipe) = pipe else { return pending().await };
    loop {
        let is_asked = match pipe.connect().await {
            Ok(()) => tokio::time::timeout(PIPE_TIMEOUT, pipe.read_u8()).await.is_ok_and(|read| read.is_ok()),
            Err(error) => {
                tracing::debug!(%error, "nobody can connect to the pipe of `stop`");
                tokio::time::sleep(PIPE_TIMEOUT).await;
                false
            }
        };
        // It fails for a client that is gone.
        let _ = pipe.disconnect();
        if is_asked {
            return;
        }
    }
}
