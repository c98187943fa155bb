//! Two and three nodes on loopback, and what strangers try on them.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver},
    },
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};
use wal::{Epoch, Generation, Identity, JournalId, Lsn, RecordKind};
use world::{Clock, Net, RealClock, Timestamp, net::RealNet, net::Stream};

use super::{
    Authority, Credentials, FRAME_LEN_MAX, Heard, INCOMING_MAX, NOTE_LEN_MAX, Start, Transport,
    credentials,
    frame::{self, Broken, Frames},
    greeting::{Answer, Hello, Reason},
};
use crate::machine::{Body, Entry, EpochId, Header, Message, NodeId, Position, SessionId};

const CLUSTER: u128 = 0xC1;
const A: NodeId = NodeId(0xA);
const B: NodeId = NodeId(0xB);
const C: NodeId = NodeId(0xC);
/// Longer than anything here takes on a machine that runs at all.
const LONG: Duration = Duration::from_secs(60);

fn authority() -> &'static Authority {
    static MADE: OnceLock<Authority> = OnceLock::new();
    MADE.get_or_init(|| Authority::make(CLUSTER).unwrap())
}

struct Node {
    transport: Transport,
    heard: Receiver<Heard>,
}

impl Node {
    fn start(me: NodeId) -> Self {
        Self::with(me, authority().issue(me).unwrap())
    }

    fn with(me: NodeId, credentials: Credentials) -> Self {
        Self::at(me, credentials, Arc::new(RealClock::new()))
    }

    fn at(me: NodeId, credentials: Credentials, clock: Arc<dyn Clock>) -> Self {
        let (tell, heard) = mpsc::channel();
        let transport = Transport::start(Start {
            me,
            cluster: CLUSTER,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            credentials,
            net: Arc::new(RealNet),
            clock,
            inbox: Arc::new(move |heard| drop(tell.send(heard))),
        });
        Self {
            transport: transport.unwrap(),
            heard,
        }
    }

    fn knows(&self, peer: NodeId, other: &Self) {
        self.transport
            .set_peer(peer, other.transport.address(), 1)
            .unwrap();
    }

    fn wait_up(&self, wanted: NodeId) -> u64 {
        loop {
            if let Heard::Up { peer, endpoint } = self.heard.recv_timeout(LONG).unwrap()
                && peer == wanted
            {
                return endpoint;
            }
        }
    }

    fn wait_message(&self) -> Message {
        loop {
            if let Heard::Message(message) = self.heard.recv_timeout(LONG).unwrap() {
                return *message;
            }
        }
    }

    fn wait_count(&self, what: impl Fn(super::Traffic) -> u64) {
        let clock = RealClock::new();
        while what(self.transport.traffic()) == 0 {
            assert!(clock.monotonic() < LONG, "{:?}", self.transport.traffic());
            std::thread::yield_now();
        }
    }
}

fn message(from: NodeId, number: u64, len: usize) -> Message {
    let position = Position {
        epoch: Epoch(3),
        lsn: Lsn::new(number),
    };
    Message {
        header: Header {
            cluster: CLUSTER,
            journal: Identity {
                journal: JournalId([7; 16]),
                generation: Generation(1),
            },
            from,
            epoch: Epoch(3),
            epoch_id: EpochId(33),
        },
        body: Body::Entries {
            session: SessionId(9),
            endpoint: 1,
            previous: position,
            entries: vec![Entry {
                position,
                kind: RecordKind(16),
                bytes: vec![0xA5; len].into(),
            }],
            committed: Lsn::new(number),
        },
    }
}

/// Proves: REP-14
#[test]
fn messages_arrive_whole_and_in_order_both_ways() {
    let (a, b) = (Node::start(A), Node::start(B));
    a.knows(B, &b);
    b.knows(A, &a);
    assert_eq!((a.wait_up(B), b.wait_up(A)), (1, 1));
    let lengths = [0, 1, 70_000, 16 << 20, 3];
    for (number, len) in (1..).zip(lengths) {
        a.transport.send(B, &message(A, number, len));
        b.transport.send(A, &message(B, number, len / 2));
    }
    for (number, len) in (1..).zip(lengths) {
        assert_eq!(b.wait_message(), message(A, number, len));
        assert_eq!(a.wait_message(), message(B, number, len / 2));
    }
    assert!(a.transport.traffic().sent_bytes > 16 << 20);
    assert_eq!(b.transport.traffic().garbage, 0);
}

