//! What a handshake leads to, at each boundary and beside it.

use wal::{Epoch, Lsn};

use crate::machine::{
    Attached, Attachment, BaseFound, EpochId, EpochStart, History, Position, STARTS, SessionId,
    Source, Version, Way,
    plan::{Facts, Wishes},
    testing::position,
};

/// Epochs as (number, id, first).
fn history(starts: &[(u64, u128, u64)]) -> History {
    let starts = starts.iter().map(|(epoch, id, first)| EpochStart {
        epoch: Epoch(*epoch),
        id: EpochId(*id),
        first: Lsn::new(*first),
    });
    History {
        starts: starts.collect(),
    }
}

fn attached(history: History, end: Position) -> Attached {
    Attached {
        session: SessionId(1),
        endpoint: 1,
        attachment: Attachment(1),
        flushed: end,
        first_retained: Lsn::FIRST,
        history,
        committed: Lsn::ZERO,
        derived: Lsn::ZERO,
        configured: Version::default(),
        is_amnesiac: false,
    }
}

/// Of the outcome, what there is to compare: its name and the position it rests on.
fn decide(
    own: (&[(u64, u128, u64)], Position, u64),
    replica: &Attached,
    wishes: Wishes<'_>,
) -> (&'static str, Position) {
    let own_history = history(own.0);
    let facts = Facts {
        history: &own_history,
        end: own.1,
        first_retained: Lsn::new(own.2),
    };
    match Way::decide(facts, replica, wishes) {
        Way::ZeroGap { at } => ("zero gap", at),
        Way::CatchUp { from, .. } => ("catch-up", from),
        Way::Truncate { keep, .. } => ("truncate", keep),
        Way::Rebuild { since, .. } => {
            let name = if since.is_some() { "changes" } else { "base" };
            (
                name,
                Position {
                    epoch: Epoch(0),
                    lsn: since.unwrap_or_default(),
                },
            )
        }
        Way::Ordered { end } => ("ordered", end),
        Way::OwnLoss { common, .. } => ("own loss", common),
    }
}

/// One epoch, the primary ends at 100 and retains from 51 on.
///
/// Proves: REP-6
#[test]
fn each_outcome_begins_exactly_at_its_boundary() {
    let starts = [(1, 11, 1)];
    let own = (&starts[..], position(1, 100), 51);
    for (end, derived, expected) in [
        (100, 0, ("zero gap", position(1, 100))),
        (99, 0, ("catch-up", position(1, 99))),
        (101, 0, ("truncate", position(1, 100))),
        (101, 100, ("truncate", position(1, 100))),
        (101, 101, ("changes", position(0, 100))),
        (51, 0, ("catch-up", position(1, 51))),
        (50, 0, ("catch-up", position(1, 50))),
        (49, 0, ("base", position(0, 0))),
        (49, 49, ("changes", position(0, 49))),
        (49, 40, ("changes", position(0, 40))),
    ] {
        let mut replica = attached(history(&starts), position(1, end));
        replica.derived = Lsn::new(derived);
        let decided = decide(own, &replica, Wishes::default());
        assert_eq!(decided, expected, "ends at {end}, derived {derived}");
    }
}

/// It was rebuilt up to where another primary was, and has not told yet that its state reaches there.
///
/// Proves: REP-6
#[test]
fn a_log_is_never_cut_below_the_base_that_it_begins_with() {
    let own = (&[(1, 11, 1), (2, 22, 9)][..], position(2, 20), 1);
    for (first, derived, expected) in [
        (9, 0, ("truncate", position(1, 8))),
        (10, 0, ("base", position(0, 0))),
        (10, 5, ("changes", position(0, 5))),
        (12, 0, ("base", position(0, 0))),
    ] {
        let mut replica = attached(history(&[(1, 11, 1), (3, 33, 9)]), position(3, 12));
        replica.first_retained = Lsn::new(first);
        replica.derived = Lsn::new(derived);
        let decided = decide(own, &replica, Wishes::default());
        assert_eq!(decided, expected, "begins with {first}, derived {derived}");
    }
}

