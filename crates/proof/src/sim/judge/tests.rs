//! Each checker is given a history that it must refuse, beside one that it must not.

use std::collections::BTreeSet;

use replica::machine::{
    Attachment, Body, EpochId, Header, History, Line, Message, NodeId, Record, SessionId,
};

use super::{sequence::tests::entry, *};
use crate::sim::{cluster::IDENTITY, site, swarm::Swarm};

fn record(epoch: u64) -> Record {
    let mut dice = crate::crash::dice::Dice::new(1);
    let ids = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
    let ids: Vec<NodeId> = ids.into_iter().collect();
    let mut record = site::founding(&Swarm::of(1), &ids, &mut dice);
    record.promised = (Epoch(epoch), EpochId(epoch.into()), NodeId(1));
    record.granted = record.promised;
    record
}

/// A disk with records up to here, all of epoch 1, and a promise.
fn disk(records: u64, promised: u64) -> Disk {
    let mut disk = Disk::default();
    disk.image.record = Some(record(promised));
    for lsn in 1..=records {
        disk.image.log.append(entry(1, lsn, lsn), Epoch(promised));
    }
    disk
}

fn message(epoch: u64, body: Body) -> Message {
    let header = Header {
        cluster: 1,
        journal: IDENTITY,
        from: NodeId(1),
        epoch: Epoch(epoch),
        epoch_id: EpochId(epoch.into()),
    };
    Message { header, body }
}

fn flushed(lsn: u64) -> Body {
    Body::Flushed {
        session: SessionId(1),
        endpoint: 1,
        position: entry(1, lsn, 0).position,
        applied: Lsn::ZERO,
        heartbeat: 0,
    }
}

fn found(verdict: Verdict) -> Option<Checker> {
    verdict.err().map(|breach| breach.checker)
}

#[test]
fn a_commit_point_that_moves_back_is_found_and_a_new_life_may_know_less() {
    let mut judge = Judge::default();
    let disk = disk(5, 1);
    let commit = |judge: &mut Judge, lsn| found(judge.committed(0, Lsn::new(lsn), &disk));
    assert_eq!(commit(&mut judge, 5), None);
    assert_eq!(commit(&mut judge, 4), Some(Checker::Committed));
    judge.started(0, Lsn::new(2));
    assert_eq!(commit(&mut judge, 4), None);
    assert_eq!(
        commit(&mut judge, 6),
        Some(Checker::Committed),
        "beyond its disk"
    );
}

#[test]
fn two_nodes_that_commit_different_records_are_found() {
    let mut judge = Judge::default();
    let (one, mut two) = (disk(3, 1), disk(2, 1));
    two.image.log.append(entry(1, 3, 77), Epoch(1));
    for host in [0, 1] {
        judge.committed(host, Lsn::new(3), &one).unwrap();
    }
    assert_eq!(found(judge.compare(0, &one.image)), None);
    assert_eq!(
        found(judge.compare(1, &two.image)),
        Some(Checker::Committed)
    );
}

/// An accepted loss excuses what was before it, and what is told until all agree again.
#[test]
fn what_all_agreed_on_after_a_loss_may_not_be_lost_again() {
    let mut judge = Judge::default();
    let (one, mut two) = (disk(3, 1), disk(2, 1));
    two.image.log.append(entry(1, 3, 77), Epoch(1));
    for host in [0, 1] {
        judge.committed(host, Lsn::new(3), &one).unwrap();
    }
    judge.compare(0, &one.image).unwrap();
    judge.forgive();
    assert_eq!(found(judge.compare(1, &two.image)), None);
    assert_eq!(found(judge.settle(0, &one.image)), None);
    assert_eq!(
        found(judge.compare(1, &two.image)),
        Some(Checker::Committed)
    );
}

