//! [`Cache`]: keeps answers for `auth.cacheTtl`.
//!
//! Input: calls with their answers. Output: the same answers for equal calls. Answers that are not decisions of the
//! application (5xx, 429) are not cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Answer, Call};
use crate::channel::ChannelName;

/// Maximum number of cached answers; each keeps its call, which has some kilobytes with cookies.
const MAX_ANSWERS: usize = 10_000;
/// Calls with more header bytes than this are not cached: they are rare, and many of them would take up too much memory.
const LARGEST_CALL: usize = 8 * 1024;

/// Answers by call, each with its expiry.
pub(super) struct Cache {
    ttl: Duration,
    answers: Mutex<HashMap<Arc<Call>, (Instant, Answer)>>,
    /// Counts calls of [`Self::forget`], so that a call sent before one cannot put its answer back.
    generation: AtomicU64,
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, answers: Mutex::default(), generation: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, call: &Call) -> Option<Answer> {
        self.get_at(call, Instant::now())
    }

    fn get_at(&self, call: &Call, now: Instant) -> Option<Answer> {
        let answers = self.answers.lock();
        answers.get(call).filter(|(end, _)| *end > now).map(|(_, answer)| answer.clone())
    }

    /// The generation to pass to [`Self::put`] for a call that is sent now.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(super) fn put(&self, call: &Arc<Call>, answer: &Answer, generation: u64) {
        if generation != self.generation() {
            return;
        }
        self.put_at(call, answer, Instant::now());
    }

    /// Removes the answers about a channel, or all of them.
    pub(super) fn forget(&self, channel: Option<&ChannelName>) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.answers.lock().retain(|call, _| channel.is_some_and(|channel| call.channel != *channel));
    }

    fn put_at(&self, call: &Arc<Call>, answer: &Answer, now: Instant) {
        let mut answers = self.answers.lock();
        let bytes: usize = call.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > LARGEST_CALL || answer.as_ref().is_err_and(|denied| !denied.is_decision()) {
            answers.remove(call);
            return;
        }
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, (end, _)| *end > now);
        }
        let mut end = now + self.ttl;
        if let Ok(grant) = answer {
            end = grant.ends.map_or(end, |ends| ends.min(end));
        }
        if answers.len() < MAX_ANSWERS || answers.contains_key(call) {
            answers.insert(Arc::clone(call), (end, answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::auth::shield::Target;
    use crate::auth::{Denied, Grant};

    fn call(channel: usize) -> Arc<Call> {
        let target = Target::new("http://app", "/auth").unwrap();
        Arc::new(Call::new(Arc::new(target), format!("private-{channel}").into(), HeaderMap::new()))
    }

    #[test]
    fn answers_last_for_their_time() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        cache.put_at(&call(1), &Err(Denied::new(403)), now);
        assert_eq!(cache.get_at(&call(1), now + Duration::from_secs(4)).unwrap().unwrap_err().status, 403);
        assert!(cache.get_at(&call(1), now + Duration::from_secs(5)).is_none());
        assert!(cache.get_at(&call(2), now).is_none());
        let ends = Some(now + Duration::from_secs(1));
        cache.put_at(&call(1), &Ok(Grant { ends, ..Grant::default() }), now);
        assert!(cache.get_at(&call(1), now + Duration::from_secs(1)).is_none());
    }

    #[test]
    fn what_was_forgotten_does_not_come_back_by_a_question_of_before() {
        let cache = Cache::new(Duration::from_secs(5));
        let before = cache.generation();
        cache.forget(Some(&call(1).channel));
        cache.put(&call(1), &Ok(Grant::default()), before);
        assert!(cache.get(&call(1)).is_none());
        cache.put(&call(1), &Ok(Grant::default()), cache.generation());
        assert!(cache.get(&call(1)).is_some());
        cache.forget(Some(&call(2).channel));
        assert!(cache.get(&call(1)).is_some());
        cache.forget(None);
        assert!(cache.get(&call(1)).is_none());
    }

    #[test]
    fn failures_are_not_kept() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        for status in [0, 429, 500, 503] {
            cache.put_at(&call(1), &Err(Denied::new(status)), now);
            assert!(cache.get_at(&call(1), now).is_none(), "{status}");
        }
    }

    #[test]
    fn large_calls_are_not_kept() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        let large = HeaderValue::from_bytes(&[b'x'; LARGEST_CALL]).unwrap();
        let mut call = call(1);
        Arc::get_mut(&mut call).unwrap().headers.push((http::header::COOKIE, large));
        cache.put_at(&call, &Ok(Grant::default()), now);
        assert!(cache.get_at(&call, now).is_none());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        for n in 0..MAX_ANSWERS + 10 {
            cache.put_at(&call(n), &Ok(Grant::default()), now);
        }
        assert_eq!(cache.answers.lock().len(), MAX_ANSWERS);
        cache.put_at(&call(0), &Ok(Grant::default()), now);
        let later = now + Duration::from_secs(5);
        cache.put_at(&call(MAX_ANSWERS), &Ok(Grant::default()), later);
        assert_eq!(cache.answers.lock().len(), 1);
    }
}
