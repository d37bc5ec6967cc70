//! [`Pids`]: the private ids by which clients come back to their sessions.
//!
//! Input: public socket ids. Output: `<socket id>.<128 bits>`, which nobody can make but this process, and the way back. They
//! are never logged.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::event::SocketId;

/// Bytes of the proof.
const PROOF: usize = 16;

/// Makes and reads private ids.
pub(super) struct Pids {
    key: [u8; 32],
}

impl Pids {
    pub(super) fn new() -> Self {
        Self { key: rand::random() }
    }

    pub(super) fn write(&self, id: SocketId) -> String {
        format!("{id}.{}", self.proof(id))
    }

    /// The socket that a private id was made for.
    pub(super) fn read(&self, pid: &str) -> Option<SocketId> {
        let (id, proof) = pid.rsplit_once('.')?;
        let id = SocketId::parse(id)?;
        bool::from(self.proof(id).as_bytes().ct_eq(proof.as_bytes())).then_some(id)
    }

    fn proof(&self, id: SocketId) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(&id.number().to_be_bytes());
        mac.finalize().into_bytes().iter().take(PROOF).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_are_read() {
        let (pids, id) = (Pids::new(), SocketId::new(1, 2));
        let pid = pids.write(id);
        assert_eq!(pids.read(&pid), Some(id));
        assert_eq!(Pids::new().read(&pid), None);
        let other = pid.replacen("1.2", "1.3", 1);
        for forged in ["", ".", "1.2", "1.2.", &pid[..pid.len() - 1], &other, &format!("{pid}0")] {
            assert_eq!(pids.read(forged), None, "{forged}");
        }
    }
}