#[test]
fn a_node_that_comes_back_elsewhere_is_found_there() {
    let a = Node::start(A);
    let b = Node::start(B);
    a.knows(B, &b);
    b.knows(A, &a);
    a.wait_up(B);
    drop(b);
    loop {
        if let Heard::Down { peer } = a.heard.recv_timeout(LONG).unwrap() {
            assert_eq!(peer, B);
            break;
        }
        // What is sent to nobody is lost, and is how the end is noticed.
        a.transport.send(B, &message(A, 1, 10));
    }
    let b = Node::start(B);
    b.knows(A, &a);
    let address = b.transport.address();
    a.transport.set_peer(B, address, 2).unwrap();
    assert_eq!(a.wait_up(B), 2);
    a.transport.send(B, &message(A, 2, 10));
    assert_eq!(b.wait_message(), message(A, 2, 10));
}

#[test]
fn a_node_is_silent_since_it_was_heard_last_or_since_the_start() {
    let (a, b) = (Node::start(A), Node::start(B));
    a.knows(B, &b);
    b.knows(A, &a);
    a.wait_up(B);
    a.transport.send(B, &message(A, 1, 10));
    b.wait_message();
    assert!(b.transport.silence(A) < b.transport.silence(C));
}

#[test]
fn a_removed_node_is_heard_no_more() {
    let (a, b) = (Node::start(A), Node::start(B));
    // First, or a call that comes before it is counted as refused.
    b.knows(A, &a);
    a.knows(B, &b);
    a.wait_up(B);
    b.transport.remove_peer(A);
    a.transport.reconnect(B);
    b.wait_count(|traffic| traffic.refused);
    a.transport.send(B, &message(A, 1, 10));
    while let Ok(heard) = b.heard.try_recv() {
        assert!(!matches!(heard, Heard::Message(_)), "{heard:?}");
    }
}

/// Two members that both lived through the loss of the node that knew both did not hear each other: one was
/// refused, because nobody had said where it is, and never called for the same reason.
#[test]
fn a_node_that_counts_is_heard_before_it_is_known_where_it_is() {
    let (a, b) = (Node::start(A), Node::start(B));
    a.knows(B, &b);
    b.wait_count(|traffic| traffic.refused);
    b.transport.admit([A].into());
    a.wait_up(B);
    // Beyond the first frame, and the notes among them.
    for number in 1..4 {
        a.transport.send(B, &message(A, number, 10));
        assert_eq!(b.wait_message(), message(A, number, 10));
    }
    // One that is removed is not heard, whatever else is on record.
    b.transport.shut_out(A);
    a.transport.reconnect(B);
    let clock = RealClock::new();
    let cause = || a.transport.links()[0].cause.clone();
    while !cause().contains("was removed from the cluster") {
        assert!(clock.monotonic() < LONG, "{:?}", a.transport.links());
        std::thread::yield_now();
    }
    // Nor is one that counts no more.
    let c = Node::start(C);
    b.transport.admit([C].into());
    c.knows(B, &b);
    c.wait_up(B);
    b.transport.admit([A].into());
    c.transport.reconnect(B);
    let cause = || c.transport.links()[0].cause.clone();
    while !cause().contains("does not know this node") {
        assert!(clock.monotonic() < LONG, "{:?}", c.transport.links());
        std::thread::yield_now();
    }
}

