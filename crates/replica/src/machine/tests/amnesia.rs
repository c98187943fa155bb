//! Nodes whose disks have less than they promised.

use std::collections::BTreeSet;

use super::cluster::{Cluster, is_written};
use crate::machine::{
    Attach, Body, EpochId, EpochStart, Event, Header, Message, Mode, NodeId, Outcome, Position,
    STARTS, SessionId,
};

/// Its log is gone and its record is not.
fn forget(cluster: &mut Cluster, id: u128) {
    cluster.stop(id);
    let disk = cluster.disks.get_mut(&id).unwrap();
    disk.log.clear();
    disk.base = Position::default();
    disk.base_history.starts.clear();
    disk.committed = wal::Lsn::ZERO;
}

/// A replica with an empty disk and its old id would be a copy that nobody has, and a vote for a
/// candidate that lacks what it lost.
///
/// Proves: REP-4
#[test]
fn a_node_without_its_disk_neither_promises_nor_counts_until_it_is_rebuilt() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(3);
    assert!(is_written(cluster.write(1, "on 1 and 2")));
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    cluster.stop(1);
    cluster.start(2);
    cluster.start(3);
    assert!(cluster.disks[&2].record.is_amnesiac, "it says so on disk");
    assert!(matches!(cluster.promote(2), Some(Outcome::Refused(_))));
    let before = cluster.disks[&2].record.clone();
    cluster.sent.clear();
    cluster.seal(3, 2, 9 * STARTS, 5);
    assert_eq!(cluster.disks[&2].record, before, "it promises nothing");
    let (.., answer) = cluster.sent.last().unwrap();
    assert!(matches!(&answer.body, Body::Sealed(sealed) if sealed.is_amnesiac));
    assert!(
        matches!(cluster.promote(3), Some(Outcome::Refused(_))),
        "an amnesiac's word is none"
    );
    cluster.start(1);
    cluster.pass(5);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
    assert!(!cluster.disks[&2].record.is_amnesiac);
    assert_eq!(cluster.texts(2), ["on 1 and 2"]);
}

/// It lost its disk and is fed again when an attach of the session before comes late, and then the word of that
/// session that it is whole: with a part of the log it was sound, and a copy that the primary had counted was
/// nowhere.
///
/// Proves: REP-3, REP-4
#[test]
fn the_word_that_a_disk_is_whole_counts_for_the_life_it_was_said_in_only() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    let (earlier, attachment) = (
        cluster.replica(1, 2).session.unwrap(),
        cluster.attachment(2),
    );
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    // It is not asked for before the third has answered: it may have forgotten a promise.
    cluster.stop(3);
    cluster.start(2);
    assert!(cluster.disks[&2].record.is_amnesiac);
    let (session, endpoint) = (earlier.id, earlier.endpoint);
    let config = cluster.disks[&1].record.config.clone();
    let attach = Attach {
        session,
        endpoint,
        config,
    };
    cluster.say(1, 2, Body::Attach(attach));
    let sent = cluster.disks[&2].end();
    let heartbeat = Body::Heartbeat {
        session,
        endpoint,
        ordinal: 1,
        sent,
        committed: sent.lsn,
    };
    cluster.say(1, 2, heartbeat);
    let rebuilt = Body::Rebuilt {
        session,
        endpoint,
        attachment,
    };
    cluster.say(1, 2, rebuilt);
    assert!(cluster.disks[&2].record.is_amnesiac);
    cluster.start(3);
    cluster.pass(20);
    assert!(!cluster.disks[&2].record.is_amnesiac);
    assert!(cluster.is_in_sync(1, 2));
}

/// The record that was to tell of the loss does not become durable; the next one, kept for a primary,
/// said nothing of it, and the node was sound again after its next start, with less than it had.
#[test]
fn a_loss_that_could_not_be_put_on_record_goes_with_the_next_record() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    forget(&mut cluster, 2);
    let disk = cluster.disks.get_mut(&2).unwrap();
    (disk.is_damaged, disk.is_stuck) = (true, true);
    cluster.start(2);
    assert!(cluster.names(2).contains(&"not_kept"));
    cluster.disks.get_mut(&2).unwrap().is_stuck = false;
    let start = EpochStart {
        epoch: wal::Epoch(9 * STARTS),
        id: EpochId(5),
        first: wal::Lsn::new(4),
    };
    let holder = NodeId(3);
    let header = Header {
        from: holder,
        epoch: start.epoch,
        epoch_id: start.id,
        ..cluster.sent.last().unwrap().2.header
    };
    let body = Body::Promoted { start, holder };
    let event = Event::Received(Message { header, body });
    cluster.step(2, event);
    let record = &cluster.disks[&2].record;
    assert_eq!(record.granted.0, start.epoch);
    assert!(record.is_amnesiac);
}

