//! [`Pids`]: the private ids with which clients resume their sessions.
//!
//! Input: public socket ids. Output: `<socket id>.<128-bit proof>`, which only this process, or a node that shares its key,
//! can make; and the socket id of a valid one. Private ids are never logged.

use subtle::ConstantTimeEq as _;

use crate::cluster::sessions::SessionKey;
use crate::event::SocketId;
use crate::signature::sign;

/// Hex digits of the proof: 128 bits.
const PROOF: usize = 32;

/// Creates and verifies private ids.
pub(super) struct Pids {
    key: SessionKey,
}

impl Pids {
    pub(super) fn new() -> Self {
        Self { key: rand::random() }
    }

    /// Creates the private id of `id`, with the key that nodes share if there is one.
    pub(super) fn write(&self, id: SocketId, shared: Option<&SessionKey>) -> String {
        format!("{id}.{}", proof(shared.unwrap_or(&self.key), id))
    }

    /// Verifies a private id and returns its socket id.
    pub(super) fn read(&self, pid: &str, shared: Option<&SessionKey>) -> Option<SocketId> {
        let (id, proof) = pid.rsplit_once('.')?;
        let id = SocketId::parse(id)?;
        // This process may have issued it before it knew the shared key.
        let mut keys = [shared, Some(&self.key)].into_iter().flatten();
        keys.any(|key| bool::from(self::proof(key, id).as_bytes().ct_eq(proof.as_bytes()))).then_some(id)
    }
}

fn proof(key: &SessionKey, id: SocketId) -> String {
    let mut proof = sign(key, &id.number().to_be_bytes());
    proof.truncate(PROOF);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_private_ids_are_rejected() {
        let (pids, id) = (Pids::new(), SocketId::new(1, 2));
        let pid = pids.write(id, None);
        let shared = rand::random();
        assert_eq!(pids.read(&pid, None), Some(id));
        assert_eq!(pids.read(&pid, Some(&shared)), Some(id));
        assert_eq!(Pids::new().read(&pid, None), None);
        let everywhere = pids.write(id, Some(&shared));
        assert_eq!(Pids::new().read(&everywhere, Some(&shared)), Some(id));
        assert_eq!(Pids::new().read(&everywhere, None), None);
        let other = pid.replacen("1.2", "1.3", 1);
        for forged in ["", ".", "1.2", "1.2.", &pid[..pid.len() - 1], &other, &format!("{pid}0")] {
            assert_eq!(pids.read(forged, Some(&shared)), None, "{forged}");
        }
    }
}
