//! Detects renewed certificates. Input: modification times and sizes of the files. Output: [`Tls::refresh`].

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Files, Tls, validity};

/// Interval between checks. Polling, unlike notifications of the kernel, also works through the symbolic links of certbot
/// and Kubernetes and on network file systems.
const PAUSE: Duration = Duration::from_secs(2);

/// Interval between reminders of a certificate that expires soon.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// Changes when a file is written or replaced.
pub(super) type State = [Option<(SystemTime, u64)>; 3];

pub(super) fn state(files: &Files) -> State {
    [&files.certificate, &files.chain, &files.key].map(|path| {
        let metadata = fs::metadata(Path::new(path)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

impl Tls {
    /// Reloads renewed files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut reminded = tokio::time::Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
            let source = self.source.load_full();
            if state(&source.files) != source.state {
                self.refresh();
            } else if reminded.elapsed() > REMIND {
                reminded = tokio::time::Instant::now();
                if let Some(certificate) = self.current.load().cert.first() {
                    validity::check(certificate, source.files.keys.certificate, &source.files.certificate);
                }
            }
        }
    }
}
