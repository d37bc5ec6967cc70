//! The bounded queues of a [`Feed`](super::Feed): of each page, and of what is kept for later pages.
//!
//! Input: entries, at any rate. Output: [`Batch`]es for pages, with the number of entries that were left out.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::api::dashboard::entry::{Entry, Group};

/// Entries per group and second that a page gets; others are only counted.
pub(in crate::api::dashboard) const RATE: u32 = 50;

/// Maximum number of entries queued for a page, and of entries kept for later pages and for "why?" questions.
pub(super) const MAX_ENTRIES: usize = 1000;
/// Maximum bytes of them.
pub(super) const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Entries in order of arrival, bounded in number and in bytes.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) list: VecDeque<(Group, Arc<Entry>)>,
    pub(super) bytes: usize,
}

impl Entries {
    pub(super) fn push(&mut self, group: Group, entry: Arc<Entry>) {
        self.bytes += entry.bytes();
        self.list.push_back((group, entry));
    }

    fn is_over(&self) -> bool {
        self.list.len() > MAX_ENTRIES || self.bytes > MAX_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES
    }

    /// Drops the oldest entries until the bounds hold.
    pub(super) fn trim(&mut self) {
        while self.is_over()
            && let Some((_, oldest)) = self.list.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }
}

/// Number of entries per group in the current second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: u64,
    used: [u32; Group::ALL.len()],
}

impl Pace {
    pub(super) fn takes(&mut self, second: u64, group: Group) -> bool {
        if self.second != second {
            *self = Self { second, used: [0; Group::ALL.len()] };
        }
        let used = &mut self.used[group as usize];
        *used += 1;
        *used <= RATE
    }
}

/// Entries queued for a page.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) pace: Pace,
    pub(super) entries: Entries,
    pub(super) seen: u64,
    pub(super) missed: u64,
}

/// Entries kept for later pages.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) pace: Pace,
    pub(super) entries: Entries,
}

fn each<S: Serializer>(entries: &[Arc<Entry>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(entries.iter().map(AsRef::<Entry>::as_ref))
}

/// Entries that a page has not seen yet.
#[derive(Debug, Default, Serialize)]
pub(in crate::api::dashboard) struct Batch {
    /// Number of all entries that match its filter.
    pub(in crate::api::dashboard) seen: u64,
    /// Number of those that were dropped because the page did not fetch them.
    pub(in crate::api::dashboard) missed: u64,
    #[serde(serialize_with = "each")]
    pub(in crate::api::dashboard) entries: Vec<Arc<Entry>>,
}