#[test]
fn an_epoch_that_falls_or_changes_its_id_is_found_and_a_new_disk_has_none() {
    let mut judge = Judge::default();
    let mut kept = |epoch, id| {
        let mut disk = disk(0, epoch);
        if let Some(record) = &mut disk.image.record {
            record.promised.1 = EpochId(id);
        }
        found(judge.kept(0, &disk.image, false))
    };
    assert_eq!(kept(5, 5), None);
    assert_eq!(kept(5, 5), None);
    assert_eq!(kept(5, 6), Some(Checker::Epochs));
    assert_eq!(kept(4, 4), Some(Checker::Epochs));
    judge.replaced(0, true);
    assert_eq!(found(judge.kept(0, &disk(0, 4).image, false)), None);
}

#[test]
fn an_epoch_shown_before_it_is_on_disk_is_found() {
    let disk = disk(3, 5);
    for (epoch, expected) in [(4, None), (5, None), (6, Some(Checker::Promise))] {
        let mut judge = Judge::default();
        let heartbeat = message(
            epoch,
            Body::Inquire {
                candidate: NodeId(1),
            },
        );
        assert_eq!(found(judge.sent(0, &heartbeat, &disk)), expected, "{epoch}");
        let refused = Body::Refused {
            highest: Epoch(epoch),
            id: EpochId(epoch.into()),
            asker: NodeId(1),
        };
        assert_eq!(found(judge.sent(0, &message(5, refused), &disk)), expected);
    }
}

#[test]
fn a_position_reported_beyond_the_disk_or_of_another_epoch_is_found() {
    let mut disk = disk(3, 5);
    let mut judge = Judge::default();
    assert_eq!(found(judge.sent(0, &message(5, flushed(3)), &disk)), None);
    let beyond = judge.sent(0, &message(5, flushed(4)), &disk);
    assert_eq!(found(beyond), Some(Checker::Contiguous));
    disk.image.log.cut(Lsn::new(2));
    disk.image.log.append(entry(2, 3, 3), Epoch(5));
    let other = judge.sent(0, &message(5, flushed(3)), &disk);
    assert_eq!(found(other), Some(Checker::Contiguous));
}

#[test]
fn a_node_that_lost_its_disk_and_counts_as_sound_with_less_is_found() {
    let mut judge = Judge::default();
    judge.sent(0, &message(5, flushed(3)), &disk(3, 5)).unwrap();
    for (records, expected) in [(2, Some(Checker::Amnesia)), (3, None)] {
        let sound = disk(records, 5);
        assert_eq!(found(judge.kept(0, &sound.image, true)), expected);
        assert_eq!(found(judge.kept(0, &sound.image, false)), None);
    }
}

/// Node 0 acknowledges record 3 under epoch 1, which needs one copy.
fn acknowledge(judge: &mut Judge, host: Host, disks: &[Disk]) -> Option<Checker> {
    let ack = Acknowledged {
        host,
        epoch: Epoch(1),
        last: Lsn::new(3),
        copies: 1,
        lease_ends: Some(50),
        at: 40,
    };
    let disks = disks.iter().enumerate().collect();
    found(judge.acknowledged(ack, &disks))
}

#[test]
fn an_acknowledgement_without_its_copies_is_found() {
    for (own, other, expected) in [
        (3, 3, None),
        (3, 2, Some(Checker::Durable)),
        (2, 3, Some(Checker::Durable)),
    ] {
        let disks = [disk(own, 1), disk(other, 1), disk(0, 1)];
        let verdict = acknowledge(&mut Judge::default(), 0, &disks);
        assert_eq!(verdict, expected, "{own} {other}");
    }
}

#[test]
fn a_copy_made_after_a_higher_promise_does_not_count() {
    let before = [disk(3, 1), disk(3, 1)];
    assert_eq!(acknowledge(&mut Judge::default(), 0, &before), None);
    let after = [disk(3, 1), disk(3, 2)];
    let verdict = acknowledge(&mut Judge::default(), 0, &after);
    assert_eq!(verdict, Some(Checker::Durable));
}