/// The ancestor compared positions only: a replica that was ahead was caught up, one that had the same
/// number was in sync, with other records.
///
/// Proves: REP-5
#[test]
fn the_same_number_under_another_epoch_or_id_is_divergence_also_when_it_is_equal_or_behind() {
    let own_starts = [(1, 11, 1), (2, 22, 9)];
    for (what, own_end, starts, end, expected) in [
        (
            "equal",
            10,
            vec![(1, 11, 1)],
            position(1, 10),
            ("truncate", position(1, 8)),
        ),
        (
            "behind",
            15,
            vec![(1, 11, 1)],
            position(1, 10),
            ("truncate", position(1, 8)),
        ),
        (
            "a prefix",
            15,
            vec![(1, 11, 1)],
            position(1, 8),
            ("catch-up", position(1, 8)),
        ),
        (
            "a shorter prefix",
            15,
            vec![(1, 11, 1)],
            position(1, 7),
            ("catch-up", position(1, 7)),
        ),
        (
            "one number, two ids",
            15,
            vec![(1, 11, 1), (2, 99, 9)],
            position(2, 12),
            ("truncate", position(1, 8)),
        ),
        (
            "one id, another start",
            15,
            vec![(1, 11, 1), (2, 22, 8)],
            position(2, 12),
            ("truncate", position(1, 7)),
        ),
        (
            "an epoch that failed",
            15,
            vec![(1, 11, 1), (3, 33, 6)],
            position(3, 7),
            ("truncate", position(1, 5)),
        ),
        (
            "nothing in common",
            15,
            vec![(7, 77, 1)],
            position(7, 3),
            ("truncate", position(0, 0)),
        ),
        (
            "empty",
            15,
            vec![],
            position(0, 0),
            ("catch-up", position(0, 0)),
        ),
    ] {
        let own = (&own_starts[..], position(2, own_end), 1);
        let replica = attached(history(&starts), end);
        assert_eq!(decide(own, &replica, Wishes::default()), expected, "{what}");
    }
}

/// Epochs of two promotions, and of the first start of the second.
const FIRST: u64 = STARTS;
const SECOND: u64 = 2 * STARTS;
const START: u64 = 2 * STARTS + 1;

/// Beyond what is in common the replica knows of committed records. Whose loss that is tells their epoch.
#[test]
fn committed_records_are_cut_only_if_a_later_promotion_left_them_behind() {
    let first = (FIRST, 1, 1);
    let second = (SECOND, 2, 4);
    for (what, own, own_end, replica, end, expected) in [
        (
            "left behind",
            vec![first, second],
            position(SECOND, 5),
            vec![first],
            position(FIRST, 6),
            "truncate",
        ),
        (
            "all of it",
            vec![(SECOND, 2, 1)],
            position(SECOND, 5),
            vec![first],
            position(FIRST, 6),
            "ordered",
        ),
        (
            "a holder lost a record",
            vec![first, second, (START, 3, 5)],
            position(START, 5),
            vec![first, second],
            position(SECOND, 6),
            "own loss",
        ),
        (
            "a holder lost its promotion",
            vec![first, (START, 3, 4)],
            position(START, 4),
            vec![first, second],
            position(SECOND, 6),
            "own loss",
        ),
        (
            "a holder lost everything",
            vec![(START, 3, 1)],
            position(START, 1),
            vec![first, second],
            position(SECOND, 6),
            "ordered",
        ),
        (
            "two of one number",
            vec![first, second],
            position(SECOND, 5),
            vec![first, (SECOND, 9, 4)],
            position(SECOND, 6),
            "truncate",
        ),
    ] {
        let mut replica = attached(history(&replica), end);
        replica.committed = Lsn::new(6);
        let facts = (&own[..], own_end, 1);
        assert_eq!(
            decide(facts, &replica, Wishes::default()).0,
            expected,
            "{what}"
        );
        let ordered = Wishes {
            is_ordered: true,
            ..Wishes::default()
        };
        assert_eq!(
            decide(facts, &replica, ordered).0,
            "truncate",
            "{what}, ordered"
        );
    }
}

