//! A change of members or mode that an operator orders: what it makes of the present configuration, and whom
//! a statement that members were stopped is about.
//!
//! A statement stands in for the answer of a member that nothing is heard of, and for nobody else's: who is
//! heard is told of the change, and it is not in force before that one has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use replica::{
    group::Group,
    machine::{Config as Members, Mode, NodeId, Order, Replaced, Role, State, Status},
    transport::SILENCE_MAX,
};
use world::{Clock, RealClock};

use super::{Settings, shown};

const POLL: Duration = Duration::from_millis(50);

/// Who was stopped, each with the operator's words.
pub(super) type Fenced = BTreeMap<NodeId, String>;

pub(super) fn present(group: &Group) -> Result<Members, String> {
    let status = group.status().ok_or("the node has just begun; try again")?;
    Ok(status.record.config)
}

/// The members and mode that are in force, for a node that is to write without waiting for copies.
pub(super) fn alone_config(group: &Group) -> Result<Members, String> {
    let mut config = present(group)?;
    config.mode = Mode::Async;
    Ok(config)
}

pub(super) fn configure(
    group: &Group,
    fenced: Fenced,
    change: impl FnOnce(&mut Members) -> Result<(), String>,
) -> Result<Order, String> {
    let mut config = present(group)?;
    let (members, mode) = (config.members.clone(), config.mode);
    change(&mut config)?;
    config.previous = Some(Replaced { members, mode });
    Ok(Order::Configure { config, fenced })
}

/// Whether a change makes what was before one that is under way: then it comes in that one's place, and does not wait
/// for its end.
pub(super) fn takes_back(
    present: &Members,
    change: impl FnOnce(&mut Members) -> Result<(), String>,
) -> bool {
    let mut wanted = present.clone();
    let is_change = change(&mut wanted).is_ok();
    let before = present.previous.as_ref();
    is_change && before.is_some_and(|it| it.members == wanted.members && it.mode == wanted.mode)
}

/// The order that takes back the change that is under way, as it is given to `holdfast group`.
pub(super) fn order_back(config: &Members, name: impl Fn(NodeId) -> String) -> Option<String> {
    let before = config.previous.as_ref()?;
    if let Some(added) = config.members.difference(&before.members).next() {
        return Some(format!("remove {}", name(*added)));
    }
    if let Some(removed) = before.members.difference(&config.members).next() {
        return Some(format!("add {}", name(*removed)));
    }
    Some(format!("mode {}", shown::mode_text(before.mode)))
}

/// All whose answer a change may wait for.
pub(super) fn others(group: &Group, me: NodeId) -> Result<BTreeSet<NodeId>, String> {
    let config = present(group)?;
    let replaced = config.previous.into_iter().flat_map(|it| it.members);
    let all = config.members.into_iter().chain(replaced);
    Ok(all.filter(|node| *node != me).collect())
}

/// Whom of `meant` a statement is about: those that are silent. One that was stopped a moment ago is waited
/// for; where everybody is heard it is refused, with their names.
pub(super) fn fence(
    group: &Group,
    settings: &Settings,
    statement: Option<&String>,
    meant: &BTreeSet<NodeId>,
) -> Result<Fenced, String> {
    let Some(statement) = statement else {
        return Ok(Fenced::new());
    };
    let clock = RealClock::new();
    let begun = clock.monotonic();
    loop {
        let fenced = silent(meant, statement, |node| group.silence(node));
        if !fenced.is_empty() {
            let names = fenced.keys().map(|node| settings.name_of(*node));
            says_of_each(statement, &names.collect())?;
            return Ok(fenced);
        }
        if clock.monotonic() - begun > SILENCE_MAX {
            return Err(nobody_is_silent(meant, settings));
        }
        clock.sleep(POLL);
    }
}

fn silent(
    meant: &BTreeSet<NodeId>,
    statement: &str,
    silence: impl Fn(NodeId) -> Duration,
) -> Fenced {
    let silent = meant.iter().filter(|node| silence(**node) >= SILENCE_MAX);
    silent.map(|node| (*node, statement.to_owned())).collect()
}

/// Silence is no stop: of several one may be cut off from here only, and would go on with the others without what
/// is acknowledged here. So what was done to one is not taken for the next.
fn says_of_each(statement: &str, silent: &BTreeSet<String>) -> Result<(), String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let words = statement.split(|c: char| !is_of_name(c));
    let words: BTreeSet<&str> = words
        .flat_map(|it| [it, it.trim_end_matches('.')])
        .collect();
    let is_said = silent.iter().all(|name| words.contains(name.as_str()));
    if silent.len() < 2 || is_said {
        return Ok(());
    }
    let names: Vec<&str> = silent.iter().map(String::as_str).collect();
    Err(format!(
        "{} are silent: say of each by name how it was stopped. One that only cannot be reached from here is not stopped: stop it, or bring it back. Nothing was changed",
        names.join(", ")
    ))
}

