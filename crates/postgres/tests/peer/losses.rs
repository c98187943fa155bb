//! Servers that stop, ways that break, disks without room.

use std::{sync::Arc, time::Duration};

use postgres::{Address, Cause, Engine, Fault, Options};
use store::{Kind, Store};

use crate::{
    get, open, put,
    relay::{Next, Relay},
    server::Server,
    tables,
};

/// A store behind a relay, on a session that has made a commit already.
fn behind(server: &Server, database: &str) -> (Relay, Store) {
    let relay = Relay::to(server.path());
    let store = open(Address::parse(&relay.url(database), None).unwrap()).0;
    put(&store, b"first", b"1").unwrap();
    (relay, store)
}

pub(crate) fn answer() {
    let server = Server::start();
    let database = server.database();
    let (relay, store) = behind(&server, &database);
    let table = store.table(crate::FOREVER).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.put(table, b"a", b"1").unwrap();
    relay.set(Next::LosesAnswer);
    let commit = transaction.commit().unwrap();
    assert!(relay.is_done());
    assert_eq!(commit, store.snapshot().unwrap().commit());
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(
        server.sql(&database, "select count(*) from holdfast.commit"),
        "2"
    );
}

/// Behind a way that stays open and tells nothing: what hangs is not met by any loss of a connection.
pub(crate) fn silence() {
    let server = Server::start();
    let database = server.database();
    let relay = Relay::to(server.path());
    let store = impatient(Address::parse(&relay.url(&database), None).unwrap());
    put(&store, b"first", b"1").unwrap();
    let table = store.table(crate::FOREVER).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.put(table, b"a", b"1").unwrap();
    relay.set(Next::KeepsAnswer);
    transaction.commit().unwrap();
    assert!(relay.is_done());
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(
        server.sql(&database, "select count(*) from holdfast.commit"),
        "2"
    );
}

/// A store that waits for an answer no longer than a test can.
fn impatient(address: Address) -> Store {
    let mut options = Options::new(address, tables());
    options.answer_max = Duration::from_millis(700);
    Store::on(Arc::new(Engine::open(options).unwrap()))
}

/// Stopped in mid-air, every process of it: it takes connections and answers nothing.
pub(crate) fn stopped() {
    let server = Server::start();
    let database = server.database();
    let store = impatient(server.address(&database));
    put(&store, b"a", b"1").unwrap();
    let table = store.table(crate::FOREVER).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.put(table, b"a", b"2").unwrap();
    let stopped = server.freeze();
    let error = transaction.commit().unwrap_err();
    assert_eq!(error.kind(), Kind::InDoubt, "{error}");
    let error = store.snapshot().unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert_eq!(Fault::behind(&error).unwrap().cause, Cause::Silent);
    drop(stopped);
    // In doubt, it may have come true since: wholly or not at all, and only once.
    put(&store, b"b", b"1").unwrap();
    let commits = server.sql(&database, "select count(*) from holdfast.commit");
    let became = (get(&store, b"a").unwrap(), commits.as_str());
    let allowed = [(b"1".to_vec(), "2"), (b"2".to_vec(), "3")];
    assert!(allowed.contains(&became), "{became:?}");
}

/// A process that stops does not wait for a server that is stopped in mid-air, however long it would
/// otherwise.
pub(crate) fn hurried() {
    let server = Server::start();
    let database = server.database();
    let store = open(server.address(&database)).0;
    put(&store, b"a", b"1").unwrap();
    store.hurry();
    put(&store, b"a", b"2").unwrap();
    let _stopped = server.freeze();
    let error = put(&store, b"a", b"3").unwrap_err();
    assert_eq!(
        Fault::behind(&error).unwrap().cause,
        Cause::Silent,
        "{error}"
    );
    let error = store.snapshot().unwrap_err();
    assert_eq!(
        Fault::behind(&error).unwrap().cause,
        Cause::Silent,
        "{error}"
    );
}

