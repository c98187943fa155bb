//! The store over a socket: as good as the store itself, whoever is on the other side.

use std::{
    io::Write as _,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use wal::Local;
use world::{Clock, RealClock, Timestamp};

use super::{
    Remote, Serving, frame,
    serve::Limits,
    wire::{self, Answer, Page, Request},
};
use crate::{
    Bytes, Commit, Error, Keys, Kind, Options, Order, Outcome, Retained, Store, TableId, Write,
    conformance,
};

const LONG: Duration = Duration::from_secs(60);
const PATIENT: Limits = Limits {
    quiet: LONG,
    held: LONG,
    connections: 32,
};

/// A store of this machine that is served, and used over the socket.
struct Place {
    dir: tempfile::TempDir,
    limits: Limits,
    store: Option<Store>,
    serving: Option<Serving>,
}

impl Place {
    fn new(limits: Limits) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            limits,
            store: None,
            serving: None,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn serve(&mut self) -> Store {
        drop(self.serving.take());
        drop(self.store.take());
        let journal = wal::Options::on_this_machine(self.dir.path().join("journal"));
        let (journal, _) = Local::open(journal).unwrap();
        let options =
            Options::on_this_machine(self.dir.path().join("store"), conformance::tables());
        let store = Store::open(options, Arc::new(journal)).unwrap().0;
        std::fs::remove_file(self.socket()).ok();
        let listener = UnixListener::bind(self.socket()).unwrap();
        let clock = Arc::new(RealClock::new());
        let serving = Serving::start_with(store.clone(), listener, clock, self.limits);
        self.serving = Some(serving.unwrap());
        self.store = Some(store.clone());
        store
    }

    fn remote(&self) -> Store {
        let path = self.socket();
        let dial = Box::new(move || UnixStream::connect(&path));
        let remote = Remote::open("the other process", dial, Arc::new(RealClock::new()));
        Store::on(Arc::new(remote.unwrap()))
    }

    /// Waits until the server holds nothing for anybody.
    fn wait_until_nothing_is_held(&self) {
        let store = self.store.as_ref().unwrap();
        wait(|| store.stats().held == 0);
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let clock = RealClock::new();
    while !done() {
        assert!(clock.monotonic() < LONG, "waited in vain");
        thread::yield_now();
    }
}

impl conformance::Subject for Place {
    fn open(&mut self) -> Store {
        self.serve();
        self.remote()
    }

    fn now(&self) -> Timestamp {
        RealClock::new().now()
    }
}

fn t(store: &Store) -> TableId {
    store.table("conformance.table").unwrap()
}

fn put(store: &Store, key: &[u8], value: &[u8]) -> Result<Commit, Error> {
    let table = t(store);
    let mut transaction = store.begin()?;
    transaction.put(table, key, value)?;
    transaction.commit()
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let found = store.snapshot().unwrap().get(t(store), key).unwrap();
    found.map(|value| value.to_vec())
}

#[test]
fn a_store_over_a_socket_conforms() {
    conformance::check(&mut || Box::new(Place::new(PATIENT)));
}

#[test]
fn both_sides_of_the_socket_see_each_other_and_conflict() {
    let mut place = Place::new(PATIENT);
    let (here, there) = (place.serve(), place.remote());
    put(&here, b"a", b"here").unwrap();
    assert_eq!(get(&there, b"a").as_deref(), Some(&b"here"[..]));
    let (mut one, mut two) = (here.begin().unwrap(), there.begin().unwrap());
    for transaction in [&mut one, &mut two] {
        transaction.get(t(&here), b"a").unwrap();
        transaction.put(t(&here), b"a", b"both").unwrap();
    }
    two.commit().unwrap();
    assert_eq!(one.commit().unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn a_transaction_whose_client_is_gone_is_given_up_and_leaves_nothing() {
    let mut place = Place::new(PATIENT);
    let store = place.serve();
    let raw = greeted(&place);
    frame::write(&raw, LONG, &Request::Begin.encode()).unwrap();
    assert!(matches!(answer(&raw), Some(Answer::Commit(_))));
    assert_eq!(store.stats().held, 1);
    // Killed in the middle of telling what is to be written.
    let finish = finish_of(vec![(b"a", b"1"), (b"b", b"2")]);
    let len = u32::try_from(finish.len()).unwrap().to_le_bytes();
    (&raw).write_all(&len).unwrap();
    (&raw).write_all(&finish[..finish.len() - 3]).unwrap();
    drop(raw);
    // A commit lets go of its position before it is published: only the connection's end is after it.
    wait(|| place.serving.as_ref().unwrap().connections() == 0);
    place.wait_until_nothing_is_held();
    assert_eq!(get(&store, b"a"), None);
    assert_eq!(store.retained().unwrap().to.lsn, wal::Lsn::ZERO);
}

fn finish_of(writes: Vec<(&[u8], &[u8])>) -> Vec<u8> {
    let writes: Vec<_> = writes
        .into_iter()
        .map(|(key, value)| Write {
            table: TableId::from(16),
            key: key.to_vec(),
            value: Some(value.to_vec()),
        })
        .collect();
    wire::encode_finish(&writes, None, None)
}

const SHORT: Limits = Limits {
    quiet: Duration::from_millis(50),
    held: LONG,
    connections: 32,
};

/// A stopped client holds a transaction for as long as it is allowed to be quiet, and a snapshot too:
/// the one is then to be run again, the other is taken again.
#[test]
fn what_a_quiet_client_holds_is_given_up() {
    let mut place = Place::new(SHORT);
    let store = place.serve();
    let before = put(&store, b"a", b"1").unwrap();
    let remote = place.remote();
    let table = t(&remote);
    let mut transaction = remote.begin().unwrap();
    // On a busy machine it may be given up before it is used.
    wait(|| {
        let is_held = transaction.get(table, b"a").is_ok();
        if !is_held {
            transaction = remote.begin().unwrap();
        }
        is_held
    });
    transaction.put(table, b"a", b"never").unwrap();
    let snapshot = remote.snapshot().unwrap();
    place.wait_until_nothing_is_held();
    put(&store, b"a", b"2").unwrap();
    let refused = transaction.commit().unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
    assert!(refused.to_string().contains("run it again"), "{refused}");
    let found = snapshot.get(table, b"a").unwrap();
    assert_eq!(found.as_deref(), Some(&b"1"[..]));
    assert_eq!(snapshot.commit(), before);
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"2"[..]));
    // And connections that were idle for too long are made again.
    place.wait_until_nothing_is_held();
    wait(|| place.serving.as_ref().unwrap().connections() == 0);
    wait(|| match put(&remote, b"a", b"3") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
            false
        }
    });
}

