//! One sender for each replica, over all its sessions.

use std::{collections::BTreeSet, time::Duration};

use super::cluster::{Cluster, config, is_written, limits};
use crate::machine::{Body, Event, Kind, Limits, Mode, NodeId, Phase, SessionId, State};

/// Proves: REP-1
#[test]
fn a_replica_keeps_its_place_over_disconnections_and_addresses_and_each_session_is_another() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    let mut sessions = BTreeSet::from([cluster.replica(1, 2).session.unwrap().id]);
    for round in 0..5 {
        cluster.stop(2);
        assert_eq!(cluster.replica(1, 2).state, State::Disconnected);
        cluster.start(2);
        let status = cluster.replica(1, 2);
        assert_eq!(status.state, State::InSync, "{round}");
        let session = status.session.unwrap();
        assert_eq!(session.kind, Kind::CatchUp);
        assert!(sessions.insert(session.id), "{round}");
    }
    let count = |cluster: &Cluster, name| {
        cluster
            .names(1)
            .iter()
            .filter(|line| **line == name)
            .count()
    };
    assert_eq!(count(&cluster, "endpoint_changed"), 0);
    cluster.endpoint = 2;
    cluster.connect(1, 2);
    cluster.run();
    let status = cluster.replica(1, 2);
    let session = status.session.unwrap();
    assert_eq!(
        (status.state, session.kind, session.endpoint),
        (State::InSync, Kind::Reassign, 2)
    );
    assert!(sessions.insert(session.id));
    assert_eq!(count(&cluster, "endpoint_changed"), 1);
    assert_eq!(count(&cluster, "session_superseded"), 1);
    cluster.connect(1, 2);
    cluster.run();
    assert_eq!(count(&cluster, "endpoint_changed"), 1, "the same address");
    assert_eq!(count(&cluster, "sender_added"), 1);
}

/// Proves: REP-18
#[test]
fn the_log_tells_a_recovery_from_end_to_end() {
    let mut cluster = Cluster::new(2, Mode::Async);
    cluster.promote(1);
    cluster.stop(2);
    assert!(is_written(cluster.write(1, "a")));
    cluster.lines.clear();
    cluster.start(2);
    assert_eq!(
        cluster.names(1),
        [
            "session_created",
            "connected",
            "plan_catch_up",
            "started",
            "completed",
            "resources_released"
        ]
    );
    let cause = &cluster.causes(1, "plan_catch_up")[0];
    assert_eq!(cause, "from 65536/1 to 65536/2, 1 is the first retained");
}

/// Proves: REP-2
#[test]
fn a_message_of_another_session_or_address_or_out_of_its_phase_changes_nothing() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.part(1, 3);
    cluster.stop(3);
    cluster.heal(1, 3);
    let status = cluster.replica(1, 2);
    let current = status.session.as_ref().unwrap();
    let (id, endpoint) = (current.id, current.endpoint);
    let end = cluster.disks[&1].end();
    for (session, endpoint) in [(SessionId(3), endpoint), (id, endpoint + 1), (id, endpoint)] {
        for body in [
            Body::Truncated {
                session,
                endpoint,
                end,
            },
            Body::BaseStored {
                session,
                endpoint,
                parts: 0,
            },
            Body::BaseStored {
                session,
                endpoint,
                parts: 7,
            },
            Body::Sound { session, endpoint },
            Body::Missing {
                session,
                endpoint,
                position: end,
            },
        ] {
            cluster.say(2, 1, body.clone());
            assert_eq!(cluster.replica(1, 2), status, "{body:?}");
        }
    }
    cluster.say(
        2,
        1,
        Body::Failed {
            session: SessionId(3),
            endpoint,
            reason: "no".to_owned(),
        },
    );
    assert!(cluster.is_in_sync(1, 2));
    cluster.say(
        2,
        1,
        Body::Failed {
            session: id,
            endpoint,
            reason: "full".to_owned(),
        },
    );
    assert_eq!(cluster.replica(1, 2).state, State::Degraded);
    assert_eq!(
        cluster.replica(1, 2).session.unwrap().phase,
        Phase::Completed
    );
    cluster.pass(5);
    assert!(cluster.is_in_sync(1, 2), "asked again after a pause");
}

