//! [`Asked`]: why an HTTP request got no answer. Input: an error of the HTTP client. Output: its cause and a hint, in the same words
//! for the log and for `doctor`.

use std::error::Error;

use super::tls::Trust;

/// A kind of server that is asked over HTTP, by the settings that lead to it.
#[derive(Debug)]
pub struct Asked {
    /// The setting with the address.
    address: &'static str,
    /// The setting with the time for an answer.
    timeout: &'static str,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// What went wrong, without the URL.
    pub cause: String,
    /// How to fix it.
    pub hint: String,
}

impl Asked {
    /// The application at `authHost`.
    pub const APPLICATION: Self = Self { address: "authHost", timeout: "auth.timeout" };
    /// The target of a webhook.
    pub const WEBHOOK: Self = Self { address: "url", timeout: "webhooksDelivery.timeout" };

    /// Explains an error of a request.
    #[must_use]
    pub fn explain(&self, error: &reqwest::Error) -> Unanswered {
        let Self { address, timeout } = self;
        let cause = last_cause(error);
        let unanswered = |cause: String, hint: String| Unanswered { cause, hint };
        if error.is_timeout() {
            let hint = format!("the application is too slow: raise {timeout}; or a firewall drops the packets to `{address}`");
            unanswered(format!("no answer within {timeout}"), hint)
        } else if causes(error).any(|cause| cause.to_string().contains("dns error")) {
            let hint = format!("is `{address}` spelled right, and its host known on this machine (or in this container: same network)?");
            unanswered("the host name cannot be resolved".to_owned(), hint)
        } else if cause.contains("InvalidContentType") {
            unanswered(cause, format!("the server there speaks plain HTTP: write http:// in `{address}`, or the port of https"))
        } else if let Some(hint) = Trust::APPLICATION.hint(&cause) {
            unanswered(cause, hint.to_owned())
        } else if error.is_connect() {
            let hint = format!("is the application running, and is `{address}` its address as seen from this machine (or container)?");
            unanswered(cause, hint)
        } else if cause.contains("before message completed") || cause.contains("invalid HTTP") {
            let hint =
                format!("the server there gave no answer in HTTP: is the port right? If it speaks https, write https:// in `{address}`");
            unanswered(cause, hint)
        } else {
            unanswered(cause, format!("the connection to `{address}` broke"))
        }
    }
}

/// The last cause of an error: those around it say "error sending request: client error (Connect): tcp connect error".
#[must_use]
pub fn last_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The causes of an error, the last one last.
pub(crate) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}
