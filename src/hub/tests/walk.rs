//! Random walks: pages connect, disconnect, reload, subscribe twice, log in as others, are refused; nodes stop, die and are cut off.
//!
//! Time is paused, so every walk takes the same course in every run, and one that fails can be shrunk.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::simulation::{ROOMS, World};

/// Walks per test: a few seconds in total.
const CASES: u32 = 128;

/// What the application answers to a subscribe.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// This is the page's user.
    Own,
    /// Another user has logged in meanwhile.
    Other(u32),
    No,
}

impl Answer {
    pub(super) fn user(self, own: u32) -> Option<u32> {
        match self {
            Self::Own => Some(own),
            Self::Other(user) => Some(user),
            Self::No => None,
        }
    }
}

/// Numbers of pages and nodes wrap around, so that each of them means one.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connect {
        node: usize,
        user: u32,
    },
    Subscribe {
        page: usize,
        room: usize,
        answer: Answer,
        seconds: u64,
    },
    Unsubscribe {
        page: usize,
        room: usize,
    },
    Disconnect {
        page: usize,
    },
    Seconds(u64),
    Rest,
    /// What has been gathered is told.
    Tell,
    Restart {
        node: usize,
    },
    Crash {
        node: usize,
    },
    Cut {
        node: usize,
    },
    Repair {
        node: usize,
    },
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![8 => Just(Answer::Own), 2 => (1..4_u32).prop_map(Answer::Other), 1 => Just(Answer::No)]
}

/// Steps of pages.
fn of_pages() -> impl Strategy<Value = Step> {
    let (page, room) = (0..8_usize, 0..ROOMS.len());
    prop_oneof![
        4 => (0..3_usize, 1..4_u32).prop_map(|(node, user)| Step::Connect { node, user }),
        8 => (page.clone(), room.clone(), answers(), 0..5_u64)
            .prop_map(|(page, room, answer, seconds)| Step::Subscribe { page, room, answer, seconds }),
        3 => (page.clone(), room).prop_map(|(page, room)| Step::Unsubscribe { page, room }),
        2 => page.prop_map(|page| Step::Disconnect { page }),
        6 => (1..6_u64).prop_map(Step::Seconds),
        1 => Just(Step::Rest),
        1 => Just(Step::Tell),
    ]
}

/// Steps of nodes.
fn of_nodes() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    prop_oneof![
        1 => node.clone().prop_map(|node| Step::Restart { node }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        2 => node.clone().prop_map(|node| Step::Cut { node }),
        2 => node.prop_map(|node| Step::Repair { node }),
        // Long enough for a lease to end.
        1 => (10..60_u64).prop_map(Step::Seconds),
    ]
}

async fn walk(nodes: usize, grace: Duration, seed: u64, steps: Vec<Step>) {
    walk_in(World::new(nodes, grace, seed), steps).await;
}

async fn walk_in(mut world: World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Connect { node, user } => world.connect(node, user),
            Step::Subscribe { page, room, answer, seconds } => world.subscribe(page, room, answer, seconds),
            Step::Unsubscribe { page, room } => world.unsubscribe(page, room),
            Step::Disconnect { page } => world.disconnect(page),
            Step::Seconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::Rest => world.rest().await,
            Step::Tell => world.tell(),
            Step::Restart { node } => world.restart(node).await,
            Step::Crash { node } => world.crash(node),
            Step::Cut { node } => world.cut(node),
            Step::Repair { node } => world.repair(node),
        }
        world.look();
    }
    world.rest().await;
}

pub(super) fn in_paused_time(walk: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(walk);
}

/// The same walks in every run, unless `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for others.
pub(super) fn walks() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { CASES };
    let rng_seed = if config.rng_seed == RngSeed::Random { RngSeed::Fixed(5) } else { config.rng_seed };
    ProptestConfig { cases, rng_seed, ..config }
}

fn graces() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(5))]
}

