//! Reads the body of a response to a request of this server, of which only so much is kept. Input: a response. Output: bytes.

/// The body, and whether it is longer than `max_bytes`: then the rest is not read.
///
/// # Errors
/// The connection broke before the end of the body.
pub(crate) async fn body(mut response: reqwest::Response, max_bytes: usize) -> reqwest::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > max_bytes {
            return Ok((body, true));
        }
    }
    Ok((body, false))
}
