//! Each message that changes something names the journal, its generation, an epoch, a session and the
//! version of an address. With any one of them another than it should be it changes nothing.

use wal::{Epoch, Generation, JournalId, Lsn};

use super::cluster::{Cluster, identity, is_written};
use crate::machine::{
    Attach, Attached, Attachment, Body, EpochId, EpochStart, Event, Header, History, Message, Mode,
    NodeId, Position, Sealed, SessionId, Version,
};

/// Node 1 writes, node 2 follows, node 3 is amid a rebuild: something that changes by each message.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "both")));
    cluster.pass(1);
    cluster.stop(3);
    for text in ["a", "b", "c"] {
        assert!(is_written(cluster.write(1, text)));
    }
    cluster.recycle(1, 4);
    cluster.hold_parts = true;
    cluster.start(3);
    cluster
}

/// What a node has on disk, what it would say of itself, and what it told its clients.
fn seen(cluster: &Cluster, id: u128) -> String {
    let disk = &cluster.disks[&id];
    let status = cluster.nodes[&id].status();
    let log: Vec<Position> = disk.log.iter().map(|entry| entry.position).collect();
    let (record, base, committed) = (&disk.record, disk.base, disk.committed);
    let answers = &cluster.answers;
    format!("{record:?} {log:?} {base:?} {committed:?} {status:?} {answers:?}")
}

/// Of a primary to a replica.
#[allow(clippy::too_many_lines, reason = "one of each message, in order")]
fn of_primary(session: SessionId, endpoint: u64, cluster: &Cluster, to: u128) -> Vec<Body> {
    let attachment = cluster.attachment(to);
    let end = cluster.disks[&to].end();
    let next = Position {
        lsn: end.lsn.next(),
        ..end
    };
    let entry = crate::machine::Entry {
        position: next,
        kind: super::cluster::KIND,
        bytes: b"late".as_slice().into(),
    };
    let config = cluster.disks[&to].record.config.clone();
    let newer = crate::machine::Config {
        version: Version {
            epoch: Epoch(1 << 40),
            number: 1,
        },
        ..config.clone()
    };
    vec![
        Body::Attach(Attach {
            session,
            endpoint,
            config,
        }),
        Body::Truncate {
            session,
            endpoint,
            attachment,
            keep: Position::default(),
        },
        Body::Entries {
            session,
            endpoint,
            previous: end,
            entries: vec![entry],
            committed: next.lsn,
        },
        Body::BaseBegin {
            session,
            endpoint,
            attachment,
            base: end,
            history: cluster.disks[&to].history(),
            since: None,
            parts: 1,
        },
        Body::BasePart {
            session,
            endpoint,
            index: 0,
            bytes: vec![1],
        },
        Body::Heartbeat {
            session,
            endpoint,
            ordinal: 9,
            sent: end,
            committed: end.lsn,
        },
        Body::Rebuilt {
            session,
            endpoint,
            attachment,
        },
        Body::Configure {
            session,
            endpoint,
            config: newer,
        },
        Body::HandOver {
            session,
            endpoint,
            end,
            epoch_id: EpochId(5),
        },
    ]
}

/// The same, said to the replica before it began the session for the last time; what cannot be undone only.
fn of_earlier_attachment(mut body: Body) -> Option<Body> {
    match &mut body {
        Body::Truncate { attachment, .. }
        | Body::BaseBegin { attachment, .. }
        | Body::Rebuilt { attachment, .. } => attachment.0 -= 1,
        _ => return None,
    }
    Some(body)
}

/// Of a replica to its primary.
fn of_replica(session: SessionId, endpoint: u64, cluster: &Cluster) -> Vec<Body> {
    let end = cluster.disks[&1].end();
    vec![
        Body::Attached(Attached {
            session,
            endpoint,
            attachment: Attachment(5),
            flushed: end,
            first_retained: Lsn::FIRST,
            history: History::default(),
            committed: end.lsn,
            derived: end.lsn,
            configured: Version::default(),
            is_amnesiac: false,
        }),
        Body::Truncated {
            session,
            endpoint,
            end,
        },
        Body::Flushed {
            session,
            endpoint,
            position: end,
            applied: end.lsn,
            heartbeat: u64::MAX,
        },
        Body::Missing {
            session,
            endpoint,
            position: Position::default(),
        },
        Body::BaseStored {
            session,
            endpoint,
            parts: 1,
        },
        Body::Sound { session, endpoint },
        Body::Configured {
            session,
            endpoint,
            version: Version {
                epoch: Epoch(1 << 40),
                number: 1,
            },
        },
        Body::Failed {
            session,
            endpoint,
            reason: "full".to_owned(),
        },
    ]
}

/// Without a session: the epoch alone tells them.
fn of_candidate(holder: NodeId, header: Header) -> Vec<Body> {
    let start = EpochStart {
        epoch: header.epoch,
        id: header.epoch_id,
        first: Lsn::FIRST,
    };
    vec![
        Body::Seal { candidate: holder },
        Body::Promoted { start, holder },
    ]
}