/// Two of an application's answers arrive for one page while the store is slow, and then the page disconnects: the others must be
/// told of the leave of every user whose join they were told of.
#[test]
fn a_page_that_goes_while_somebody_else_logs_in_on_it() {
    let steps = [
        Step::Connect { node: 0, user: 1 },
        Step::Subscribe { page: 0, room: 0, answer: Answer::Own, seconds: 0 },
        Step::Connect { node: 0, user: 1 },
        Step::Subscribe { page: 1, room: 0, answer: Answer::Own, seconds: 0 },
        Step::Rest,
        Step::Subscribe { page: 1, room: 0, answer: Answer::Other(2), seconds: 0 },
        Step::Seconds(1),
        Step::Unsubscribe { page: 1, room: 0 },
        Step::Rest,
        Step::Subscribe { page: 1, room: 0, answer: Answer::Other(3), seconds: 0 },
        Step::Rest,
        Step::Subscribe { page: 1, room: 0, answer: Answer::Other(2), seconds: 0 },
        Step::Seconds(1),
        Step::Disconnect { page: 1 },
    ];
    // With some seeds the store is fast, with others it is slow.
    for (seed, grace) in (0..20).zip([0, 5].into_iter().cycle()) {
        in_paused_time(walk(1, Duration::from_secs(grace), seed, steps.to_vec()));
    }
}

/// The first page of a node joins, and changes of another node arrive before the list.
#[test]
fn news_that_overtake_the_first_list() {
    let join = |page| Step::Subscribe { page, room: 0, answer: Answer::Own, seconds: 0 };
    let steps = [Step::Connect { node: 0, user: 1 }, Step::Connect { node: 1, user: 2 }, join(0), join(1)];
    for seed in 0..50 {
        in_paused_time(walk(3, Duration::ZERO, seed, steps.to_vec()));
    }
}

/// A page disconnects while it subscribes again: the grace applies.
#[test]
fn a_reload_during_a_repeated_subscribe() {
    let join = |page| Step::Subscribe { page, room: 0, answer: Answer::Own, seconds: 0 };
    let connect = |user| Step::Connect { node: 0, user };
    let before = [connect(1), connect(2), join(0), join(1), Step::Rest, join(1), Step::Seconds(1), Step::Disconnect { page: 1 }];
    let steps = [before.as_slice(), &[connect(2), join(1), Step::Rest]].concat();
    for seed in 0..20 {
        in_paused_time(walk(1, Duration::from_secs(20), seed, steps.clone()));
        in_paused_time(walk(3, Duration::from_secs(20), seed, steps.clone()));
    }
}

proptest! {
    #![proptest_config(walks())]

    #[test]
    fn on_one_node_every_page_knows_who_is_here(
        seed: u64, grace in graces(), steps in prop::collection::vec(of_pages(), 1..60),
    ) {
        in_paused_time(walk(1, grace, seed, steps));
    }

    #[test]
    fn on_one_node_with_redis_every_page_knows_who_is_here(
        seed: u64, grace in graces(), steps in prop::collection::vec(prop_oneof![5 => of_pages(), 1 => of_nodes()], 1..60),
    ) {
        in_paused_time(async { walk_in(World::new(1, grace, seed).with_redis(), steps).await });
    }

    #[test]
    fn on_three_nodes_every_page_knows_who_is_here(
        seed: u64, grace in graces(), steps in prop::collection::vec(prop_oneof![5 => of_pages(), 1 => of_nodes()], 1..80),
    ) {
        in_paused_time(walk(3, grace, seed, steps));
    }

    #[test]
    fn on_one_node_every_page_knows_who_is_here_when_changes_are_gathered(
        seed: u64, grace in graces(), steps in prop::collection::vec(of_pages(), 1..60),
    ) {
        in_paused_time(async { walk_in(World::new(1, grace, seed).gathering(), steps).await });
    }

    #[test]
    fn on_three_nodes_every_page_knows_who_is_here_when_changes_are_gathered(
        seed: u64, grace in graces(), steps in prop::collection::vec(prop_oneof![5 => of_pages(), 1 => of_nodes()], 1..80),
    ) {
        in_paused_time(async { walk_in(World::new(3, grace, seed).gathering(), steps).await });
    }
}
