//! [`EngineVersion`]: which Engine.IO a client speaks.

/// The version of Engine.IO that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum EngineVersion {
    /// socket.io-client 1 and 2; also whoever names no version, as in the original.
    V3,
    /// socket.io-client 3 and 4.
    V4,
}

impl EngineVersion {
    /// The version as metrics show it.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4 => "4",
        }
    }
}
