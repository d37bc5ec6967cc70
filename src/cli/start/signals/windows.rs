//! Windows: Ctrl-C and Ctrl-Break, closing the console, system shutdown, and the pipe that `stop` writes to.
//!
//! Service wrappers (NSSM, WinSW) send Ctrl-C to stop a program.

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

/// How long a process that has opened the pipe may take to write to it.
const PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Windows has no orphans to reap.
pub(in crate::cli::start) const fn reap_orphans() -> anyhow::Result<Option<JoinHandle<()>>> {
    Ok(None)
}

/// The stream of events.
pub(super) struct Source {
    interrupt: CtrlC,
    r#break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
    pipe: Option<NamedPipeServer>,
}

impl Source {
    pub(super) fn listen(lock: Option<&Path>) -> io::Result<Self> {
        // With these options only this user and administrators may write to the pipe, and only from this machine.
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

/// Waits until a process writes to the pipe.
async fn asked(pipe: Option<&mut NamedPipeServer>) {
    let Some(pipe) = pipe else { return pending().await };
    loop {
        let is_asked = match pipe.connect().await {
            Ok(()) => tokio::time::timeout(PIPE_TIMEOUT, pipe.read_u8()).await.is_ok_and(|read| read.is_ok()),
            Err(error) => {
                tracing::debug!(%error, "cannot accept connections on the pipe of `stop`");
                tokio::time::sleep(PIPE_TIMEOUT).await;
                false
            }
        };
        // Fails if the client has disconnected already.
        let _ = pipe.disconnect();
        if is_asked {
            return;
        }
    }
}
