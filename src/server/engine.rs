//! The Socket.IO engine with the options of `socketio`.

use std::time::Duration;

use socketioxide::layer::SocketIoLayer;
use socketioxide::{ParserConfig, SocketIo, TransportType};

use crate::config::Config;

/// Read buffer of a websocket in bytes. Echo clients send little; a larger one is paid for by every idle connection.
pub const READ_BUFFER: usize = 1024;

/// Builds the engine.
#[must_use]
pub fn build(config: &Config) -> (SocketIoLayer, SocketIo) {
    let options = &config.socketio;
    let largest = usize::try_from(options.max_http_buffer_size.0).unwrap_or(usize::MAX);
    let builder = SocketIo::builder()
        .req_path(request_path(&options.path))
        .ping_interval(Duration::from_millis(options.ping_interval))
        .ping_timeout(Duration::from_millis(options.ping_timeout))
        .max_buffer_size(usize::try_from(config.limits.client_queue).unwrap_or(usize::MAX))
        // One limit for both transports: websockets heed none of the engine's own but these two.
        .max_payload(options.max_http_buffer_size.0)
        .ws_max_message_size(largest)
        .ws_max_frame_size(largest)
        .ws_read_buffer_size(READ_BUFFER)
        .with_parser(ParserConfig::common().max_incoming_binary_buf_size(largest));
    let has = |name: &str| options.transports.0.iter().any(|transport| transport == name);
    match (has("polling"), has("websocket")) {
        (true, false) => builder.transports([TransportType::Polling]),
        (false, true) => builder.transports([TransportType::Websocket]),
        _ => builder.transports([TransportType::Polling, TransportType::Websocket]),
    }
    .build_layer()
}

/// The path as the engine wants it: a slash before, none behind.
#[must_use]
pub fn request_path(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}