/// Its certificate is as good as ever, so it has to be known by its id; and it learns why.
#[test]
fn a_node_that_was_shut_out_is_neither_heard_nor_called_and_told_why() {
    let (a, b) = (Node::start(A), Node::start(B));
    // First, or a call that comes before it is on the list of those refused too.
    b.knows(A, &a);
    a.knows(B, &b);
    a.wait_up(B);
    b.transport.shut_out(A);
    // Whoever is told of it again changes nothing.
    b.knows(A, &a);
    a.transport.reconnect(B);
    b.wait_count(|traffic| traffic.refused);
    let clock = RealClock::new();
    let cause = || a.transport.links()[0].cause.clone();
    while !cause().contains("was removed from the cluster") {
        assert!(clock.monotonic() < LONG, "{:?}", a.transport.links());
        std::thread::yield_now();
    }
    assert_eq!(b.transport.links(), []);
    let refused = b.transport.refusals();
    assert_eq!(refused[0].node, Some(A));
    assert_eq!(refused[0].cause, "it was removed from the cluster");
    while let Ok(heard) = b.heard.try_recv() {
        assert!(!matches!(heard, Heard::Message(_)), "{heard:?}");
    }
}

#[test]
fn notes_arrive_beside_messages() {
    let (a, b) = (Node::start(A), Node::start(B));
    assert!(!a.transport.note(B, b"nobody is there"));
    // First, or a call that comes before it is on the list of those refused too.
    b.knows(A, &a);
    a.knows(B, &b);
    a.wait_up(B);
    assert!(!a.transport.note(B, &[0; NOTE_LEN_MAX + 1]));
    assert!(a.transport.note(B, b"a secret"));
    a.transport.send(B, &message(A, 1, 10));
    let mut heard = (None, None);
    while heard.0.is_none() || heard.1.is_none() {
        match b.heard.recv_timeout(LONG).unwrap() {
            Heard::Note { peer, note } => {
                assert!(!format!("{note:?}").contains("secret"));
                assert_eq!(format!("{note:?}"), "Note(8 bytes)");
                heard.0 = Some((peer, note.0.to_vec()));
            }
            Heard::Message(message) => heard.1 = Some(*message),
            _ => {}
        }
    }
    assert_eq!(
        heard,
        (Some((A, b"a secret".to_vec())), Some(message(A, 1, 10)))
    );
}

/// A client that speaks for itself: TLS with `credentials`, and whatever is written then.
fn dial(
    to: &Node,
    node: NodeId,
    credentials: &Credentials,
) -> StreamOwned<ClientConnection, Box<dyn Stream>> {
    let socket = RealNet.connect(to.transport.address(), LONG).unwrap();
    socket.set_read_timeout(LONG).unwrap();
    let (client, _) = credentials.configs().unwrap();
    let name = credentials::server_name(node, CLUSTER);
    StreamOwned::new(ClientConnection::new(client, name).unwrap(), socket)
}

/// What the node answers to a greeting; nothing when it does not even speak TLS with us.
fn greet(to: &Node, credentials: &Credentials, hello: Hello) -> Option<Answer> {
    let mut connection = dial(to, B, credentials);
    let hello = frame::wrap(&postcard::to_stdvec(&hello).unwrap());
    connection.write_all(&hello).ok()?;
    let payload = Frames::default().next(&mut connection, 256, &mut false);
    Some(postcard::from_bytes(&payload.ok()??).unwrap())
}

