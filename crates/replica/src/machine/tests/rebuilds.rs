//! Replicas that a log alone does not bring back.

use wal::Lsn;

use super::cluster::{Cluster, config, is_written, limits};
use crate::machine::{
    Attach, Body, Event, Header, Limits, Message, Mode, NodeId, Position, SessionId, SessionStatus,
    State,
};

/// Node 3 is away while records are written and removed up to `recycled`.
fn left_behind(recycled: u64) -> Cluster {
    left_behind_within(limits(), recycled)
}

fn left_behind_within(limits: Limits, recycled: u64) -> Cluster {
    let mut cluster = Cluster::with(limits, config(1..=3, Mode::Sync(1)));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "both")));
    cluster.pass(1);
    cluster.stop(3);
    for index in 0..5 {
        assert!(is_written(cluster.write(1, &format!("{index}"))));
    }
    cluster.pass(1);
    cluster.recycle(1, recycled);
    cluster
}

/// Node 3 has records 1 and 2; node 1 has 7.
#[test]
fn a_replica_is_caught_up_as_long_as_its_next_record_is_there_and_rebuilt_when_it_is_not() {
    for (recycled, plan) in [(2, "plan_catch_up"), (3, "plan_rebuild")] {
        let mut cluster = left_behind(recycled);
        cluster.start(3);
        cluster.pass(4);
        let names = cluster.names(1);
        assert!(names.contains(&plan), "{recycled}: {names:?}");
        assert!(cluster.is_in_sync(1, 3), "{recycled}");
        assert_eq!(cluster.disks[&3].end(), cluster.disks[&1].end());
        assert!(!cluster.disks[&3].record.is_amnesiac);
        assert!(cluster.pins.is_empty() && cluster.bases.is_empty());
        assert!(is_written(cluster.write(1, "after")));
    }
}

#[test]
fn what_changed_is_enough_where_that_can_be_told() {
    let mut cluster = left_behind(4);
    cluster.delta = true;
    cluster.start(3);
    cluster.pass(4);
    let sources = cluster.causes(1, "source_delta");
    assert_eq!(sources, ["what changed after 2 up to 65536/7"]);
    assert!(cluster.is_in_sync(1, 3));
}

/// Proves: REP-9
#[test]
fn writes_go_on_while_a_base_is_sent_and_none_is_missing_behind_it() {
    let mut cluster = left_behind(4);
    cluster.hold_parts = true;
    cluster.start(3);
    let committed = cluster.disks[&3].committed;
    let status = cluster.replica(1, 3).session.unwrap();
    let (session, endpoint) = (status.id, status.endpoint);
    cluster.say(3, 1, Body::Sound { session, endpoint });
    for index in 5..9 {
        assert!(is_written(cluster.write(1, &format!("{index}"))));
        cluster.pass(1);
        assert!(!cluster.is_in_sync(1, 3), "a part is not stored");
        assert_eq!(
            cluster.disks[&3].committed, committed,
            "nobody reads a base amid its parts"
        );
    }
    assert_eq!(
        cluster.disks[&3].end(),
        cluster.disks[&1].end(),
        "the log does not wait for the base"
    );
    cluster.release_parts();
    cluster.pass(2);
    assert!(cluster.is_in_sync(1, 3));
    assert!(
        !cluster.disks[&3].record.is_amnesiac,
        "that it is sound is on its disk"
    );
    assert_eq!(cluster.texts(3), ["5", "6", "7", "8"], "behind the base");
}

/// Whatever ends a session amid its work, nothing stays held, and the next one is another.
///
/// Proves: REP-11
#[test]
fn holds_are_released_once_however_a_rebuild_ends() {
    for what in [
        "stop",
        "endpoint",
        "failure",
        "pin",
        "step down",
        "silence",
        "budget",
        "reattach",
    ] {
        let mut cluster = left_behind(4);
        cluster.hold_parts = true;
        cluster.start(3);
        assert_eq!((cluster.pins.len(), cluster.bases.len()), (1, 1), "{what}");
        let session = *cluster.pins.keys().next().unwrap();
        let status = cluster.replica(1, 3);
        let body = Body::Failed {
            session,
            endpoint: status.session.unwrap().endpoint,
            reason: "full".to_owned(),
        };
        match what {
            "stop" => cluster.stop(3),
            "endpoint" => {
                cluster.endpoint += 1;
                cluster.connect(1, 3);
                cluster.run();
            }
            "failure" => cluster.say(3, 1, body),
            "pin" => {
                let reason = "recycled".to_owned();
                cluster.step(1, Event::PinLost { session, reason });
            }
            "step down" => cluster.demote(1),
            "silence" => {
                cluster.part(1, 3);
                cluster.pass(5);
            }
            "budget" => {
                cluster.release_held_parts();
                cluster.pass(11);
            }
            _ => {
                cluster.order(1, crate::machine::Order::Reattach { replica: NodeId(3) });
            }
        }
        assert!(!cluster.pins.contains_key(&session), "{what}");
        assert!(!cluster.bases.contains_key(&session), "{what}");
    }
}

