//! Pages that show all nodes: while one is open, the dashboards of a cluster exchange what happens.
//!
//! Input: pages of this node, and notes of other dashboards over the nodes' bus. Output: to other nodes, every few seconds, that a
//! page is open and its filter, and once that it was closed; to a page of another node, what happens here, sampled as for a local
//! page. Without a page no note is sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Dashboard;
use super::feed::{Filter, Place, Watch};
use super::figures::Sample;
use super::stream::PACE;
use crate::cluster::control::DashboardNote;

/// Interval between two notes that a page is open.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long such a note is valid.
const LASTS: Duration = Duration::from_secs(7);

/// Maximum number of notes queued for a page; further ones are dropped.
const MAX_WAITING: usize = 64;

/// Maximum bytes of trace entries in one note: every node receives it, although most do not need it.
const MAX_NOTE_BYTES: usize = 64 * 1024;

/// Maximum bytes of a page's filter: every node stores it.
const MAX_CHOSEN_BYTES: usize = 2048;

/// The filter of a page, see [`Filter::new`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) groups: String,
    pub(super) channel: String,
    pub(super) who: String,
}

impl Chosen {
    /// Whether it is short enough to be sent to every node.
    pub(super) const fn fits(&self) -> bool {
        self.groups.len() + self.channel.len() + self.who.len() <= MAX_CHOSEN_BYTES
    }

    pub(super) fn filter(&self) -> Filter {
        Filter::new(&self.groups, &self.channel, &self.who)
    }
}

/// A message between dashboards.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Note {
    /// A page is open.
    Open { page: u64, chosen: Chosen },
    /// A page was closed.
    Close { page: u64 },
    /// What happened on a node, for a page.
    Told { page: u64, news: Box<RawValue> },
}

/// What happened on a node.
#[derive(Debug, Serialize)]
struct News<'a> {
    /// The node's id.
    node: &'a str,
    name: &'a str,
    samples: Vec<Sample>,
    seen: u64,
    missed: u64,
    entries: Vec<Box<RawValue>>,
}

/// A page of another node.
struct Remote {
    chosen: Chosen,
    watch: Watch,
    until: Instant,
    /// The time of the last sample that was sent.
    sent: u64,
}

/// Open pages of this node that show all nodes.
#[derive(Default)]
pub(super) struct Pages(Mutex<HashMap<u64, mpsc::Sender<Box<RawValue>>>>);

/// The other nodes, for one page; on drop they are told that it was closed.
pub(super) struct Others {
    dashboard: Dashboard,
    page: u64,
    chosen: Chosen,
    asked: Option<Instant>,
    news: mpsc::Receiver<Box<RawValue>>,
}

impl Others {
    /// `None` for a single node.
    pub(super) fn open(dashboard: &Dashboard, chosen: Chosen) -> Option<Self> {
        if !dashboard.settings.load().api.hub.is_clustered() {
            return None;
        }
        let page = rand::random();
        let (sender, news) = mpsc::channel(MAX_WAITING);
        dashboard.pages.0.lock().insert(page, sender);
        Some(Self { dashboard: dashboard.clone(), page, chosen, asked: None, news })
    }

    /// Messages received since the last call, as JSON.
    pub(super) fn take(&mut self) -> Vec<Box<RawValue>> {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            tell(&self.dashboard, None, &Note::Open { page: self.page, chosen: self.chosen.clone() });
        }
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.dashboard.pages.0.lock().remove(&self.page);
        if self.asked.is_some() {
            tell(&self.dashboard, None, &Note::Close { page: self.page });
        }
    }
}

fn tell(dashboard: &Dashboard, to: Option<u64>, note: &Note) {
    let note = serde_json::value::to_raw_value(note).expect("texts and numbers serialize");
    dashboard.settings.load().api.hub.tell_dashboards(to, note);
}

impl Dashboard {
    /// Answers the dashboards of other nodes until `stop`. Returns at once on a single node.
    pub(crate) async fn follow_nodes(self, stop: CancellationToken) {
        let Some(mut notes) = self.settings.load().api.hub.hear_dashboards() else { return };
        let mut remotes = HashMap::new();
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(note) = notes.recv() => self.hear(&mut remotes, note),
                _ = ticks.tick(), if !remotes.is_empty() => self.tell_remotes(&mut remotes),
            }
        }
    }

    fn hear(&self, remotes: &mut HashMap<(u64, u64), Remote>, DashboardNote { from, note }: DashboardNote) {
        match serde_json::from_str(note.get()) {
            Ok(Note::Told { page, news }) => {
                if let Some(sender) = self.pages.0.lock().get(&page) {
                    // A slow page misses this message.
                    let _ = sender.try_send(news);
                }
            }
            Ok(Note::Close { page }) => drop(remotes.remove(&(from, page))),
            Ok(Note::Open { chosen, .. }) if !chosen.fits() => {
                tracing::debug!("skipped a page of another dashboard: its filter is too long")
            }
            Ok(Note::Open { page, chosen }) => {
                let until = Instant::now() + LASTS;
                match remotes.get_mut(&(from, page)).filter(|remote| remote.chosen == chosen) {
                    Some(remote) => remote.until = until,
                    None => {
                        remotes.remove(&(from, page));
                        if let Some(watch) = self.feed.watch(chosen.filter(), Place::AnotherNode) {
                            remotes.insert((from, page), Remote { chosen, watch, until, sent: 0 });
                        }
                    }
                }
            }
            Err(cause) => tracing::debug!(%cause, "skipped a note of another dashboard; do the nodes run the same version?"),
        }
    }

    fn tell_remotes(&self, remotes: &mut HashMap<(u64, u64), Remote>) {
        let now = Instant::now();
        remotes.retain(|_, remote| remote.until > now);
        for ((from, page), remote) in remotes {
            let samples = self.figures.after(remote.sent);
            if let Some(last) = samples.last() {
                remote.sent = last.at;
                remote.watch.refresh();
            }
            let mut batch = remote.watch.take();
            if samples.is_empty() && batch.seen == 0 && batch.entries.is_empty() {
                continue;
            }
            let mut bytes = 0;
            let mut entries = Vec::with_capacity(batch.entries.len());
            for entry in &batch.entries {
                let entry = serde_json::value::to_raw_value(&**entry).expect("texts and numbers serialize");
                bytes += entry.get().len();
                if bytes > MAX_NOTE_BYTES {
                    break;
                }
                entries.push(entry);
            }
            batch.missed += (batch.entries.len() - entries.len()) as u64;
            let (node, name) = (&*self.node.0, &*self.node.1);
            let news = News { node, name, samples, seen: batch.seen, missed: batch.missed, entries };
            let news = serde_json::value::to_raw_value(&news).expect("texts and numbers serialize");
            tell(self, Some(*from), &Note::Told { page: *page, news });
        }
    }
}
