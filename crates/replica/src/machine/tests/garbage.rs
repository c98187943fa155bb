//! Anything in a valid frame: a peer that is wrong, old or hostile ends nothing but its session.

use proptest::prelude::*;
use wal::{Epoch, Lsn, RecordKind};

use super::cluster::{Cluster, is_written};
use crate::machine::{
    Attach, Attached, Attachment, Body, Entry, EpochId, EpochStart, Event, Header, History,
    Message, Mode, NodeId, Position, Sealed, SessionId, Version,
};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..8_u64,
        65_534..65_540_u64,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        any::<u64>()
    ]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(epoch, lsn)| Position {
        epoch: Epoch(epoch),
        lsn: Lsn::new(lsn),
    })
}

fn history() -> impl Strategy<Value = History> {
    let start = (number(), 0..3_u128, number()).prop_map(|(epoch, id, first)| EpochStart {
        epoch: Epoch(epoch),
        id: EpochId(id),
        first: Lsn::new(first),
    });
    prop::collection::vec(start, 0..4).prop_map(|starts| History { starts })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (
        position(),
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..48),
    );
    let entry = entry.prop_map(|(position, kind, bytes)| Entry {
        position,
        kind: RecordKind(kind),
        bytes: bytes.into(),
    });
    prop::collection::vec(entry, 0..3)
}

fn sealed() -> impl Strategy<Value = Sealed> {
    (
        position(),
        number(),
        any::<bool>(),
        prop::collection::btree_set(0..40_u128, 0..40),
    )
        .prop_map(|(flushed, committed, is_amnesiac, holders)| Sealed {
            flushed,
            flushed_id: EpochId(1),
            committed: Lsn::new(committed),
            config: super::cluster::config(holders.iter().copied(), Mode::Sync(u32::MAX)),
            holders: holders.into_iter().map(NodeId).collect(),
            is_amnesiac,
        })
}

fn of_primary(session: SessionId, endpoint: u64) -> impl Strategy<Value = Body> {
    let attachment = Attachment(0);
    prop_oneof![
        position().prop_map(move |keep| Body::Truncate {
            session,
            endpoint,
            attachment,
            keep
        }),
        (position(), entries(), number()).prop_map(move |(previous, entries, committed)| {
            let committed = Lsn::new(committed);
            Body::Entries {
                session,
                endpoint,
                previous,
                entries,
                committed,
            }
        }),
        (position(), history(), number(), 0..3_u32).prop_map(
            move |(base, history, since, parts)| {
                let since = Some(Lsn::new(since));
                Body::BaseBegin {
                    session,
                    endpoint,
                    attachment,
                    base,
                    history,
                    since,
                    parts,
                }
            }
        ),
        any::<u32>().prop_map(move |index| Body::BasePart {
            session,
            endpoint,
            index,
            bytes: vec![1]
        }),
        (number(), position(), number()).prop_map(move |(ordinal, sent, committed)| {
            Body::Heartbeat {
                session,
                endpoint,
                ordinal,
                sent,
                committed: Lsn::new(committed),
            }
        }),
        Just(Body::Rebuilt {
            session,
            endpoint,
            attachment
        }),
        position().prop_map(move |end| Body::HandOver {
            session,
            endpoint,
            end,
            epoch_id: EpochId(5)
        }),
        Just(Body::Attach(Attach {
            session,
            endpoint,
            config: super::cluster::config([], Mode::All)
        })),
    ]
}