#[test]
fn a_rebuild_waits_for_its_place() {
    let mut cluster = Cluster::new(4, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(3);
    cluster.stop(4);
    for index in 0..5 {
        assert!(is_written(cluster.write(1, &format!("{index}"))));
    }
    cluster.recycle(1, 4);
    cluster.hold_parts = true;
    cluster.start(3);
    cluster.start(4);
    cluster.pass(2);
    assert_eq!(cluster.bases.len(), 1, "one at a time");
    cluster.release_parts();
    cluster.pass(3);
    assert!(cluster.is_in_sync(1, 3) && cluster.is_in_sync(1, 4));
    assert!(cluster.pins.is_empty() && cluster.bases.is_empty());
}

/// A replica whose log the primary may hold no longer asks for what changed; a full copy for a short
/// outage is what the ancestor ended with.
///
/// Proves: REP-12
#[test]
fn a_hold_beyond_the_limit_becomes_a_question_for_what_changed() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.delta = true;
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "both")));
    cluster.pass(1);
    cluster.stop(3);
    for index in 0..30 {
        assert!(is_written(cluster.write(1, &format!("{index}"))));
    }
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    cluster.start(3);
    assert_eq!(cluster.pins.len(), 1, "its log is held");
    let retained = |wants| Event::Retained {
        first: Lsn::FIRST,
        wants: Lsn::new(wants),
    };
    cluster.step(1, retained(3));
    assert!(
        !cluster.names(1).contains(&"escalated"),
        "nothing of it is wanted away"
    );
    cluster.step(1, retained(20));
    cluster.flush(3);
    cluster.pass(3);
    assert!(cluster.names(1).contains(&"escalated"));
    assert!(cluster.causes(1, "source_delta")[0].starts_with("what changed after 2 "));
    assert!(cluster.is_in_sync(1, 3));
}

/// The session that brought the base was over, and the next one had not begun its own: the first heartbeat
/// let readers in, and they read a half of the state.
///
/// Proves: REP-17
#[test]
fn readers_are_not_let_in_between_two_sessions_that_each_bring_a_base() {
    let mut cluster = left_behind(4);
    cluster.hold_parts = true;
    cluster.start(3);
    assert!(is_written(cluster.write(1, "behind the base")));
    cluster.pass(2);
    let committed = cluster.disks[&3].committed;
    assert!(cluster.disks[&3].end().lsn > committed);
    cluster.connect(1, 3);
    cluster.deliver_one();
    let (.., attached) = cluster.wire.back().unwrap().clone();
    let (session, endpoint) = attached.body.session().unwrap();
    assert!(matches!(attached.body, Body::Attached(_)));
    let body = Body::Heartbeat {
        session,
        endpoint,
        ordinal: 1,
        sent: Position::default(),
        committed: Lsn::ZERO,
    };
    let header = Header {
        from: NodeId(1),
        ..attached.header
    };
    cluster.step(3, Event::Received(Message { header, body }));
    assert_eq!(cluster.disks[&3].committed, committed);
    cluster.run();
    cluster.release_parts();
    cluster.pass(2);
    assert!(cluster.is_in_sync(1, 3));
    assert_eq!(cluster.disks[&3].committed, cluster.disks[&1].committed);
}

/// An `Attach` of an earlier session comes late, and then one of this session again.
fn begin_again(cluster: &mut Cluster, session: &SessionStatus) {
    for id in [SessionId(77), session.id] {
        let attach = Attach {
            session: id,
            endpoint: session.endpoint,
            config: cluster.disks[&1].record.config.clone(),
        };
        cluster.say(1, 3, Body::Attach(attach));
    }
}

/// An `Attach` of an earlier session came late, and then one of this session again: the replica had begun it
/// anew, without its base, and took no part; the primary sent it for ever, and was answered each heartbeat.
#[test]
fn a_replica_that_begins_a_session_again_amid_a_base_is_rebuilt_by_the_next_one() {
    let mut cluster = left_behind(4);
    cluster.hold_parts = true;
    cluster.start(3);
    cluster.pass(1);
    // The first part is stored, the last one is under way.
    cluster.release_held_parts();
    let session = cluster.replica(1, 3).session.unwrap();
    assert!(!cluster.is_in_sync(1, 3));
    begin_again(&mut cluster, &session);
    cluster.release_parts();
    cluster.pass(20);
    assert!(cluster.is_in_sync(1, 3));
    assert_eq!(cluster.disks[&3].committed, cluster.disks[&1].committed);
}