#[test]
fn a_copy_on_a_disk_that_is_not_sound_does_not_count() {
    let mut disks = [disk(3, 1), disk(3, 1)];
    disks[1].image.is_damaged = true;
    let verdict = acknowledge(&mut Judge::default(), 0, &disks);
    assert_eq!(verdict, Some(Checker::Durable));
    disks[1].is_wounded = true;
    assert_eq!(
        acknowledge(&mut Judge::default(), 0, &disks),
        None,
        "lost just before"
    );
}

#[test]
fn two_nodes_that_acknowledge_under_one_epoch_are_found() {
    let disks = [disk(3, 1), disk(3, 1), disk(3, 1)];
    let mut judge = Judge::default();
    assert_eq!(acknowledge(&mut judge, 0, &disks), None);
    assert_eq!(
        acknowledge(&mut judge, 1, &disks),
        Some(Checker::Acknowledger)
    );
}

#[test]
fn an_acknowledgement_after_the_own_higher_promise_is_found() {
    let mut disks = [disk(3, 1), disk(3, 1)];
    disks[0].image.record = Some(record(2));
    let verdict = acknowledge(&mut Judge::default(), 0, &disks);
    assert_eq!(verdict, Some(Checker::Acknowledger));
}

#[test]
fn an_acknowledgement_after_the_end_of_a_lease_is_found() {
    let disks = [disk(3, 1), disk(3, 1)];
    let ack = |lease_ends| Acknowledged {
        host: 0,
        epoch: Epoch(1),
        last: Lsn::new(3),
        copies: 1,
        lease_ends: Some(lease_ends),
        at: 40,
    };
    let disks: BTreeMap<Host, &Disk> = disks.iter().enumerate().collect();
    for (lease_ends, expected) in [(40, None), (39, Some(Checker::Lease))] {
        let verdict = Judge::default().acknowledged(ack(lease_ends), &disks);
        assert_eq!(found(verdict), expected);
    }
}

fn told(sessions: &mut Sessions, session: u128, name: &'static str) -> Option<Checker> {
    let line = Line {
        replica: None,
        session: Some(SessionId(session)),
        epoch: Epoch(1),
        name,
        cause: String::new(),
    };
    found(sessions.told(0, &line))
}

#[test]
fn a_session_that_ends_twice_or_never_began_is_found() {
    let mut sessions = Sessions::default();
    for name in ["session_created", "completed", "session_invalidated"] {
        assert_eq!(told(&mut sessions, 1, name), None, "{name}");
    }
    assert_eq!(
        told(&mut sessions, 1, "session_invalidated"),
        Some(Checker::Lines)
    );
    assert_eq!(told(&mut sessions, 2, "completed"), Some(Checker::Lines));
    assert_eq!(told(&mut sessions, 3, "session_created"), None);
    assert_eq!(
        told(&mut sessions, 3, "session_created"),
        Some(Checker::Lines)
    );
}

#[test]
fn a_base_that_is_begun_before_its_source_was_told_is_found() {
    let mut sessions = Sessions::default();
    let begin = Body::BaseBegin {
        session: SessionId(1),
        endpoint: 1,
        attachment: Attachment(1),
        base: Position::default(),
        history: History::default(),
        since: None,
        parts: 0,
    };
    for name in ["session_created", "plan_rebuild"] {
        assert_eq!(told(&mut sessions, 1, name), None, "{name}");
    }
    assert_eq!(found(sessions.sent(0, &begin)), Some(Checker::Lines));
    assert_eq!(told(&mut sessions, 1, "source_full_base"), None);
    assert_eq!(found(sessions.sent(0, &begin)), None);
}

#[test]
fn a_hold_that_is_released_twice_is_found() {
    let mut disk = disk(3, 1);
    let session = SessionId(1);
    assert!(disk.pin(session, Lsn::FIRST));
    assert_eq!(disk.held(), 1);
    assert_eq!(found(disk.unpin(session)), None);
    assert_eq!(found(disk.unpin(session)), Some(Checker::Pins));
    assert_eq!(disk.held(), 0);
}