#[test]
fn a_log_is_not_enough_for_an_amnesiac_that_has_records_nor_after_a_catch_up_was_given_up() {
    let starts = [(1, 11, 1)];
    let given_up = Wishes {
        rebuild: Some("it took too long"),
        ..Wishes::default()
    };
    let full = Wishes {
        is_full: true,
        ..given_up
    };
    for (what, end, is_amnesiac, first_retained, wishes, expected) in [
        ("amnesiac", 50, true, 1, Wishes::default(), "base"),
        ("amnesiac, empty", 0, true, 1, Wishes::default(), "catch-up"),
        (
            "amnesiac, empty, recycled",
            0,
            true,
            2,
            Wishes::default(),
            "base",
        ),
        ("given up", 50, false, 1, given_up, "changes"),
        ("given up, changes did not do", 50, false, 1, full, "base"),
        ("empty, recycled", 0, false, 2, Wishes::default(), "base"),
    ] {
        let own = (&starts[..], position(1, 100), first_retained);
        let (starts, end) = if end == 0 {
            (&starts[..0], position(0, 0))
        } else {
            (&starts[..], position(1, end))
        };
        let mut replica = attached(history(starts), end);
        replica.derived = end.lsn;
        replica.is_amnesiac = is_amnesiac;
        assert_eq!(decide(own, &replica, wishes).0, expected, "{what}");
    }
}

#[test]
fn a_base_is_taken_only_if_it_is_committed_and_its_tail_is_there() {
    let own_history = history(&[(1, 11, 1)]);
    let own = Facts {
        history: &own_history,
        end: position(1, 100),
        first_retained: Lsn::new(51),
    };
    let found = |base, since: Option<u64>, made: Option<&str>| BaseFound {
        base,
        parts: 1,
        since: since.map(Lsn::new),
        made: made.map(str::to_owned),
    };
    for (what, found, expected) in [
        (
            "a checkpoint",
            found(position(1, 60), None, None),
            Some("snapshot"),
        ),
        (
            "its tail begins there",
            found(position(1, 50), None, None),
            Some("snapshot"),
        ),
        (
            "its tail is recycled",
            found(position(1, 49), None, None),
            None,
        ),
        (
            "as far as is committed",
            found(position(1, 80), None, None),
            Some("snapshot"),
        ),
        (
            "beyond what is committed",
            found(position(1, 81), None, None),
            None,
        ),
        ("of another epoch", found(position(2, 60), None, None), None),
        (
            "made for it",
            found(position(1, 60), None, Some("untrusted")),
            Some("full"),
        ),
        (
            "what changed",
            found(position(1, 60), Some(30), None),
            Some("delta"),
        ),
        (
            "what changed before",
            found(position(1, 60), Some(29), None),
            Some("delta"),
        ),
        (
            "what changed too late",
            found(position(1, 60), Some(31), None),
            None,
        ),
    ] {
        let source = Source::of(&found, Some(Lsn::new(30)), own, Lsn::new(80));
        let name = source.ok().map(|source| match source {
            Source::Delta { .. } => "delta",
            Source::SnapshotTail { .. } => "snapshot",
            Source::FullBase { .. } => "full",
        });
        assert_eq!(name, expected, "{what}");
    }
}

#[test]
fn a_history_that_cannot_be_one_is_found_out() {
    for (what, starts, end, expected) in [
        ("empty", vec![], position(0, 0), true),
        ("before any announcement", vec![], position(0, 7), true),
        ("one epoch", vec![(1, 1, 1)], position(1, 1), true),
        (
            "an end before its epoch",
            vec![(1, 1, 5)],
            position(1, 4),
            false,
        ),
        (
            "an end of another epoch",
            vec![(1, 1, 1)],
            position(2, 4),
            false,
        ),
        (
            "numbers that fall",
            vec![(2, 1, 1), (1, 1, 3)],
            position(1, 4),
            false,
        ),
        (
            "starts that stand",
            vec![(1, 1, 3), (2, 1, 3)],
            position(2, 4),
            false,
        ),
        ("epoch 0 announced", vec![(0, 1, 1)], position(0, 4), false),
        ("a record 0", vec![(1, 1, 0)], position(1, 4), false),
        (
            "an end that is none",
            vec![(1, 1, 1)],
            position(1, u64::MAX),
            false,
        ),
    ] {
        assert_eq!(history(&starts).is_sound(end), expected, "{what}");
    }
}
