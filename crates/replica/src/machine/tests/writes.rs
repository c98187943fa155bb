//! Writes, and reads that must see them.

use wal::{Epoch, Lsn};

use super::cluster::{Cluster, config, is_written, limits};
use crate::machine::{
    ANNOUNCEMENT, Body, Effect, Entry, EpochId, Event, Mode, NodeId, Outcome, Refusal, Role,
    STARTS, announce, testing::position,
};

/// How many replicas have to be in sync, and how many of them are.
///
/// Proves: REP-15
#[test]
fn an_acknowledgement_needs_what_the_mode_says_and_the_own_disk() {
    for (mode, flushed, expected) in [
        (Mode::Async, &[1][..], true),
        (Mode::Async, &[2, 3, 4][..], false),
        (Mode::Sync(1), &[1][..], false),
        (Mode::Sync(1), &[1, 2][..], true),
        (Mode::Sync(1), &[2, 3, 4][..], false),
        (Mode::Sync(2), &[1, 2][..], false),
        (Mode::Sync(2), &[1, 2, 4][..], true),
        (Mode::All, &[1, 2, 3][..], false),
        (Mode::All, &[1, 2, 3, 4][..], true),
    ] {
        let mut cluster = Cluster::new(4, mode);
        cluster.promote(1);
        for id in 1..=4 {
            cluster.disks.get_mut(&id).unwrap().is_slow = true;
        }
        let number = cluster.write_later(1, "a");
        for id in flushed {
            cluster.flush(*id);
        }
        let written = is_written(cluster.answer(number).cloned());
        assert_eq!(written, expected, "{mode:?} with {flushed:?}");
    }
}

#[test]
fn a_write_is_refused_while_too_few_replicas_are_in_sync_and_never_acknowledged_without_them() {
    let mut cluster = Cluster::new(3, Mode::Sync(2));
    cluster.promote(1);
    cluster.stop(3);
    let refusal = Refusal::TooFewReplicas {
        in_sync: 1,
        wanted: 2,
    };
    assert_eq!(cluster.write(1, "a"), Some(Outcome::Refused(refusal)));
    assert_eq!(cluster.texts(1), Vec::<String>::new());
    cluster.start(3);
    assert!(is_written(cluster.write(1, "b")));
}

/// A replica that has the record does not count before it is in sync.
#[test]
fn a_replica_that_is_catching_up_does_not_count() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    let number = cluster.write_later(1, "a");
    cluster.stop(2);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    cluster.start(2);
    assert!(!cluster.is_in_sync(1, 2));
    assert_eq!(cluster.answer(number), None);
    cluster.flush(2);
    assert!(is_written(cluster.answer(number).cloned()));
}

/// With the second record lost and the third delivered, the ancestor acknowledged the third.
///
/// Proves: REP-8
#[test]
fn a_hole_is_not_acknowledged_and_is_filled() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "one")));
    cluster.cut.insert((1, 2));
    let lost = cluster.write_later(1, "two");
    cluster.cut.clear();
    cluster.cut.insert((2, 1));
    let behind = cluster.write_later(1, "three");
    assert_eq!(cluster.texts(2), ["one"]);
    cluster.cut.clear();
    cluster.pass(1);
    assert_eq!(cluster.texts(2), ["one", "two", "three"]);
    assert!(is_written(cluster.answer(lost).cloned()));
    assert!(is_written(cluster.answer(behind).cloned()));
}

/// Proves: REP-8
#[test]
fn entries_that_come_twice_or_in_another_order_are_taken_once() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    cluster.cut.insert((1, 2));
    for text in ["one", "two", "three"] {
        assert!(is_written(cluster.write(1, text)));
    }
    cluster.cut.clear();
    let sent = cluster.sent.iter().filter(|(_, to, message)| {
        *to == 2 && matches!(&message.body, Body::Entries { entries, .. } if entries[0].kind == super::cluster::KIND)
    });
    let messages: Vec<_> = sent.map(|(_, _, message)| message.clone()).collect();
    assert_eq!(messages.len(), 3);
    for index in [2, 0, 0, 2, 1, 0, 2, 1] {
        cluster.step(2, Event::Received(messages[index].clone()));
    }
    cluster.run();
    assert_eq!(cluster.texts(2), ["one", "two", "three"]);
    assert!(cluster.is_in_sync(1, 2));
}

/// Proves: REP-16
#[test]
fn a_replica_lets_readers_and_derived_state_only_as_far_as_is_committed_and_durable_there() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    let committed = cluster.disks[&2].committed;
    assert_eq!(committed, Lsn::new(2));
    for id in [2, 3] {
        cluster.disks.get_mut(&id).unwrap().is_slow = true;
    }
    let number = cluster.write_later(1, "b");
    assert_eq!(cluster.disks[&2].committed, committed);
    cluster.flush(3);
    assert!(is_written(cluster.answer(number).cloned()));
    cluster.pass(1);
    assert_eq!(
        cluster.disks[&2].committed, committed,
        "told, and not durable here"
    );
    cluster.flush(2);
    cluster.pass(1);
    assert_eq!(cluster.disks[&2].committed, Lsn::new(3));
}

