//! Every state that a small group can get into, by breadth: the contract holds in all of them.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
    mem::{Discriminant, discriminant},
};

use super::model::{Group, State, Step, change};
use crate::machine::{
    Mode::{self, All, Async, Sync},
    testing,
};

/// States are told apart by 64 bits: two of a million are the same by chance once in 37 million searches.
fn mark(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What a search came across.
#[derive(Debug, Default)]
struct Seen {
    states: usize,
    /// One step of each kind.
    kinds: HashMap<Discriminant<Step>, Step>,
}

/// By which step a state was first reached, and from which one.
type Came = HashMap<u64, Option<(u64, Step)>>;

/// Looks at every state; an error is the shortest way to a broken promise.
fn search(mut group: Group) -> Result<Seen, String> {
    let first = State::first(&group);
    let mut came: Came = HashMap::from([(mark(&first), None)]);
    let mut ahead = VecDeque::from([(mark(&first), first)]);
    let mut seen = Seen::default();
    while let Some((from, state)) = ahead.pop_front() {
        seen.states += 1;
        for (step, result) in group.next(&state) {
            let new = result.map_err(|broken| way(&came, from, &format!("{step:?}: {broken}")))?;
            let reached = mark(&new);
            if let Entry::Vacant(place) = came.entry(reached) {
                place.insert(Some((from, step)));
                ahead.push_back((reached, new));
                seen.kinds.entry(discriminant(&step)).or_insert(step);
            }
        }
    }
    Ok(seen)
}

fn way(came: &Came, mut at: u64, last: &str) -> String {
    let mut way = vec![last.to_owned()];
    while let Some((before, step)) = came[&at] {
        way.push(format!("{step:?}"));
        at = before;
    }
    way.reverse();
    way.join("\n")
}

/// A group whose configuration does not change: members, mode, then epochs, writes and lost disks.
fn fixed(members: u8, mode: Mode, bounds: (u8, u8, u8)) -> Group {
    let mut config = testing::config(members.into(), mode);
    config.members = testing::nodes(0..u128::from(members));
    Group::new(members.into(), vec![config], bounds)
}

fn check(name: &str, group: Group) {
    let kinds_least = if group.configs.len() > 1 { 9 } else { 7 };
    match search(group) {
        Ok(seen) => {
            println!("{name}: {} states", seen.states);
            let kinds: Vec<&Step> = seen.kinds.values().collect();
            assert!(
                seen.states > 1000 && kinds.len() >= kinds_least,
                "{name}: {kinds:?}"
            );
        }
        Err(way) => panic!("{name}:\n{way}"),
    }
}

/// Proves: AUT-1, AUT-8
#[test]
fn no_two_nodes_lose_a_write_whatever_arrives_when() {
    for mode in [Async, Sync(1)] {
        check(&format!("2 {mode:?}"), fixed(2, mode, (3, 2, 0)));
        check(&format!("2 {mode:?}, a disk"), fixed(2, mode, (3, 1, 1)));
    }
}

/// Proves: AUT-1, AUT-8
#[test]
fn no_three_nodes_lose_a_write_whatever_arrives_when() {
    for mode in [Async, Sync(1), All] {
        check(&format!("3 {mode:?}"), fixed(3, mode, (3, 1, 0)));
    }
    check("3 Sync(1), a disk", fixed(3, Sync(1), (2, 1, 1)));
}

/// Proves: AUT-8
#[test]
fn no_change_of_members_or_mode_loses_a_write() {
    let pair: &[u128] = &[0, 1];
    let three: &[u128] = &[0, 1, 2];
    for (old, new, bounds) in [
        ((pair, Async), (pair, Sync(1)), (3, 1, 0)),
        ((pair, Sync(1)), (pair, Async), (3, 1, 0)),
        ((pair, Sync(1)), (three, Sync(1)), (2, 1, 0)),
        ((pair, Sync(1)), (three, Sync(1)), (3, 0, 0)),
        ((three, Sync(1)), (pair, Sync(1)), (2, 1, 0)),
        ((three, Async), (three, Sync(1)), (2, 1, 0)),
        ((three, Sync(1)), (three, Async), (2, 1, 0)),
        ((three, Sync(1)), (three, Sync(2)), (2, 1, 0)),
        ((three, Sync(2)), (three, Sync(1)), (2, 1, 0)),
    ] {
        let members = old.0.len().max(new.0.len());
        let group = Group::new(members, change(old, new), bounds);
        check(&format!("{old:?} to {new:?}"), group);
    }
}