/// Asking again and again does not make it last: what is held is kept for a time and no longer.
#[test]
fn what_a_busy_client_holds_is_given_up_too() {
    let limits = Limits {
        held: Duration::from_millis(80),
        ..PATIENT
    };
    let mut place = Place::new(limits);
    let store = place.serve();
    put(&store, b"a", b"1").unwrap();
    let remote = place.remote();
    let table = t(&remote);
    let mut transaction = remote.begin().unwrap();
    let mut refused = None;
    wait(|| {
        refused = transaction.get(table, b"a").err();
        refused.is_some()
    });
    assert_eq!(refused.unwrap().kind(), Kind::Conflict);
    place.wait_until_nothing_is_held();
    // Broken, it does not commit either.
    transaction.put(table, b"b", b"half").unwrap();
    assert_eq!(transaction.commit().unwrap_err().kind(), Kind::Conflict);
    assert_eq!(get(&store, b"b"), None);
}

#[test]
fn a_range_that_its_reader_leaves_open_for_long_goes_on_where_it_was() {
    let mut place = Place::new(SHORT);
    let store = place.serve();
    let mut transaction = store.begin().unwrap();
    for number in 0..2000_u32 {
        let key = number.to_be_bytes();
        transaction.put(t(&store), &key, b"then").unwrap();
    }
    transaction.commit().unwrap();
    let remote = place.remote();
    let snapshot = remote.snapshot().unwrap();
    let mut rows = snapshot.range(t(&remote), &Keys::all()).unwrap();
    let mut seen = vec![rows.next().unwrap().unwrap().0];
    place.wait_until_nothing_is_held();
    let mut transaction = store.begin().unwrap();
    for number in 0..2000_u32 {
        transaction
            .delete(t(&store), &number.to_be_bytes())
            .unwrap();
    }
    transaction.commit().unwrap();
    seen.extend(rows.map(|row| row.unwrap().0));
    assert_eq!(seen.len(), 2000);
}