/// Who was invited counts once all other members have answered, and until then the change that adds it may wait
/// for it: so there is none beside a member that does not answer.
pub(super) fn add(
    group: &Group,
    settings: &Settings,
    newcomer: NodeId,
    config: &mut Members,
) -> Result<(), String> {
    let others = config.members.iter();
    let others = others.filter(|node| ![settings.node, newcomer].contains(node));
    let silent = others.filter(|node| group.silence(**node) >= SILENCE_MAX);
    let silent: BTreeSet<String> = silent.map(|node| settings.name_of(*node)).collect();
    let was_member = |before: &Replaced| before.members.contains(&newcomer);
    if config.previous.as_ref().is_some_and(was_member) {
        // Its removal is under way.
        config.members.insert(newcomer);
        return Ok(());
    }
    // One that is a member already is not added, and nobody is by a node that follows.
    let is_primary = matches!(group.role(), Role::Primary { .. });
    if config.members.insert(newcomer)
        && is_primary
        && let Some(name) = silent.first()
    {
        return Err(format!(
            "`{name}` is silent, and a node that is added counts once every other member has answered. Start it; where it is gone for good, \
             `holdfast group remove {name}` first (of two, `holdfast group mode async` before that), both with --fenced STATEMENT, as docs/OPERATING.md tells"
        ));
    }
    Ok(())
}

/// Whose copies count, or will as soon as other members have answered.
pub(super) fn copies(status: &Status) -> BTreeSet<NodeId> {
    let replicas = status.replicas.iter();
    let there = replicas
        .filter(|it| it.is_in_sync || (it.state == State::CatchingUp && it.lag_records == 0));
    there.map(|it| it.replica).collect()
}

/// Why a change would wait for a copy that nobody is to have: until it is committed by its own mode no other one is
/// taken, and a statement does not stand in for copies.
pub(super) fn lacks_copies(wanted: &Members, there: &BTreeSet<NodeId>) -> Option<String> {
    let before = wanted.previous.as_ref()?;
    let size = wanted.members.len();
    let copies = wanted.mode.copies(size);
    let is_as_it_is = before.members == wanted.members && before.mode == wanted.mode;
    // So many are refused by themselves.
    if is_as_it_is || copies >= size {
        return None;
    }
    // Who is added gets its copy by this very change.
    let coming = wanted.members.difference(&before.members).count();
    let there = wanted.members.intersection(there).count();
    (there + coming < copies).then(|| {
        format!(
            "an acknowledgement would need {copies} copies besides this node's, and {there} are in sync. Nothing was changed: start the other members and wait \
             until `holdfast group status` shows them in sync; where they are gone, `holdfast group mode async` first, with --fenced STATEMENT"
        )
    })
}

fn nobody_is_silent(meant: &BTreeSet<NodeId>, settings: &Settings) -> String {
    let mut names: Vec<String> = meant.iter().map(|node| settings.name_of(*node)).collect();
    names.sort_unstable();
    let names = match names.is_empty() {
        true => "there is no other member".to_owned(),
        false => format!("{} can be heard, and is told", names.join(", ")),
    };
    format!(
        "{names}: a statement is for members that were stopped, and nobody is silent. Nothing was changed; leave the statement out"
    )
}

#[cfg(test)]
mod tests {
    use replica::machine::{Policy, Version};

    use super::*;

    /// All other nodes of the book were taken to be stopped: a change was in force though nobody but this
    /// node had it, and members that ran could make another primary without it.
    #[test]
    fn a_statement_is_about_those_that_are_silent_and_nobody_else() {
        let [second, third] = [NodeId(2), NodeId(3)];
        for (of_second, of_third, wanted) in [
            (9, 0, &[second][..]),
            (5, 4, &[second]),
            (9, 9, &[second, third]),
            (0, 0, &[]),
        ] {
            let meant = [second, third].into();
            let silence =
                |node| Duration::from_secs(if node == second { of_second } else { of_third });
            let fenced = silent(&meant, "powered off", silence);
            assert_eq!(fenced.keys().copied().collect::<Vec<_>>(), wanted);
            assert!(fenced.values().all(|words| words == "powered off"));
            // Of one that is removed, that one only.
            let fenced = silent(&[third].into(), "powered off", silence);
            assert!(!fenced.contains_key(&second));
        }
    }