/// An attach of an earlier session came late and ended the one that fed the log; that one was begun again by
/// an attach of its own that came twice, and then by the base it had begun with, on a log with records that
/// were acknowledged since. A cut that came twice did the same.
///
/// Proves: REP-3
#[test]
fn what_was_said_in_a_session_before_it_was_begun_again_destroys_nothing() {
    for is_cut in [false, true] {
        let mut cluster = left_behind(4);
        cluster.start(3);
        cluster.pass(20);
        assert!(cluster.is_in_sync(1, 3));
        cluster.part(1, 2);
        assert!(is_written(cluster.write(1, "on 1 and 3")));
        let session = cluster.replica(1, 3).session.unwrap();
        let attachment = cluster.attachment(3);
        let before = cluster.disks[&3].end();
        begin_again(&mut cluster, &session);
        let base = Position {
            lsn: Lsn::new(4),
            ..before
        };
        let (session, endpoint) = (session.id, session.endpoint);
        let late = if is_cut {
            Body::Truncate {
                session,
                endpoint,
                attachment,
                keep: base,
            }
        } else {
            Body::BaseBegin {
                session,
                endpoint,
                attachment,
                base,
                history: cluster.disks[&1].history(),
                since: None,
                parts: 1,
            }
        };
        cluster.say(1, 3, late);
        assert_eq!(cluster.disks[&3].end(), before, "{is_cut}");
        assert!(!cluster.disks[&3].record.is_amnesiac, "{is_cut}");
        cluster.pass(20);
        assert!(cluster.is_in_sync(1, 3));
        assert!(is_written(cluster.write(1, "after")));
    }
}

/// A rebuild has nothing to escalate to but itself: one that was given up for its duration began anew,
/// so a base that takes longer than a catch-up may was never there.
#[test]
fn a_rebuild_goes_on_for_as_long_as_it_gets_on() {
    let short = Limits {
        catch_up_duration: std::time::Duration::from_secs(5),
        ..limits()
    };
    let mut cluster = left_behind_within(short, 4);
    cluster.hold_parts = true;
    cluster.start(3);
    let before = cluster.replica(1, 3).session.unwrap().id;
    for _ in 0..3 {
        cluster.pass(4);
        assert_eq!(cluster.replica(1, 3).session.unwrap().id, before);
        cluster.release_held_parts();
    }
    assert!(cluster.is_in_sync(1, 3));
}

/// It closes its own state, begins a log, or makes the base its own: that is no part, and takes longer than
/// one. It was given up after the time without progress, and came back to a rebuild from the beginning.
///
/// Proves: REP-12
#[test]
fn a_replica_may_take_as_long_at_the_ends_of_a_base_as_a_catch_up_may_and_no_longer() {
    // So many parts are stored, and the next one, or the beginning, is waited for.
    for (what, stored, patience) in [
        ("it begins", None, 30),
        ("the first part", Some(0), 30),
        ("one in the middle", Some(1), 10),
        ("the last part", Some(2), 30),
    ] {
        let long = Limits {
            catch_up_duration: std::time::Duration::from_secs(30),
            ..limits()
        };
        let mut cluster = left_behind_within(long, 4);
        (cluster.hold_begins, cluster.hold_parts) = (stored.is_none(), true);
        cluster.start(3);
        for _ in 0..stored.unwrap_or(0) {
            cluster.release_held_parts();
        }
        let session = cluster.replica(1, 3).session.unwrap();
        assert_eq!(session.parts, stored.unwrap_or(0), "{what}");
        cluster.pass(patience - 1);
        assert_eq!(
            cluster.replica(1, 3).session.unwrap().id,
            session.id,
            "{what}"
        );
        cluster.pass(3);
        assert_ne!(
            cluster.replica(1, 3).session.unwrap().id,
            session.id,
            "{what}"
        );
        assert!(!cluster.pins.contains_key(&session.id), "{what}");
        cluster.release_parts();
        cluster.pass(20);
        assert!(cluster.is_in_sync(1, 3), "{what}");
    }
}

/// The record said that the log is thrown away, and it was not: the node promised nothing any more, and its
/// next rebuild waited for every other member, as after a loss.
#[test]
fn a_rebuild_that_was_refused_before_it_began_leaves_the_disk_as_sound_as_it_was() {
    for (is_untouched, is_sound) in [(true, true), (false, false)] {
        let mut cluster = left_behind(4);
        cluster.refuses_bases = Some(is_untouched);
        cluster.start(3);
        let causes = cluster.causes(1, "replica_failed");
        assert_eq!(causes, ["no room"]);
        assert_eq!(!cluster.disks[&3].record.is_amnesiac, is_sound);
        assert_eq!(cluster.disks[&3].end().lsn, Lsn::new(2), "its log is there");
        cluster.stop(2);
        cluster.refuses_bases = None;
        cluster.pass(8);
        // Nobody has to be asked what was promised.
        assert_eq!(cluster.is_in_sync(1, 3), is_sound, "{is_untouched}");
        cluster.start(2);
        cluster.pass(8);
        assert!(cluster.is_in_sync(1, 3));
    }
}

