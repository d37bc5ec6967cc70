//! How often the hot path allocates memory. The counts are the same with every compiler, unlike instructions, and a change that
//! makes an event dearer nearly always shows in them. When one falls, write the new one here.

use allocation_counter::measure;

#[path = "../benches/works.rs"]
mod works;
#[path = "../benches/world.rs"]
mod world;

/// Allocations of each work, at most.
const MOST: [(&str, u64); 6] = [("decode", 5), ("fan-out-1", 3), ("fan-out-1000", 3), ("subscribe", 9), ("whisper", 5), ("poll", 22)];

#[test]
fn the_hot_path_allocates_no_more_often() {
    let mut dearer = Vec::new();
    for ((name, work), (limited, most)) in works::WORKS.into_iter().zip(MOST) {
        assert_eq!(name, limited);
        let mut work = work();
        work.warm_up();
        (work.prepare)();
        let count = measure(&mut work.run).count_total;
        if count > most {
            dearer.push(format!("{name}: {count} allocations instead of {most}"));
        }
    }
    assert!(dearer.is_empty(), "{}", dearer.join("\n"));
}