    /// One of two silent nodes was powered off and the other one was cut off. The words about the first were taken
    /// for both: a change was in force on this node alone, and the two others made a primary without it.
    #[test]
    fn of_several_silent_nodes_each_one_is_named() {
        for (statement, silent, is_taken) in [
            ("powered off", &["first"][..], true),
            ("powered off", &["first", "third"], false),
            ("first is powered off", &["first", "third"], false),
            (
                "first is powered off, third's rack burned",
                &["first", "third"],
                true,
            ),
            ("PDU 3: third/first.", &["first", "third"], true),
            ("a was stopped", &["a", "was"], true),
            ("that was all", &["a", "was"], false),
            ("db-1.east off, db-1 off.", &["db-1", "db-1.east"], true),
            ("db-1.east off", &["db-1", "db-1.east"], false),
        ] {
            let silent = silent.iter().map(|name| (*name).to_owned()).collect();
            let said = says_of_each(statement, &silent);
            assert_eq!(said.is_ok(), is_taken, "{statement}");
            for name in silent.iter().filter(|_| !is_taken) {
                assert!(said.as_ref().unwrap_err().contains(name), "{said:?}");
            }
        }
    }

    fn change(before: (&[u128], Mode), wanted: (&[u128], Mode)) -> Members {
        let nodes = |ids: &[u128]| ids.iter().copied().map(NodeId).collect();
        Members {
            version: Version::default(),
            members: nodes(wanted.0),
            mode: wanted.1,
            policy: Policy::Wait,
            previous: Some(Replaced {
                members: nodes(before.0),
                mode: before.1,
            }),
        }
    }

    #[test]
    fn the_order_that_takes_a_change_back_is_named_and_known() {
        use Mode::{All, Async, Sync};
        for (before, wanted, order) in [
            (
                (&[1, 2, 3][..], Sync(1)),
                (&[1, 2, 3][..], All),
                "mode sync:1",
            ),
            ((&[1, 2], Async), (&[1, 2], Sync(1)), "mode async"),
            ((&[1, 2], Sync(1)), (&[1, 2, 3], Sync(1)), "remove node-3"),
            ((&[1, 2, 3], Sync(1)), (&[1, 2], Sync(1)), "add node-3"),
        ] {
            let present = change(before, wanted);
            let named = order_back(&present, |node| format!("node-{}", node.0));
            assert_eq!(named.as_deref(), Some(order));
            let back = present.previous.clone().unwrap();
            let by = |to: Replaced| {
                takes_back(&present, |config| {
                    (config.members, config.mode) = (to.members, to.mode);
                    Ok(())
                })
            };
            assert!(by(back.clone()), "{order}");
            let mode = Sync(7);
            assert!(!by(Replaced { mode, ..back }), "{order}");
            assert!(!takes_back(&present, |_| Ok(())), "{order}");
            assert!(!takes_back(&present, |_| Err(String::new())), "{order}");
        }
    }

    /// Two of three were dead. One was removed; the change was in force, and waited for the copy of the other one
    /// for ever, and with it every other order.
    #[test]
    fn a_change_that_needs_copies_that_are_not_there_is_refused() {
        use Mode::{All, Async, Sync};
        for (before, wanted, there, is_taken) in [
            (
                (&[1, 2, 3][..], Sync(1)),
                (&[2, 3][..], Sync(1)),
                &[][..],
                false,
            ),
            ((&[1, 2, 3], Sync(1)), (&[2, 3], Sync(1)), &[1], false),
            ((&[1, 2, 3], Sync(1)), (&[2, 3], Sync(1)), &[3], true),
            ((&[1, 2, 3], Sync(1)), (&[1, 2, 3], Async), &[], true),
            ((&[1, 2, 3], Async), (&[2, 3], Async), &[], true),
            ((&[1, 2], Async), (&[1, 2], Sync(1)), &[], false),
            ((&[1, 2], All), (&[1, 2, 3], All), &[2], true),
            ((&[1, 2, 3], Sync(2)), (&[1, 2, 3, 4], Sync(2)), &[], false),
            // As it is, and what is refused by itself.
            ((&[1, 2], Sync(1)), (&[1, 2], Sync(1)), &[], true),
            ((&[1, 2], Sync(1)), (&[1], Sync(1)), &[], true),
        ] {
            let there = there.iter().copied().map(NodeId).collect();
            let refused = lacks_copies(&change(before, wanted), &there);
            assert_eq!(
                refused.is_none(),
                is_taken,
                "{before:?} {wanted:?} {there:?}"
            );
        }
    }
}
