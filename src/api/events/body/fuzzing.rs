//! Fuzz target for bodies of `events` and `batch_events`. Input: bytes. Output: a panic if an assertion fails.

use serde_json::json;

use super::{BatchFields, Bounds, HttpEvent, is_falsy, object, read_batch, read_event};
use crate::event::is_reserved;

/// Limits low enough to be reached by short inputs.
const BOUNDS: Bounds = Bounds { channels: 3, channel_name: 20, event_name: 20 };

/// A body of either kind: limits hold, data is unchanged, and a parsed event can be serialized and parsed again.
pub fn http_event(body: &[u8]) {
    let single = object(body, "body").and_then(|fields| read_event(&fields, BOUNDS));
    if let Ok(event) = &single {
        check(event, body);
    }
    if let Ok(batch) = read_batch(body, BOUNDS) {
        assert!(batch.len() <= BOUNDS.channels);
        assert!(object::<BatchFields<'_>>(body, "body").is_ok());
        for event in &batch {
            assert_eq!(event.channels.len(), 1, "events of a batch have one channel each");
            check(event, body);
        }
    }
}

fn check(event: &HttpEvent, body: &[u8]) {
    assert!(event.channels.len() <= BOUNDS.channels);
    assert!(event.channels.iter().all(|channel| (1..=BOUNDS.channel_name).contains(&channel.len())));
    assert!((1..=BOUNDS.event_name).contains(&event.name.len()) && !is_reserved(&event.name));
    let data = event.data.get();
    assert!(serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok(), "data is JSON");
    let is_untouched = body.windows(data.len()).any(|part| part == data.as_bytes());
    let was_text = body.contains(&b'\\') || body.windows(data.len() + 2).any(|part| part.starts_with(b"\"") && part.ends_with(b"\""));
    assert!(is_untouched || was_text, "{data} was not posted");
    // Pusher's libraries send data as a string, which is decoded once.
    let body = json!({ "channels": event.channels, "name": event.name, "data": data, "socket_id": event.except }).to_string();
    let again = object(body.as_bytes(), "body").and_then(|fields| read_event(&fields, BOUNDS)).expect("what was written can be read");
    assert_eq!((&again.channels, &again.name, again.except), (&event.channels, &event.name, event.except));
    assert_eq!(again.data.get(), data);
    // Falsy data is refused only if it is posted directly, not as a string.
    assert!(!is_falsy(&event.data) || was_text);
}