/// Proves: REP-14
#[test]
fn only_members_of_the_cluster_with_their_own_certificate_are_heard() {
    let (a, b) = (Node::start(A), Node::start(B));
    b.knows(A, &a);
    let own = authority().issue(A).unwrap();
    let stranger = Authority::make(CLUSTER).unwrap().issue(A).unwrap();
    // It takes our certificate for good, so that its own is looked at.
    let forger = Credentials {
        authority: own.authority.clone(),
        ..stranger.clone()
    };
    let other = authority().issue(C).unwrap();
    let hello = Hello::new(CLUSTER, A, B);
    let refused = |reason| Some(Answer::Refused(reason));
    let cases = [
        ("a member", &own, hello, Some(Answer::Welcome(3))),
        (
            "a member that speaks older versions only",
            &own,
            hello.speaking(1, 2),
            refused(Reason::Version { min: 3, max: 3 }),
        ),
        ("another authority", &stranger, hello, None),
        ("a certificate of another authority", &forger, hello, None),
        (
            "another's certificate",
            &other,
            hello,
            refused(Reason::NotItsCertificate),
        ),
        (
            "another cluster",
            &own,
            Hello::new(7, A, B),
            refused(Reason::OtherCluster),
        ),
        (
            "another node",
            &own,
            Hello::new(CLUSTER, A, C),
            refused(Reason::OtherNode(B)),
        ),
        (
            "no member",
            &other,
            Hello::new(CLUSTER, C, B),
            refused(Reason::NotAMember),
        ),
        (
            "a newer one",
            &own,
            hello.speaking(1, 9),
            Some(Answer::Welcome(3)),
        ),
        (
            "one that is too new",
            &own,
            hello.speaking(4, 9),
            refused(Reason::Version { min: 3, max: 3 }),
        ),
    ];
    for (who, credentials, hello, wanted) in cases {
        let mut found = greet(&b, credentials, hello);
        if wanted.is_none() && matches!(found, Some(Answer::Refused(_))) {
            found = None;
        }
        assert_eq!(found, wanted, "{who}");
    }
    shows_causes(&b);
}

/// Whoever looks at the node sees all of them, with the reason, a moment after the answer.
fn shows_causes(b: &Node) {
    let clock = RealClock::new();
    for wanted in [
        "it showed the certificate of another node",
        "it belongs to another cluster",
        "it called for another node than this one",
        "this node does not know it",
        "it speaks no version that this program does",
        "invalid peer certificate",
    ] {
        while !b
            .transport
            .refusals()
            .iter()
            .any(|it| it.cause.contains(wanted))
        {
            assert!(
                clock.monotonic() < LONG,
                "{wanted}: {:?}",
                b.transport.refusals()
            );
            std::thread::yield_now();
        }
    }
}

/// A node that lost its disk is heard again while messages of its life before lie in a buffer here:
/// a promise or a record among them would undo what it acknowledged since.
#[test]
fn of_two_connections_of_one_node_only_the_newer_one_is_heard() {
    let (a, b) = (Node::start(A), Node::start(B));
    b.knows(A, &a);
    let credentials = authority().issue(A).unwrap();
    let connect = || {
        let mut connection = dial(&b, B, &credentials);
        let hello = postcard::to_stdvec(&Hello::new(CLUSTER, A, B)).unwrap();
        connection.write_all(&frame::wrap(&hello)).unwrap();
        let answer = Frames::default().next(&mut connection, 256, &mut false);
        assert!(matches!(answer, Ok(Some(_))));
        connection
    };
    let mut older = connect();
    older.write_all(&frame::encode(&message(A, 1, 10))).unwrap();
    assert_eq!(b.wait_message(), message(A, 1, 10));
    let mut newer = connect();
    newer.write_all(&frame::encode(&message(A, 2, 10))).unwrap();
    assert_eq!(b.wait_message(), message(A, 2, 10));
    older.write_all(&frame::encode(&message(A, 3, 10))).unwrap();
    let end = Frames::default().next(&mut older, 256, &mut false);
    assert!(!matches!(end, Ok(Some(_))), "it is closed");
    newer.write_all(&frame::encode(&message(A, 4, 10))).unwrap();
    assert_eq!(b.wait_message(), message(A, 4, 10));
}