#[test]
fn a_server_that_stops_gives_up_what_clients_hold_and_takes_no_more() {
    let mut place = Place::new(PATIENT);
    let store = place.serve();
    let remote = place.remote();
    put(&remote, b"a", b"1").unwrap();
    let table = t(&remote);
    let mut transaction = remote.begin().unwrap();
    transaction.put(table, b"a", b"2").unwrap();
    let snapshot = remote.snapshot().unwrap();
    let deaf = greeted(&place);
    place.serving.take().unwrap().stop();
    assert_eq!(store.stats().held, 0);
    assert_eq!(transaction.commit().unwrap_err().kind(), Kind::Conflict);
    let lost = snapshot.get(table, b"a").unwrap_err();
    assert_eq!(lost.kind(), Kind::Io, "{lost}");
    assert!(lost.to_string().contains("the other process"), "{lost}");
    assert_eq!(remote.begin().unwrap_err().kind(), Kind::Io);
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    drop(deaf);
}

/// A client that asked for much and does not read it must not hold up a stop.
#[test]
fn a_client_that_takes_no_answer_is_cut_off_by_a_stop() {
    let mut place = Place::new(PATIENT);
    let store = place.serve();
    put(&store, b"large", &vec![7; crate::VALUE_LEN_MAX]).unwrap();
    let raw = greeted(&place);
    frame::write(&raw, LONG, &Request::Read(None).encode()).unwrap();
    assert!(matches!(answer(&raw), Some(Answer::Commit(_))));
    let large = Request::Get(vec![(TableId::from(16), b"large".to_vec())]);
    frame::write(&raw, LONG, &large.encode()).unwrap();
    place.serving.take().unwrap().stop();
    assert_eq!(store.stats().held, 0);
    drop(raw);
}

/// A listener of our own: greets, reads requests, and hangs up where `until` says.
fn forge(place: &Place, until: fn(&Request) -> bool) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(place.socket()).unwrap();
    thread::spawn(move || {
        let clock = RealClock::new();
        let (stream, _) = listener.accept().unwrap();
        frame::read(&stream, &clock, LONG, LONG).unwrap();
        frame::write(&stream, LONG, &Answer::Welcome.encode()).unwrap();
        loop {
            let Some(request) = frame::read(&stream, &clock, LONG, LONG).unwrap() else {
                return;
            };
            let request = Request::decode(&request).unwrap();
            if until(&request) {
                return;
            }
            let answer = match request {
                Request::Table(_) => Answer::Table(TableId::from(16)),
                _ => Answer::Commit(Commit::default()),
            };
            frame::write(&stream, LONG, &answer.encode()).unwrap();
        }
    })
}

/// The process was killed after it was told to commit: nobody here knows whether it did.
#[test]
fn a_commit_without_an_answer_is_in_doubt() {
    let place = Place::new(PATIENT);
    let server = forge(&place, |request| matches!(request, Request::Finish { .. }));
    let remote = place.remote();
    let lost = put(&remote, b"a", b"1").unwrap_err();
    assert_eq!(lost.kind(), Kind::InDoubt, "{lost}");
    server.join().unwrap();
}

/// Killed before it was told to commit: nothing was written, and that is said.
#[test]
fn a_transaction_that_broke_before_its_commit_was_not_written() {
    let place = Place::new(PATIENT);
    let server = forge(&place, |request| matches!(request, Request::Get(_)));
    let remote = place.remote();
    let table = t(&remote);
    let mut transaction = remote.begin().unwrap();
    let lost = transaction.get(table, b"a").unwrap_err();
    assert_eq!(lost.kind(), Kind::Io, "{lost}");
    transaction.put(table, b"a", b"1").unwrap();
    assert_eq!(transaction.commit().unwrap_err().kind(), Kind::Conflict);
    server.join().unwrap();
}

#[test]
fn more_clients_than_there_is_room_for_are_told_so_and_wait() {
    let limits = Limits {
        connections: 1,
        ..PATIENT
    };
    let mut place = Place::new(limits);
    place.serve();
    let first = greeted(&place);
    let raw = UnixStream::connect(place.socket()).unwrap();
    assert!(matches!(answer(&raw), Some(Answer::Busy)));
    // Whoever waits gets in once there is room.
    let path = place.socket();
    let waiting = thread::spawn(move || {
        let dial = Box::new(move || UnixStream::connect(&path));
        Remote::open("the other process", dial, Arc::new(RealClock::new())).map(drop)
    });
    drop(first);
    waiting.join().unwrap().unwrap();
}