/// The node does not notice; the primary does, by what it said before.
#[test]
fn positions_that_moved_back_are_amnesia() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.stop(2);
    cluster.disks.get_mut(&2).unwrap().log.pop();
    cluster.start(2);
    cluster.pass(4);
    assert_eq!(
        cluster.causes(1, "amnesia"),
        ["its positions moved back from 65536/2 to 65536/1"]
    );
    assert!(cluster.names(1).contains(&"plan_rebuild"));
    assert!(cluster.is_in_sync(1, 2));
}

#[test]
fn a_node_whose_record_is_older_than_its_log_finds_out_by_itself() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    cluster.stop(2);
    let record = &mut cluster.disks.get_mut(&2).unwrap().record;
    record.promised.0 = wal::Epoch(0);
    record.holders = BTreeSet::new();
    cluster.start(2);
    assert!(cluster.names(2).contains(&"amnesia"));
}

/// What a rebuilt node forgot may be the promise that overtakes its primary: all others have to be
/// heard first.
#[test]
fn a_node_that_forgot_counts_after_all_others_were_heard() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    cluster.stop(3);
    cluster.start(2);
    cluster.pass(3);
    assert_eq!(cluster.texts(2), ["a"]);
    assert!(!cluster.is_in_sync(1, 2), "node 3 was not heard");
    cluster.start(3);
    cluster.pass(3);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
}

/// The session had begun before the disk was lost, and what the others had answered since then was taken for an
/// answer since the loss: one of them had promised to another candidate meanwhile, with the forgotten promise.
///
/// Proves: REP-4
#[test]
fn what_others_answered_before_a_disk_was_lost_is_no_answer_since() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    // The node that writes takes it for there, and asks it in vain.
    let (peer, session) = (NodeId(2), SessionId(cluster.fresh()));
    let endpoint = cluster.endpoint;
    let connected = Event::Connected {
        peer,
        endpoint,
        session,
    };
    cluster.step(1, connected);
    cluster.run();
    cluster.pass(1);
    cluster.part(1, 3);
    cluster.part(1, 2);
    cluster.start(2);
    cluster.cut.remove(&(1, 2));
    cluster.cut.remove(&(2, 1));
    cluster.pass(2);
    let status = cluster.replica(1, 2).session.unwrap();
    assert_eq!(status.id, session, "it goes on in the session of before");
    assert_eq!(cluster.texts(2), ["a"], "it has its copy");
    assert!(!cluster.is_in_sync(1, 2), "node 3 was not heard since");
    cluster.heal(1, 3);
    cluster.pass(3);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
}

/// Its base was there when an attach of an earlier session came late and one of this session again: the word that it
/// is whole was for the beginning before, so it was passed over, and said for ever.
#[test]
fn a_rebuilt_node_that_began_its_session_again_is_not_told_for_ever_what_it_passes_over() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    cluster.stop(3);
    cluster.start(2);
    cluster.pass(3);
    assert_eq!(cluster.texts(2), ["a"], "it has its copy");
    let session = cluster.replica(1, 2).session.unwrap();
    for id in [SessionId(77), session.id] {
        let attach = Attach {
            session: id,
            endpoint: session.endpoint,
            config: cluster.disks[&1].record.config.clone(),
        };
        cluster.say(1, 2, Body::Attach(attach));
    }
    cluster.start(3);
    cluster.pass(10);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
    assert!(!cluster.disks[&2].record.is_amnesiac);
}

/// The wait for the others was counted as part of the rebuild: when it had taken as long as a catch-up may,
/// the base was sent again, and again, for as long as one of the others was away.
#[test]
fn a_rebuilt_node_that_waits_for_the_others_is_not_rebuilt_again() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    forget(&mut cluster, 2);
    cluster.disks.get_mut(&2).unwrap().is_damaged = true;
    cluster.stop(3);
    cluster.recycle(1, 1);
    cluster.lines.clear();
    cluster.start(2);
    cluster.pass(300);
    assert_eq!(
        cluster
            .names(1)
            .iter()
            .filter(|it| **it == "plan_rebuild")
            .count(),
        1
    );
    assert!(!cluster.names(1).contains(&"escalated"));
    cluster.start(3);
    cluster.pass(3);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
}

/// With its record and without its log it would go on, and everybody would cut what it does not have.
#[test]
fn a_holder_without_its_disk_does_not_go_on() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    forget(&mut cluster, 1);
    cluster.start(1);
    cluster.pass(2);
    assert!(!is_written(cluster.write(1, "b")));
    assert!(cluster.disks[&1].record.is_amnesiac);
    assert_eq!(cluster.promote(2), Some(Outcome::Done));
    cluster.pass(4);
    assert_eq!(cluster.texts(3), ["a"]);
    assert!(cluster.is_in_sync(2, 1));
}
