//! [`EngineVersion`]: the Engine.IO version that a client speaks.

use bytes::Bytes;

use super::dialect;
use crate::client::Speech;
use crate::hub::{Dialect, Message, Offset};

/// DISCONNECT of the default namespace: a client that receives it does not reconnect automatically.
const DISCONNECT: Bytes = Bytes::from_static(b"\x81\x0241");

/// The version of Engine.IO that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum EngineVersion {
    /// socket.io-client 1 and 2; also clients that send no version, as in the original.
    V3,
    /// socket.io-client 3 and 4.
    V4,
}

impl EngineVersion {
    /// The version as a metric label.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4 => "4",
        }
    }

    /// How the hub's messages are encoded for this version.
    pub(super) fn speech(self, can_recover: bool) -> &'static dyn Speech {
        match self {
            Self::V3 => &Plain(Self::V3),
            Self::V4 if can_recover => &Recoverable,
            Self::V4 => &Plain(Self::V4),
        }
    }
}

/// Encodes events without offsets.
struct Plain(EngineVersion);

impl Speech for Plain {
    fn dialect(&self) -> Dialect {
        Dialect::SocketIo
    }

    fn encode(&self, message: &Message<'_>, _: Option<Offset>) -> Option<Bytes> {
        dialect::encode(message, None)
    }

    fn goodbye(&self) -> Bytes {
        DISCONNECT
    }

    fn version(&self) -> &'static str {
        self.0.as_str()
    }
}

/// Encodes events with their offsets, for Engine.IO 4 clients.
struct Recoverable;

impl Speech for Recoverable {
    fn dialect(&self) -> Dialect {
        Dialect::Recoverable
    }

    fn encode(&self, message: &Message<'_>, offset: Option<Offset>) -> Option<Bytes> {
        dialect::encode(message, offset)
    }

    fn goodbye(&self) -> Bytes {
        DISCONNECT
    }

    fn version(&self) -> &'static str {
        EngineVersion::V4.as_str()
    }
}