/// The primary's disk was faster, so it said nothing more: readers waited for the next beat of the heart.
///
/// Proves: REP-17
#[test]
fn a_replica_hears_what_is_committed_as_soon_as_it_has_everything() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    assert!(is_written(cluster.write(1, "b")));
    assert_eq!(cluster.disks[&2].committed, Lsn::new(2));
    cluster.flush(2);
    assert_eq!(cluster.disks[&2].committed, Lsn::new(3));
}

#[test]
fn a_read_that_must_see_every_write_waits_for_replicas_that_still_take_this_node_for_primary() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    let number = cluster.confirm(1);
    let applied = Lsn::new(2);
    assert_eq!(
        cluster.answer(number),
        Some(&Outcome::Confirmed { applied })
    );
    cluster.part(1, 2);
    cluster.part(1, 3);
    let early = cluster.confirm(1);
    assert_eq!(
        cluster.answer(early),
        None,
        "both count still, and neither answers"
    );
    cluster.promote(2);
    assert!(is_written(cluster.write(2, "not seen by 1")));
    let number = cluster.confirm(1);
    assert_eq!(cluster.answer(number), None);
    cluster.pass(7);
    assert!(matches!(cluster.answer(number), Some(Outcome::Refused(_))));
}

#[test]
fn without_copies_to_ask_a_read_is_answered_at_once_and_by_a_replica_not_at_all() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    let number = cluster.confirm(1);
    assert!(matches!(
        cluster.answer(number),
        Some(Outcome::Confirmed { .. })
    ));
    let number = cluster.confirm(2);
    let holder = Some(NodeId(1));
    let refusal = Refusal::NotPrimary { holder };
    assert_eq!(cluster.answer(number), Some(&Outcome::Refused(refusal)));
}

/// Proves: REP-13
#[test]
fn what_is_sent_and_not_durable_there_is_bounded_and_the_rest_follows() {
    let mut limits = limits();
    limits.window_records = 4;
    limits.waiting_writes = 100;
    let mut cluster = Cluster::with(limits, config(1..=2, Mode::Async));
    cluster.promote(1);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    for index in 0..20 {
        assert!(is_written(cluster.write(1, &format!("{index}"))));
        let unsynced = cluster.disks[&2].unsynced.len();
        assert!(unsynced <= 4, "{unsynced} records are on their way");
    }
    cluster.flush(2);
    cluster.pass(2);
    assert_eq!(cluster.texts(2).len(), 20);
}

#[test]
fn a_replica_whose_disk_stands_still_is_let_go_and_writes_go_on_without_it() {
    let mut cluster = Cluster::new(3, Mode::All);
    cluster.promote(1);
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    let number = cluster.write_later(1, "a");
    cluster.pass(11);
    assert!(matches!(cluster.answer(number), Some(Outcome::Unknown(_))));
    assert!(!cluster.is_in_sync(1, 3));
    let refusal = Refusal::TooFewReplicas {
        in_sync: 1,
        wanted: 2,
    };
    assert_eq!(cluster.write(1, "b"), Some(Outcome::Refused(refusal)));
}

#[test]
fn writes_that_wait_are_bounded() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    for index in 0..limits().waiting_writes {
        cluster.write_later(1, &format!("{index}"));
    }
    assert_eq!(
        cluster.write(1, "one more"),
        Some(Outcome::Refused(Refusal::TooManyWaiting))
    );
}

#[test]
fn a_log_that_fails_ends_a_primary_at_once_and_it_goes_on_after_a_start() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    cluster.disks.get_mut(&1).unwrap().is_slow = true;
    let number = cluster.write_later(1, "a");
    let reason = "a sync failed".to_owned();
    cluster.step(1, Event::LogFailed { reason });
    let unknown = Outcome::Unknown(Refusal::LogFailed);
    assert_eq!(cluster.answer(number), Some(&unknown));
    assert!(!is_written(cluster.write(1, "b")));
    cluster.stop(1);
    cluster.disks.get_mut(&1).unwrap().is_slow = false;
    cluster.start(1);
    cluster.pass(2);
    assert!(is_written(cluster.write(1, "c")));
    assert_eq!(cluster.texts(2), ["c"], "what only the replica had is cut");
}

/// The announcement of an epoch is what commits the records before it: a copy of an old record on a
/// majority can still be cut.
#[test]
fn nothing_of_an_earlier_epoch_is_committed_before_a_record_of_this_one() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    cluster.cut.insert((2, 1));
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(1);
    assert_eq!(cluster.texts(2), ["a"]);
    let before = cluster.disks[&2].committed;
    assert!(before < cluster.disks[&2].end().lsn, "node 2 was not told");
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    cluster.force(2);
    assert_eq!(cluster.disks[&2].committed, before);
    cluster.flush(2);
    assert_eq!(cluster.disks[&2].committed, Lsn::new(3));
}

