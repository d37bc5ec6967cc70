//! [`Pids`]: the private ids by which clients come back to their sessions.
//!
//! Input: public socket ids. Output: `<socket id>.<128 bits>`, which nobody can make but this process, and the way back. They
//! are never logged.

use subtle::ConstantTimeEq as _;

use crate::event::SocketId;
use crate::signature::sign;

/// Letters of the proof: 128 bits.
const PROOF: usize = 32;

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
        let mut proof = sign(&self.key, &id.number().to_be_bytes());
        proof.truncate(PROOF);
        proof
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
