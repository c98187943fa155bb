//! The states of a promotion, and the moves between them.
//!
//! [`Promotion`] moves only along [`MOVES`]; any other move is an error and leaves it where it is. It
//! begins steady in every life of a node: a promotion whose record is not durable is forgotten, and
//! one whose record is has happened. Nothing here knows the time, so nothing moves by it.

use std::{error, fmt};

use wal::Epoch;

use super::{EpochId, Line, NodeId, Position, Record};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is asked for.
    #[default]
    Steady,
    /// An order came.
    Requested,
    /// Answers and promises are collected.
    Validating,
    /// The evidence is enough; nothing is on record.
    Approved,
    /// The authority record is being written.
    Transitioning,
    /// It is on disk.
    Succeeded,
    /// It is not, and will not be by this order.
    Denied,
}

/// From, to, and the event that tells of it.
pub const MOVES: [(State, State, &str); 11] = [
    (State::Steady, State::Requested, "promotion.requested"),
    (State::Requested, State::Steady, "promotion.refused"),
    (
        State::Requested,
        State::Validating,
        "promotion.validation_started",
    ),
    (
        State::Validating,
        State::Approved,
        "promotion.validation_succeeded",
    ),
    (
        State::Validating,
        State::Denied,
        "promotion.validation_failed",
    ),
    (
        State::Approved,
        State::Transitioning,
        "promotion.transition_started",
    ),
    (State::Approved, State::Denied, "promotion.overtaken"),
    (
        State::Transitioning,
        State::Succeeded,
        "promotion.transition_completed",
    ),
    (
        State::Transitioning,
        State::Denied,
        "promotion.transition_failed",
    ),
    (State::Succeeded, State::Steady, "promotion.completed"),
    (State::Denied, State::Steady, "promotion.denied"),
];

/// Tells of a promotion that ended with the life of the node, after its promise and before its record.
pub const ABORTED_ON_CRASH: &str = "promotion.aborted_on_crash";

/// What an event says besides its name.
#[derive(Clone, Debug)]
pub struct About {
    /// The node to be promoted.
    pub candidate: NodeId,
    /// The epoch it asks for; zero before there is one.
    pub epoch: Epoch,
    pub id: EpochId,
    /// The candidate's end.
    pub end: Position,
    pub cause: String,
}

/// A move that does not exist. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchMove {
    pub from: State,
    pub to: State,
}

impl fmt::Display for NoSuchMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a promotion does not go from {:?} to {:?}",
            self.from, self.to
        )
    }
}

impl error::Error for NoSuchMove {}

/// Where the promotion of this node is.
#[derive(Debug, Default)]
pub struct Promotion(State);

impl Promotion {
    pub fn state(&self) -> State {
        self.0
    }

    /// Moves, and says what there is to tell. What is told is not asked whether it was heard.
    pub fn advance(&mut self, to: State, about: &About) -> Result<Line, NoSuchMove> {
        let from = self.0;
        let (.., name) = MOVES
            .into_iter()
            .find(|(left, reached, _)| (*left, *reached) == (from, to))
            .ok_or(NoSuchMove { from, to })?;
        self.0 = to;
        Ok(about.line(name))
    }
}

impl About {
    fn line(&self, name: &'static str) -> Line {
        let (id, end, cause) = (self.id.0, self.end, &self.cause);
        Line {
            replica: Some(self.candidate),
            session: None,
            epoch: self.epoch,
            name,
            cause: format!("{cause} (epoch {} id {id:032x}, end {end})", self.epoch.0),
        }
    }
}

/// What a node that starts tells of its earlier life: the highest epoch was promised to itself and
/// not granted. A promotion that was denied before the node stopped leaves the same.
pub fn aborted(node: NodeId, record: &Record, end: Position) -> Option<Line> {
    let (epoch, id, asker) = record.promised;
    let is_open = asker == node && epoch > record.granted.0;
    is_open.then(|| {
        About {
            candidate: node,
            epoch,
            id,
            end,
            cause: "asked for and not granted in an earlier life of this node".to_owned(),
        }
        .line(ABORTED_ON_CRASH)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wal::Lsn;

    use super::{super::testing, *};

    const STATES: [State; 7] = [
        State::Steady,
        State::Requested,
        State::Validating,
        State::Approved,
        State::Transitioning,
        State::Succeeded,
        State::Denied,
    ];

    fn about() -> About {
        About {
            candidate: NodeId(7),
            epoch: Epoch(65_536),
            id: EpochId(0xAB),
            end: Position {
                epoch: Epoch(3),
                lsn: Lsn::new(17),
            },
            cause: "ordered".to_owned(),
        }
    }

    /// As the contract lists them.
    const LISTED: &str = "Steady→Requested→Validating→Approved→Transitioning→Succeeded→Steady \
        Requested→Steady Validating→Denied→Steady Approved→Denied Transitioning→Denied";

    fn listed() -> BTreeSet<(String, String)> {
        let mut pairs = BTreeSet::new();
        for chain in LISTED.split_whitespace() {
            let states: Vec<&str> = chain.split('→').collect();
            for pair in states.windows(2) {
                pairs.insert((pair[0].to_owned(), pair[1].to_owned()));
            }
        }
        pairs
    }

    /// The ancestor of this table reset itself to Steady whenever a move was not legal: a promotion
    /// amid its transition could be asked for again.
    ///
    /// Proves: AUT-4
    #[test]
    fn of_all_pairs_of_states_exactly_the_listed_ones_are_moves_and_no_other_changes_anything() {
        let listed = listed();
        assert_eq!(listed.len(), MOVES.len());
        for from in STATES {
            for to in STATES {
                let mut promotion = Promotion(from);
                let moved = promotion.advance(to, &about());
                if listed.contains(&(format!("{from:?}"), format!("{to:?}"))) {
                    assert!(moved.is_ok(), "{from:?} to {to:?}");
                    assert_eq!(promotion.state(), to);
                } else {
                    assert_eq!(moved, Err(NoSuchMove { from, to }));
                    assert_eq!(promotion.state(), from, "{from:?} to {to:?} was refused");
                }
            }
        }
    }

    #[test]
    fn each_move_is_told_by_a_name_of_its_own_with_ids_and_positions() {
        let mut names = BTreeSet::from([ABORTED_ON_CRASH]);
        for (from, to, name) in MOVES {
            let line = Promotion(from).advance(to, &about()).unwrap();
            assert_eq!(
                (line.name, line.replica, line.epoch),
                (name, Some(NodeId(7)), Epoch(65_536))
            );
            assert_eq!(
                line.cause,
                format!("ordered (epoch 65536 id {:032x}, end 3/17)", 0xAB)
            );
            assert!(names.insert(name), "{name} tells of two moves");
        }
    }

    #[test]
    fn a_start_tells_of_a_promotion_that_was_not_granted_and_of_no_other() {
        let node = NodeId(1);
        let promised = |epoch, asker| (Epoch(epoch), EpochId(9), NodeId(asker));
        for (asked, granted, expected) in [
            (promised(2, 1), promised(1, 2), true),
            (promised(2, 1), promised(2, 1), false),
            (promised(2, 2), promised(1, 2), false),
        ] {
            let record = Record {
                promised: asked,
                granted,
                ..testing::record()
            };
            let line = aborted(node, &record, Position::default());
            assert_eq!(line.is_some(), expected, "{asked:?} {granted:?}");
        }
    }
}
