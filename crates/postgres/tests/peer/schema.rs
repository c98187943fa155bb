//! Databases of earlier and of later programs.

use postgres::{Cause, Engine, Fault, Options, prepare_as};
use store::Kind;

use crate::{get, open, put, server::Server, tables};

/// The version that this program writes.
const NEWEST: usize = 3;

pub(crate) fn versions() {
    let server = Server::start();
    for version in 1..=NEWEST {
        let database = server.database();
        let address = server.address(&database);
        prepare_as(Options::new(address.clone(), tables()), version).unwrap();
        let at = "select max(version) from holdfast.schema";
        assert_eq!(server.sql(&database, at), version.to_string());
        // A row as that program wrote it.
        server.sql(
            &database,
            "insert into holdfast.entry select id, 'old', 1, 'row' from holdfast.name
                where name = 'conformance.table';
            insert into holdfast.commit (version, at) values (1, 1);
            update holdfast.head set version = 1",
        );
        let store = open(address).0;
        assert_eq!(get(&store, b"old").as_deref(), Some(&b"row"[..]));
        put(&store, b"old", b"new").unwrap();
        assert_eq!(server.sql(&database, at), NEWEST.to_string());
        let views = "select count(*) from holdfast.item where value is null";
        assert_eq!(server.sql(&database, views), "1");
    }
    let database = server.database();
    drop(open(server.address(&database)));
    server.sql(
        &database,
        "insert into holdfast.schema (version) values (99)",
    );
    let error = Engine::open(Options::new(server.address(&database), tables())).unwrap_err();
    assert_eq!(error.kind(), Kind::Version, "{error}");
    assert_eq!(Fault::behind(&error).unwrap().cause, Cause::Newer);
}