#[test]
fn another_version_is_told_which_one_this_is() {
    let mut place = Place::new(PATIENT);
    place.serve();
    let raw = UnixStream::connect(place.socket()).unwrap();
    let greeting = [&wire::MAGIC[..], &7_u32.to_le_bytes()].concat();
    frame::write(&raw, LONG, &greeting).unwrap();
    let Some(Answer::Refused(refused)) = answer(&raw) else {
        panic!("let in");
    };
    assert_eq!(refused.kind(), Kind::Version);
    let text = refused.to_string();
    assert!(
        text.contains("version 7") && text.contains("speaks 1"),
        "{text}"
    );
}

fn greeted(place: &Place) -> UnixStream {
    let raw = UnixStream::connect(place.socket()).unwrap();
    frame::write(&raw, LONG, &wire::greeting()).unwrap();
    assert!(matches!(answer(&raw), Some(Answer::Welcome)));
    raw
}

fn answer(raw: &UnixStream) -> Option<Answer> {
    let bytes = frame::read(raw, &RealClock::new(), LONG, LONG).unwrap()?;
    Some(Answer::decode(&bytes).unwrap())
}

/// Whatever comes, the connection that it comes on ends, and nothing else.
#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let mut place = Place::new(PATIENT);
    let store = place.serve();
    put(&store, b"a", b"1").unwrap();
    let framed = |payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap();
        [&len.to_le_bytes()[..], payload].concat()
    };
    let too_long = u32::try_from(frame::FRAME_LEN_MAX + 1).unwrap();
    let cut = framed(&Request::Begin.encode());
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("a request without its tag", framed(&[200])),
        ("an empty frame", 0_u32.to_le_bytes().to_vec()),
        ("a frame that is too long", too_long.to_le_bytes().to_vec()),
        (
            "the longest length there is",
            u32::MAX.to_le_bytes().to_vec(),
        ),
        ("half a header", cut[..2].to_vec()),
        ("a header alone", cut[..4].to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("bytes that follow a request", framed(&[3, 0])),
        ("a name that is no text", framed(&[1, 0xff, 0xfe])),
        (
            "a length beyond the frame",
            framed(&[10, 16, 0, 0, 0, 255, 255, 255, 255]),
        ),
        ("unknown flags of a commit", framed(&[13, 0xf0])),
    ];
    for (what, input) in inputs {
        for is_greeted in [false, true] {
            let raw = if is_greeted {
                greeted(&place)
            } else {
                UnixStream::connect(place.socket()).unwrap()
            };
            // The server may have hung up before it took all.
            drop((&raw).write_all(&input));
            drop(raw.shutdown(Shutdown::Write));
            // An end or a reset, never an answer that is not one.
            let end = frame::read(&raw, &RealClock::new(), LONG, LONG);
            assert!(!matches!(end, Ok(Some(_))), "{what}: {end:?}");
        }
    }
    assert_eq!(get(&place.remote(), b"a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn what_is_well_formed_and_makes_no_sense_is_refused_in_words() {
    let mut place = Place::new(PATIENT);
    let store = place.serve();
    let raw = greeted(&place);
    let senseless = [
        Request::Get(vec![(TableId::from(16), b"a".to_vec())]),
        Request::Claim(page(b"")),
        Request::Page(page(b"")),
        Request::Finish {
            writes: Vec::new(),
            date: None,
            once: None,
        },
    ];
    for request in senseless {
        frame::write(&raw, LONG, &request.encode()).unwrap();
        let Some(Answer::Refused(refused)) = answer(&raw) else {
            panic!("{request:?} was done");
        };
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    // Lengths are checked here too, whatever the client checked.
    for (key, value) in [
        (vec![], 1),
        (vec![1; 9000], 1),
        (vec![1], crate::VALUE_LEN_MAX + 1),
    ] {
        frame::write(&raw, LONG, &Request::Begin.encode()).unwrap();
        assert!(matches!(answer(&raw), Some(Answer::Commit(_))));
        let value = vec![0; value];
        frame::write(
            &raw,
            LONG,
            &finish_of(vec![(b"half", b"1"), (&key, &value)]),
        )
        .unwrap();
        let Some(Answer::Refused(refused)) = answer(&raw) else {
            panic!("{} bytes were taken", key.len());
        };
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    drop(raw);
    assert_eq!(get(&store, b"half"), None);
}

fn page(key: &[u8]) -> Page {
    Page {
        table: TableId::from(16),
        keys: Keys::from(key),
        order: Order::Descending,
        limit: 3,
    }
}

fn commit(number: u64) -> Commit {
    Commit {
        lsn: wal::Lsn::new(number),
        time: Timestamp::from_nanos(number + 1),
    }
}

fn requests() -> Vec<Request> {
    let write = |value: Option<&[u8]>| Write {
        table: TableId::from(17),
        key: b"key".to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    vec![
        Request::Table("name".to_owned()),
        Request::TableName(TableId::from(16)),
        Request::Newest,
        Request::At(wal::Lsn::new(5)),
        Request::AtTime(Timestamp::from_nanos(6)),
        Request::Retained,
        Request::Read(None),
        Request::Read(Some(wal::Lsn::new(7))),
        Request::Begin,
        Request::Get(vec![
            (TableId::from(16), b"a".to_vec()),
            (TableId::from(17), vec![]),
        ]),
        Request::Page(page(b"k")),
        Request::Claim(page(b"")),
        Request::Finish {
            writes: vec![write(Some(b"value")), write(Some(b"")), write(None)],
            date: Some(Timestamp::from_nanos(8)),
            once: Some(b"once".to_vec()),
        },
        Request::Finish {
            writes: vec![],
            date: None,
            once: None,
        },
        Request::End,
    ]
}

fn answers() -> Vec<Answer> {
    let retained = Retained {
        from: commit(1),
        to: commit(2),
    };
    vec![
        Answer::Refused(Error::new(Kind::Conflict, "why")),
        Answer::Refused(Error::out_of_range("lsn 9", retained)),
        Answer::GivenUp("why".to_owned()),
        Answer::Busy,
        Answer::Welcome,
        Answer::Table(TableId::from(16)),
        Answer::Name("name".to_owned()),
        Answer::Commit(commit(3)),
        Answer::Retained(retained),
        Answer::Values(vec![
            Some(Bytes::from(&b"v"[..])),
            None,
            Some(Bytes::from(&b""[..])),
        ]),
        Answer::Rows {
            rows: vec![(Bytes::from(&b"k"[..]), Bytes::from(&b"v"[..]))],
            more: true,
        },
        Answer::Outcome(Outcome::Committed(commit(4))),
        Answer::Outcome(Outcome::Replayed(commit(5))),
    ]
}

#[test]
fn what_is_sent_is_what_is_received() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
    for answer in answers() {
        let decoded = Answer::decode(&answer.encode()).unwrap();
        assert_eq!(format!("{decoded:?}"), shown(&answer));
    }
}

/// An error is told in words, with its kind and its range.
fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Refused(error) => {
            let told = Error::told(error.kind(), error.to_string(), error.retained());
            format!("{:?}", Answer::Refused(told))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn every_kind_of_error_keeps_its_kind() {
    let kinds = [
        Kind::Conflict,
        Kind::Poisoned,
        Kind::Fenced,
        Kind::Corrupt,
        Kind::Full,
        Kind::Invalid,
        Kind::Closed,
        Kind::Locked,
        Kind::Version,
        Kind::Io,
        Kind::InDoubt,
    ];
    for kind in kinds {
        let answer = Answer::Refused(Error::new(kind, "why")).encode();
        let Some(Answer::Refused(error)) = Answer::decode(&answer) else {
            panic!("{kind:?} is lost");
        };
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn no_cut_and_no_flipped_bit_makes_decoding_panic() {
    let encoded = requests()
        .into_iter()
        .map(|request| request.encode())
        .chain(answers().into_iter().map(|answer| answer.encode()));
    for bytes in encoded {
        for len in 0..bytes.len() {
            drop(Request::decode(&bytes[..len]));
            drop(Answer::decode(&bytes[..len]));
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                drop(Request::decode(&damaged));
                drop(Answer::decode(&damaged));
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        drop(Request::decode(&longer));
    }
}