/// Entries behind the end of a replica's log, as (epoch, LSN, announced epoch).
#[test]
fn what_does_not_follow_directly_is_not_taken_and_ends_the_session() {
    let epoch = STARTS;
    for (what, previous, entries, expected) in [
        (
            "the next two",
            2,
            vec![(epoch, 3, None), (epoch, 4, None)],
            4,
        ),
        (
            "from further back",
            1,
            vec![(epoch, 2, None), (epoch, 3, None)],
            3,
        ),
        (
            "a hole between them",
            2,
            vec![(epoch, 3, None), (epoch, 5, None)],
            2,
        ),
        ("another epoch", 2, vec![(epoch + 1, 3, None)], 2),
        (
            "an epoch above the primary's",
            2,
            vec![(epoch + 1, 3, Some(epoch + 1))],
            2,
        ),
        (
            "an announcement of another",
            2,
            vec![(epoch + 1, 3, Some(epoch + 2))],
            2,
        ),
        ("the same epoch again", 2, vec![(epoch, 3, Some(epoch))], 2),
        (
            "what is here, otherwise",
            1,
            vec![(epoch + 1, 2, None), (epoch, 3, None)],
            2,
        ),
        ("what is not here", 3, vec![(epoch, 4, None)], 2),
    ] {
        let mut cluster = Cluster::new(2, Mode::Async);
        cluster.promote(1);
        assert!(is_written(cluster.write(1, "a")));
        let status = cluster.replica(1, 2).session.unwrap();
        let entries = entries.into_iter().map(|(epoch, lsn, announces)| Entry {
            position: position(epoch, lsn),
            kind: if announces.is_some() {
                ANNOUNCEMENT
            } else {
                super::cluster::KIND
            },
            bytes: announces
                .map_or(vec![1], |epoch| {
                    announce(Epoch(epoch), EpochId(1), NodeId(1))
                })
                .into(),
        });
        let body = Body::Entries {
            session: status.id,
            endpoint: status.endpoint,
            previous: position(epoch, previous),
            entries: entries.collect(),
            committed: Lsn::ZERO,
        };
        cluster.say(1, 2, body);
        assert_eq!(cluster.disks[&2].end(), position(epoch, expected), "{what}");
    }
}

#[test]
fn a_step_says_what_it_did_in_order() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    let records = vec![
        (super::cluster::KIND, [1].into()),
        (super::cluster::KIND, [2].into()),
    ];
    let now = cluster.now;
    let node = cluster.nodes.get_mut(&1).unwrap();
    let effects = node.step(
        now,
        Event::Write {
            number: 77,
            records,
            under: None,
        },
    );
    assert!(matches!(&effects[0], Effect::Append(entries) if entries.len() == 2));
    assert!(
        matches!(&effects[1], Effect::Send { .. }),
        "the peer writes while this disk does"
    );
}

/// Behind a record that took long to keep there was room for so many: the order was dropped, and whoever gave
/// it waited for its end for ever.
#[test]
fn an_order_for_which_there_is_no_room_behind_a_record_is_answered() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    cluster.hold_records = true;
    let mut changed = cluster.disks[&1].record.config.clone();
    changed.mode = Mode::All;
    let configure = crate::machine::Order::Configure {
        config: changed,
        fenced: std::collections::BTreeMap::new(),
    };
    cluster.order(1, configure);
    let numbers: Vec<u64> = (0..100)
        .map(|_| cluster.order(1, crate::machine::Order::Reattach { replica: NodeId(2) }))
        .collect();
    let refused = Some(&Outcome::Refused(Refusal::TooManyWaiting));
    let answered = numbers.iter().map(|number| cluster.answer(*number));
    let answered: Vec<_> = answered.collect();
    assert!(answered[..64].iter().all(Option::is_none), "{answered:?}");
    assert!(
        answered[64..].iter().all(|it| *it == refused),
        "{answered:?}"
    );
}

/// Whoever led once and was not told that it led no more: its node holds again, and others wrote meanwhile.
#[test]
fn a_write_that_relies_on_an_epoch_is_taken_under_that_one_only() {
    let mut cluster = Cluster::new(2, Mode::Sync(1));
    cluster.promote(1);
    let Some(Role::Primary { epoch }) = cluster.roles.get(&1).copied() else {
        panic!("{:?}", cluster.roles)
    };
    assert!(is_written(cluster.write_under(1, "a", Some(epoch))));
    let switch = |cluster: &mut Cluster, from: u128, to| {
        let to = NodeId(to);
        cluster.order(from, crate::machine::Order::Switchover { to });
        cluster.pass(2);
    };
    switch(&mut cluster, 1, 2);
    assert!(is_written(cluster.write(2, "b")));
    switch(&mut cluster, 2, 1);
    let Some(Role::Primary { epoch: highest }) = cluster.roles.get(&1).copied() else {
        panic!("{:?}", cluster.roles)
    };
    assert!(highest > epoch);
    let refused = Some(Outcome::Refused(Refusal::Fenced { highest }));
    assert_eq!(cluster.write_under(1, "c", Some(epoch)), refused);
    assert!(is_written(cluster.write_under(1, "d", Some(highest))));
    assert_eq!(cluster.texts(1), ["a", "b", "d"]);
}