pub(crate) fn request() {
    let server = Server::start();
    let database = server.database();
    let (relay, store) = behind(&server, &database);
    let table = store.table(crate::FOREVER).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.put(table, b"a", b"1").unwrap();
    relay.set(Next::LosesRequest);
    let error = transaction.commit().unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(get(&store, b"a"), None);
    put(&store, b"a", b"2").unwrap();
    assert_eq!(
        server.sql(&database, "select count(*) from holdfast.commit"),
        "2"
    );
}

pub(crate) fn late() {
    let server = Server::start();
    let database = server.database();
    let (relay, store) = behind(&server, &database);
    let table = store.table(crate::FOREVER).unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.put(table, b"a", b"late").unwrap();
    relay.set(Next::HoldsRequest);
    let error = transaction.commit().unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    put(&store, b"a", b"again").unwrap();
    relay.release();
    // Without the bar it would be there now, after its caller was told that it is not.
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"again"[..]));
    assert_eq!(
        server.sql(&database, "select count(*) from holdfast.commit"),
        "2"
    );
    assert_eq!(
        server.sql(&database, "select count(*) from holdfast.veto"),
        "1"
    );
}

pub(crate) fn restart() {
    let server = Server::start();
    let database = server.database();
    let store = open(server.address(&database)).0;
    let mut last = 0_u8;
    for how in ["fast", "immediate"] {
        put(&store, b"before", &[last]).unwrap();
        server.stop(how);
        server.again();
        // The idle session is lost: a read is asked again, a commit is asked for.
        assert_eq!(get(&store, b"before"), Some(vec![last]));
        last += 1;
        put(&store, b"after", &[last]).unwrap();
        server.stop(how);
        server.again();
        let refused = put(&store, b"straight", &[last]).err();
        assert!(refused.is_none_or(|error| error.kind() == Kind::Conflict));
        put(&store, b"straight", &[last]).unwrap();
        assert_eq!(get(&store, b"straight"), Some(vec![last]));
    }
}

pub(crate) fn unreachable() {
    const SECRET: &str = "correct-horse-Recognisable";
    let nowhere = tempfile::tempdir().unwrap();
    let url = format!(
        "postgres://holdfast:{SECRET}@/site?host={}",
        nowhere.path().display()
    );
    let address = Address::parse(&url, None).unwrap();
    let error = Engine::open(Options::new(address, tables())).unwrap_err();
    assert_eq!(
        Fault::behind(&error).unwrap().cause,
        Cause::Unreachable,
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("connecting to postgres://holdfast@"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains(SECRET));

    let server = Server::start_with("");
    let denied = server
        .url("no_such_database")
        .replace("holdfast@", &format!("holdfast:{SECRET}@"));
    let address = Address::parse(&denied, None).unwrap();
    let error = Engine::open(Options::new(address, tables())).unwrap_err();
    assert_eq!(
        Fault::behind(&error).unwrap().cause,
        Cause::Denied,
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains(SECRET));
    // Nor is it in what the machine shows of a process: a session names the program alone.
    assert!(
        !server
            .sql("postgres", "select * from pg_stat_activity")
            .contains(SECRET)
    );
}

pub(crate) fn refusing() {
    let server = Server::start();
    let database = server.database();
    let store = open(server.address(&database)).0;
    put(&store, b"a", b"1").unwrap();
    // The server's own answer to a disk without room, at the last write of a commit.
    server.sql(
        &database,
        "create function no_room() returns trigger language plpgsql as $$
        begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
        create trigger no_room before insert on holdfast.commit
        for each row execute function no_room()",
    );
    let error = put(&store, b"a", b"2").unwrap_err();
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert_eq!(Fault::behind(&error).unwrap().cause, Cause::Full);
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    server.sql(&database, "drop trigger no_room on holdfast.commit");
    put(&store, b"a", b"3").unwrap();

    let statement = format!("alter database {database} set default_transaction_read_only = on");
    server.sql("postgres", &statement);
    let standby = open(server.address(&database)).0;
    let error = put(&standby, b"a", b"4").unwrap_err();
    assert_eq!(
        Fault::behind(&error).unwrap().cause,
        Cause::ReadOnly,
        "{error}"
    );
    assert_eq!(get(&standby, b"a").as_deref(), Some(&b"3"[..]));
}