#[test]
fn a_position_that_was_not_sent_ends_the_session_and_counts_for_nothing() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    let before = cluster.replica(1, 2).session.unwrap();
    let (session, endpoint) = (before.id, before.endpoint);
    let mut position = cluster.disks[&1].end();
    position.lsn = position.lsn.next();
    let applied = position.lsn;
    cluster.say(
        2,
        1,
        Body::Flushed {
            session,
            endpoint,
            position,
            applied,
            heartbeat: 0,
        },
    );
    assert_eq!(cluster.replica(1, 2).state, State::Degraded);
    assert!(!cluster.is_in_sync(1, 2));
}

/// Records came in another order, so the replica asked for them again; meanwhile the late ones came.
/// The feeder went back to read, heard of a position before it, took that for one that was never sent,
/// and ended the session: a replica that was doing well was caught up anew, or rebuilt.
///
/// Proves: REP-8
#[test]
fn a_position_that_was_sent_before_the_feeder_went_back_counts() {
    let narrow = Limits {
        window_records: 2,
        ..limits()
    };
    let mut cluster = Cluster::with(narrow, config([1, 2], Mode::Async));
    cluster.promote(1);
    cluster.stop(2);
    let texts = ["one", "two", "three", "four", "five", "six"];
    for text in texts {
        assert!(is_written(cluster.write(1, text)));
    }
    let position = cluster.disks[&2].end();
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    cluster.start(2);
    let session = cluster.replica(1, 2).session.unwrap();
    cluster.hold_reads = true;
    let late = Body::Missing {
        session: session.id,
        endpoint: session.endpoint,
        position,
    };
    cluster.say(2, 1, late);
    assert_eq!(cluster.replica(1, 2).session.unwrap().sent, position);
    cluster.flush(2);
    let after = cluster.replica(1, 2).session.unwrap();
    assert_eq!((after.id, after.cause), (session.id, None));
    assert_eq!(after.flushed.lsn.get(), position.lsn.get() + 2);
    cluster.release_reads();
    assert_eq!(cluster.texts(2), texts);
    assert!(cluster.is_in_sync(1, 2));
}

/// An answer was lost while clients read without pause. Each read sends a heartbeat, and a question was
/// asked again only so long after the last heartbeat: never. The replica answered the heartbeats, so the
/// session was not given up either, and stood still for ever.
#[test]
fn a_question_without_an_answer_is_asked_again_however_much_is_read() {
    let lost: [fn(&Body) -> bool; 2] = [
        |body| matches!(body, Body::Attached(_)),
        |body| matches!(body, Body::BaseStored { .. }),
    ];
    for is_lost in lost {
        let mut cluster = Cluster::new(2, Mode::Async);
        cluster.promote(1);
        cluster.stop(2);
        for text in ["one", "two", "three"] {
            assert!(is_written(cluster.write(1, text)));
        }
        cluster.recycle(1, 3);
        cluster.cut.insert((2, 1));
        cluster.start(2);
        cluster.cut.clear();
        cluster.connect(1, 2);
        while !cluster
            .wire
            .back()
            .is_some_and(|(.., it)| is_lost(&it.body))
        {
            assert!(!cluster.wire.is_empty());
            cluster.deliver_one();
        }
        cluster.wire.pop_back();
        for _ in 0..20 {
            cluster.now.0 += Duration::from_millis(400);
            cluster.confirm(1);
            cluster.step(1, Event::Tick);
            cluster.run();
        }
        assert!(cluster.is_in_sync(1, 2));
        assert!(!cluster.names(1).contains(&"escalated"));
    }
}

/// Proves: REP-19
#[test]
fn a_look_at_a_node_tells_lags_and_changes_nothing() {
    let mut cluster = Cluster::new(3, Mode::Async);
    cluster.promote(1);
    cluster.pass(1);
    cluster.stop(3);
    cluster.disks.get_mut(&2).unwrap().is_slow = true;
    assert!(is_written(cluster.write(1, "four")));
    cluster.pass(2);
    let status = cluster.nodes[&1].status();
    assert_eq!(status, cluster.nodes[&1].status());
    let replica = cluster.replica(1, 2);
    assert_eq!((replica.lag_records, replica.lag_bytes), (1, 36));
    assert_eq!(replica.lag_time.as_secs(), 2);
    let counts = status.counts();
    assert_eq!((counts.total, counts.in_sync, counts.recovering), (2, 1, 0));
    let replicas: Vec<NodeId> = status
        .replicas
        .iter()
        .map(|replica| replica.replica)
        .collect();
    assert_eq!(replicas, [NodeId(2), NodeId(3)], "in order");
}