fn of_replica(session: SessionId, endpoint: u64) -> impl Strategy<Value = Body> {
    let attachment = Attachment(0);
    prop_oneof![
        (position(), history(), number(), any::<bool>()).prop_map(
            move |(flushed, history, lsn, is_amnesiac)| {
                Body::Attached(Attached {
                    session,
                    endpoint,
                    attachment,
                    flushed,
                    first_retained: Lsn::new(lsn),
                    history,
                    committed: Lsn::new(lsn),
                    derived: Lsn::new(lsn),
                    configured: Version::default(),
                    is_amnesiac,
                })
            }
        ),
        position().prop_map(move |end| Body::Truncated {
            session,
            endpoint,
            end
        }),
        (position(), number(), number()).prop_map(move |(position, applied, heartbeat)| {
            Body::Flushed {
                session,
                endpoint,
                position,
                applied: Lsn::new(applied),
                heartbeat,
            }
        }),
        position().prop_map(move |position| Body::Missing {
            session,
            endpoint,
            position
        }),
        any::<u32>().prop_map(move |parts| Body::BaseStored {
            session,
            endpoint,
            parts
        }),
        Just(Body::Sound { session, endpoint }),
        Just(Body::Configured {
            session,
            endpoint,
            version: Version::default()
        }),
        Just(Body::Failed {
            session,
            endpoint,
            reason: String::new()
        }),
    ]
}

fn of_anybody() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Inquire {
            candidate: NodeId(2)
        }),
        Just(Body::Seal {
            candidate: NodeId(2)
        }),
        sealed().prop_map(Body::Inquired),
        sealed().prop_map(Body::Sealed),
        (number(), 0..4_u128).prop_map(|(epoch, asker)| Body::Refused {
            highest: Epoch(epoch),
            id: EpochId(3),
            asker: NodeId(asker),
        }),
        (number(), number()).prop_map(|(epoch, first)| Body::Promoted {
            start: EpochStart {
                epoch: Epoch(epoch),
                id: EpochId(1),
                first: Lsn::new(first)
            },
            holder: NodeId(2),
        }),
    ]
}

fn body(session: SessionId, endpoint: u64) -> impl Strategy<Value = Body> {
    prop_oneof![
        of_primary(session, endpoint),
        of_replica(session, endpoint),
        of_anybody()
    ]
}

proptest! {
    /// Under the right epoch and session, at a primary and at its replica: nothing panics, and an
    /// acknowledged write stays where it is.
    #[test]
    fn whatever_a_peer_says_harms_nothing(
        bodies in prop::collection::vec(body(SessionId(0), 1), 1..12),
        to_primary in any::<bool>(),
        is_epoch_right in any::<bool>(),
        epoch in number(),
    ) {
        let mut cluster = Cluster::new(3, Mode::Sync(1));
        cluster.promote(1);
        prop_assert!(is_written(cluster.write(1, "kept")));
        let session = cluster.replica(1, 2).session.unwrap().id;
        let attachment = cluster.attachment(2);
        let (from, to) = if to_primary { (2, 1) } else { (1, 2) };
        let header = cluster.sent.last().unwrap().2.header;
        let header = Header {
            from: NodeId(from),
            epoch: if is_epoch_right { header.epoch } else { Epoch(epoch) },
            ..header
        };
        for body in bodies {
            let message = Message { header, body: in_session(body, session, attachment) };
            cluster.step(to, Event::Received(message));
            cluster.run();
        }
        cluster.pass(2);
        prop_assert_eq!(cluster.texts(1)[..1].to_vec(), ["kept"]);
    }
}

/// The session and what its replica names it by are known only once the group runs.
fn in_session(mut body: Body, id: SessionId, begun: Attachment) -> Body {
    if let Body::Truncate { attachment, .. }
    | Body::BaseBegin { attachment, .. }
    | Body::Rebuilt { attachment, .. } = &mut body
    {
        *attachment = begun;
    }
    match &mut body {
        Body::Attach(Attach { session, .. })
        | Body::Attached(Attached { session, .. })
        | Body::Truncate { session, .. }
        | Body::Entries { session, .. }
        | Body::BaseBegin { session, .. }
        | Body::BasePart { session, .. }
        | Body::Heartbeat { session, .. }
        | Body::Rebuilt { session, .. }
        | Body::HandOver { session, .. }
        | Body::Truncated { session, .. }
        | Body::Flushed { session, .. }
        | Body::Missing { session, .. }
        | Body::BaseStored { session, .. }
        | Body::Sound { session, .. }
        | Body::Configured { session, .. }
        | Body::Failed { session, .. } => *session = id,
        _ => {}
    }
    body
}