/// The header with one thing wrong, by name. A message of a session has another epoch when it is higher,
/// too: only `Attach` begins one.
fn wrong_headers(right: Header) -> Vec<(&'static str, Header)> {
    let journal = |journal, generation| wal::Identity {
        journal: JournalId([journal; 16]),
        generation: Generation(generation),
    };
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = right;
        change(&mut header);
        header
    };
    vec![
        ("cluster", with(&|it| it.cluster += 1)),
        ("journal", with(&|it| it.journal = journal(8, 1))),
        ("generation", with(&|it| it.journal = journal(7, 2))),
        ("earlier generation", with(&|it| it.journal = journal(7, 0))),
        ("lower epoch", with(&|it| it.epoch.0 -= 1)),
        ("epoch of another id", with(&|it| it.epoch_id.0 += 1)),
    ]
}

/// Says it and sees that nothing changed; what is answered to it changes nothing either.
fn check(cluster: &mut Cluster, to: u128, header: Header, body: &Body, what: &str) {
    let before: Vec<String> = (1..=3).map(|id| seen(cluster, id)).collect();
    let message = Message {
        header,
        body: body.clone(),
    };
    cluster.step(to, Event::Received(message));
    cluster.run();
    let after: Vec<String> = (1..=3).map(|id| seen(cluster, id)).collect();
    assert_eq!(before, after, "{what}: {body:?} to {to}");
}

/// Proves: REP-3
#[test]
fn a_message_with_anything_stale_in_it_changes_nothing() {
    let mut cluster = cluster();
    assert_eq!(identity(), cluster.sent[0].2.header.journal);
    let header = |cluster: &Cluster, from: u128| {
        let mut sent = cluster.sent.iter().rev();
        sent.find(|(of, ..)| *of == from).unwrap().2.header
    };
    for replica in [2, 3] {
        let current = cluster.replica(1, replica).session.unwrap();
        let (session, endpoint) = (current.id, current.endpoint);
        let stale = [
            ("session", SessionId(session.0 - 1), endpoint),
            ("earlier address", session, endpoint - 1),
            ("later address", session, endpoint + 1),
        ];
        for (from, to) in [(1, replica), (replica, 1)] {
            let right = header(&cluster, from);
            let bodies = |session, endpoint| match from {
                1 => of_primary(session, endpoint, &cluster, to),
                _ => of_replica(session, endpoint, &cluster),
            };
            let mut cases = Vec::new();
            for (what, wrong) in wrong_headers(right) {
                let mut bodies = bodies(session, endpoint);
                if from == 1 {
                    bodies.extend(of_candidate(NodeId(1), wrong));
                }
                cases.extend(bodies.into_iter().map(|body| (what, wrong, body)));
            }
            for (what, session, endpoint) in stale {
                // An attach names what is to be.
                let bodies = bodies(session, endpoint).into_iter();
                let bodies = bodies.filter(|body| !matches!(body, Body::Attach(_)));
                cases.extend(bodies.map(|body| (what, right, body)));
            }
            for body in bodies(session, endpoint) {
                cases.extend(of_earlier_attachment(body).map(|body| ("attachment", right, body)));
            }
            for (what, header, body) in cases {
                check(&mut cluster, to, header, &body, what);
            }
        }
    }
    cluster.release_parts();
    cluster.pass(3);
    assert!(cluster.is_in_sync(1, 2) && cluster.is_in_sync(1, 3));
}

/// A promise that an earlier candidate got, said again to a later one: with it the majority would be there.
///
/// Proves: REP-3
#[test]
fn a_promise_under_another_epoch_is_none() {
    let mut cluster = Cluster::new(3, Mode::Sync(1));
    cluster.promote(1);
    assert!(is_written(cluster.write(1, "a")));
    cluster.pass(1);
    let order = crate::machine::Order::Promote {
        node: NodeId(2),
        config: None,
        force: None,
    };
    cluster.order_without_network(2, order);
    while cluster.disks[&2].record.promised.2 != NodeId(2) {
        assert!(!cluster.wire.is_empty());
        cluster.deliver_one();
    }
    cluster.wire.clear();
    cluster.part(2, 1);
    cluster.part(2, 3);
    let answer = Sealed {
        flushed: cluster.disks[&2].end(),
        flushed_id: cluster.disks[&2].history().starts[0].id,
        committed: Lsn::ZERO,
        config: cluster.disks[&2].record.config.clone(),
        holders: [NodeId(1)].into(),
        is_amnesiac: false,
    };
    let (epoch, epoch_id, _) = cluster.disks[&2].record.promised;
    let right = Header {
        from: NodeId(3),
        epoch,
        epoch_id,
        ..cluster.sent[0].2.header
    };
    let body = Body::Sealed(answer);
    for (what, header) in wrong_headers(right) {
        check(&mut cluster, 2, header, &body, what);
    }
    let message = Message {
        header: right,
        body,
    };
    cluster.step(2, Event::Received(message));
    assert_eq!(
        cluster.disks[&2].record.granted.0, epoch,
        "the right one is"
    );
}