/// Proves: REP-14
#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let (a, b) = (Node::start(A), Node::start(B));
    a.knows(B, &b);
    b.knows(A, &a);
    a.wait_up(B);
    let good = frame::encode(&message(A, 1, 100));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut long = good.clone();
    long[..4].copy_from_slice(&u32::try_from(FRAME_LEN_MAX + 1).unwrap().to_le_bytes());
    let mut trailing = postcard::to_stdvec(&message(A, 1, 3)).unwrap();
    trailing.push(0);
    let garbage = [
        ("a flipped bit", flipped),
        ("too long", long),
        ("no message", frame::wrap(&[0xFF; 40])),
        ("a message and more", frame::wrap(&trailing)),
        ("another's name", frame::encode(&message(C, 1, 3))),
        (
            "a note that is too long",
            frame::wrap_note(&[1; NOTE_LEN_MAX + 1]).0.to_vec(),
        ),
    ];
    let credentials = authority().issue(A).unwrap();
    for (count, (what, bytes)) in (1..).zip(garbage) {
        let mut connection = dial(&b, B, &credentials);
        let hello = postcard::to_stdvec(&Hello::new(CLUSTER, A, B)).unwrap();
        connection.write_all(&frame::wrap(&hello)).unwrap();
        let payload = Frames::default().next(&mut connection, 256, &mut false);
        let answer: Answer = postcard::from_bytes(&payload.unwrap().unwrap()).unwrap();
        assert_eq!(answer, Answer::Welcome(3));
        // A long one is closed before all of it is written.
        connection.write_all(&bytes).ok();
        connection.write_all(&good).ok();
        // Closed, with or without a word.
        let mut rest = Vec::new();
        drop(connection.read_to_end(&mut rest));
        assert_eq!(rest, [], "{what}");
        // Counted after it is closed.
        b.wait_count(|traffic| u64::from(traffic.garbage >= count));
        assert_eq!(b.transport.traffic().garbage, count, "{what}");
    }
    a.transport.send(B, &message(A, 2, 10));
    assert_eq!(b.wait_message(), message(A, 2, 10));
}

#[test]
fn whoever_does_not_speak_tls_or_nothing_at_all_keeps_nobody_out() {
    let (a, b) = (Node::start(A), Node::start(B));
    let mut strangers: Vec<_> = (0..INCOMING_MAX / 2)
        .map(|_| RealNet.connect(b.transport.address(), LONG).unwrap())
        .collect();
    for stranger in strangers.iter_mut().step_by(2) {
        stranger.write_all(&[0x47; 4000]).unwrap();
    }
    a.knows(B, &b);
    b.knows(A, &a);
    a.wait_up(B);
    a.transport.send(B, &message(A, 1, 10));
    assert_eq!(b.wait_message(), message(A, 1, 10));
    // Each of the silent ones is closed in its time.
    for stranger in &mut strangers {
        stranger.set_read_timeout(LONG).unwrap();
        let mut rest = Vec::new();
        drop(stranger.read_to_end(&mut rest));
    }
}

/// Each had its time to say something, and the time of all of them was that of every node: a stranger that
/// came again kept them out. Here the time of none is ever over.
#[test]
fn strangers_who_say_nothing_give_up_their_places_to_whoever_comes() {
    let stands_still = Arc::new(world::sim::Clock::new(Timestamp::default()));
    let (a, b) = (Node::start(A), authority().issue(B).unwrap());
    let b = Node::at(B, b, stands_still);
    let strangers: Vec<_> = (0..2 * INCOMING_MAX)
        .map(|_| RealNet.connect(b.transport.address(), LONG).unwrap())
        .collect();
    b.knows(A, &a);
    a.knows(B, &b);
    a.wait_up(B);
    a.transport.send(B, &message(A, 1, 10));
    assert_eq!(b.wait_message(), message(A, 1, 10));
    drop(strangers);
}

#[test]
fn frames_are_found_however_the_bytes_come() {
    struct Drip<'a>(&'a [u8], usize);
    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }
    let payloads = [vec![1; 1], vec![2; 300], vec![3; 100_000]];
    let mut bytes = frame::wrap(&[]);
    for payload in &payloads {
        bytes.extend(frame::wrap(payload));
    }
    for step in [1, 7, 8, 9, 4096, 1 << 20] {
        let mut drip = Drip(&bytes, step);
        let mut frames = Frames::default();
        let mut found = Vec::new();
        loop {
            match frames.next(&mut drip, FRAME_LEN_MAX, &mut false) {
                Ok(payload) => found.extend(payload),
                Err(Broken::Closed) => break,
                Err(broken) => panic!("{broken}"),
            }
        }
        assert_eq!(found, payloads, "{step} bytes at a time");
    }
}
