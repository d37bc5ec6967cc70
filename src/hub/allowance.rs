//! [`Allowance`]: the rate limits of one connection.
//!
//! Input: `limits.subscribesPerSecond` and `limits.whispersPerSecond`, as they are when the client connects. Output: yes or no.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::Limits;

/// The rate limits of one connection.
#[derive(Debug)]
pub struct Allowance {
    subscribes: Rate,
    whispers: Rate,
}

impl Allowance {
    /// For a client that connects now.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        Self { subscribes: Rate::new(limits.subscribes_per_second), whispers: Rate::new(limits.whispers_per_second) }
    }

    /// Counts one subscribe; `false` when it exceeds the limit.
    #[must_use]
    pub fn may_subscribe(&self) -> bool {
        self.subscribes.take()
    }

    /// Counts one whisper; `false` when it exceeds the limit.
    #[must_use]
    pub fn may_whisper(&self) -> bool {
        self.whispers.take()
    }
}

/// A limit per second with a burst of twice as many; created when first used, since most sockets never whisper.
#[derive(Debug)]
struct Rate {
    per_second: u32,
    limiter: OnceLock<Box<DefaultDirectRateLimiter>>,
}

impl Rate {
    const fn new(per_second: u32) -> Self {
        Self { per_second, limiter: OnceLock::new() }
    }

    /// Counts one request; `false` when it exceeds the limit. A limit of 0 means no limit.
    fn take(&self) -> bool {
        let Some(per_second) = NonZeroU32::new(self.per_second) else {
            return true;
        };
        let limiter = self.limiter.get_or_init(|| {
            let burst = per_second.saturating_mul(NonZeroU32::new(2).expect("two is not zero"));
            Box::new(RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
        });
        limiter.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_a_burst_of_twice_as_many() {
        let rate = Rate::new(3);
        assert!((0..6).all(|_| rate.take()));
        assert!(!rate.take());
        let unlimited = Rate::new(0);
        assert!((0..1_000).all(|_| unlimited.take()));
    }
}