/// It was whole with nothing in it, and the node sound with no state at all.
#[test]
fn a_base_without_a_part_is_not_taken() {
    let mut cluster = left_behind(4);
    cluster.parts = 0;
    cluster.start(3);
    cluster.pass(3);
    let causes = cluster.causes(1, "replica_failed");
    assert_eq!(causes[0], "base 65536/7 has no parts");
    assert!(!cluster.is_in_sync(1, 3));
    assert_eq!(cluster.disks[&3].end().lsn, Lsn::new(2), "its log is there");
    assert!(!cluster.disks[&3].record.is_amnesiac);
}

#[test]
fn a_catch_up_without_progress_becomes_a_rebuild() {
    let mut cluster = left_behind(1);
    cluster.disks.get_mut(&3).unwrap().is_slow = true;
    cluster.start(3);
    cluster.pass(9);
    assert_eq!(cluster.replica(1, 3).state, State::CatchingUp);
    cluster.pass(2);
    let causes = cluster.causes(1, "escalated");
    assert_eq!(causes, ["no progress beyond 2"]);
    cluster.flush(3);
    cluster.pass(3);
    assert!(cluster.names(1).contains(&"plan_rebuild"));
    assert!(cluster.is_in_sync(1, 3));
}

/// The replica is all that is left of what the primary cannot read: it stays as it is.
#[test]
fn no_rebuild_begins_from_a_base_behind_which_a_record_does_not_verify() {
    for (rotten, has_begun) in [(8, false), (7, true)] {
        let mut cluster = left_behind(1);
        cluster.stop(2);
        // Nobody else has the record of the first start, and after the second it is not in memory.
        for _ in 0..2 {
            cluster.stop(1);
            cluster.start(1);
            cluster.pass(1);
        }
        cluster.disks.get_mut(&1).unwrap().rotten = Some(Lsn::new(rotten));
        cluster.start(3);
        cluster.pass(6);
        assert!(cluster.names(1).contains(&"escalated"), "{rotten}");
        let was_begun = cluster.disks[&3].base != Position::default();
        assert_eq!(was_begun, has_begun, "{rotten}");
        assert!(has_begun || !cluster.disks[&3].record.is_amnesiac);
        assert!(cluster.bases.is_empty(), "{rotten}");
    }
}

/// A plan is what was bound when it was made: storage that changes behind it changes nothing, or ends
/// the session.
///
/// Proves: REP-7
#[test]
fn a_log_that_is_recycled_amid_a_catch_up_ends_the_session_and_the_next_one_decides_afresh() {
    let mut cluster = left_behind(1);
    // Nothing is in memory after a start.
    cluster.stop(1);
    cluster.start(1);
    cluster.pass(1);
    cluster.hold_reads = true;
    cluster.start(3);
    let before = cluster.replica(1, 3).session.unwrap();
    cluster.recycle(1, 6);
    assert_eq!(cluster.replica(1, 3).session.unwrap().plan, before.plan);
    cluster.release_reads();
    cluster.pass(3);
    let after = cluster.replica(1, 3).session.unwrap();
    assert_ne!(after.id, before.id);
    assert!(cluster.is_in_sync(1, 3));
    assert!(cluster.pins.is_empty() && cluster.bases.is_empty());
}

#[test]
fn answers_of_a_session_that_is_over_change_nothing() {
    let mut cluster = left_behind(4);
    cluster.hold_parts = true;
    cluster.start(3);
    let old = cluster.replica(1, 3).session.unwrap();
    cluster.endpoint += 1;
    cluster.connect(1, 3);
    cluster.run();
    let new = cluster.replica(1, 3);
    for (session, endpoint) in [
        (old.id, old.endpoint),
        (SessionId(5), 1),
        (new.session.as_ref().unwrap().id, old.endpoint),
    ] {
        for parts in 0..3 {
            cluster.say(
                3,
                1,
                Body::BaseStored {
                    session,
                    endpoint,
                    parts,
                },
            );
        }
        cluster.say(3, 1, Body::Sound { session, endpoint });
        let position = cluster.disks[&1].end();
        let applied = position.lsn;
        cluster.say(
            3,
            1,
            Body::Flushed {
                session,
                endpoint,
                position,
                applied,
                heartbeat: 99,
            },
        );
        assert_eq!(cluster.replica(1, 3), new);
    }
}
