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
    machine::{Config as Members, Mode, NodeId, Order, Replaced},
    transport::SILENCE_MAX,
};
use world::{Clock, RealClock};

use super::Settings;

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
}
