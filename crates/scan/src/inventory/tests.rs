//! The inventory on a real store over a real journal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use store::Options;
use world::{Clock, RealDisk};

use super::*;

pub(crate) const WHO: &str = "user test";

/// Time that moves by a millisecond at each look, so that every commit has a moment of its own.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(
            1_700_000_000_000_000_000 + self.0.fetch_add(1_000_000, Ordering::SeqCst),
        )
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, _: std::time::Duration) {}
}

/// A store in a directory of its own, for this crate's tests about what operators keep.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    clock: Arc<Steps>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::<Steps>::default();
        let journal = wal::Options::on_this_machine(dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::clone(&clock) as Arc<dyn Clock>,
            crate::tables(),
        );
        let store = crate::test_store::open(options, Arc::new(journal)).unwrap();
        Self { dir, store, clock }
    }

    pub(crate) fn inventory(&self) -> Inventory {
        Inventory::new(self.store.clone()).unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub(crate) fn ssh(name: &str, address: &str) -> Host {
    let reach = Reach::Ssh {
        address: address.to_owned(),
        port: PORT,
        user: None,
    };
    Host::new(name, reach, Timestamp::from_nanos(1))
}

#[test]
fn a_host_is_found_as_it_was_added_and_its_name_is_taken_once() {
    let place = Place::new();
    let inventory = place.inventory();
    let mut host = ssh("web1", "Web1.Example.ORG.");
    host.groups.insert("web".to_owned());
    inventory.add(&host, WHO).unwrap();
    let found = inventory.get("web1").unwrap().unwrap();
    let Reach::Ssh { address, .. } = &found.reach else {
        panic!("{found:?}");
    };
    assert_eq!(address, "web1.example.org");
    assert_eq!(found.groups, host.groups);
    assert_eq!(inventory.add(&host, WHO).unwrap_err().kind(), Kind::Exists);
    assert!(inventory.get("web2").unwrap().is_none());
}

/// Retired in the inventory and not in the ledger, a host took scans for ever; the other way round it
/// was scanned for ever and every apply was refused.
///
/// Proves: LED-5
#[test]
fn a_host_is_retired_here_and_in_the_ledger_at_once_and_its_name_stays_taken() {
    let place = Place::new();
    let inventory = place.inventory();
    let ledger = Ledger::new(place.store.clone()).unwrap();
    inventory.add(&ssh("web1", "10.0.0.1"), WHO).unwrap();
    let before = place.now();
    let at = place.now();
    inventory.retire("web1", at, WHO).unwrap();
    assert_eq!(
        inventory.get("web1").unwrap().unwrap().retired,
        Some(at.nanos())
    );
    let recorded = ledger.hosts().unwrap();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].retired, Some(at.nanos()));

    let again = inventory.retire("web1", place.now(), WHO).unwrap_err();
    assert_eq!(again.kind(), Kind::Retired);
    let readded = inventory.add(&ssh("web1", "10.0.0.2"), WHO).unwrap_err();
    assert_eq!(readded.kind(), Kind::Retired);
    assert_eq!(
        inventory.retire("web9", at, WHO).unwrap_err().kind(),
        Kind::Missing
    );

    // The past is asked and answers as it was.
    assert_eq!(inventory.list(Some(before)).unwrap()[0].retired, None);
    assert_eq!(inventory.list(None).unwrap()[0].retired, Some(at.nanos()));
    let long_ago = Timestamp::from_nanos(1);
    assert_eq!(inventory.list(Some(long_ago)).unwrap(), []);
}

fn check(what: &str, change: impl Fn(&mut Host)) {
    let mut host = ssh("web1", "10.0.0.1");
    change(&mut host);
    let error = host.checked().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains(what), "{error}");
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
    assert!(error.to_string().len() < 500, "{error}");
}

#[test]
fn every_field_is_held_to_what_it_can_be_and_a_refusal_names_it() {
    for name in [
        "",
        " web1",
        "web1 ",
        "we\tb",
        "we\nb",
        "we\0b",
        "a\u{1b}[2J",
        "\u{85}",
    ] {
        check("host name", |host| host.name = name.to_owned());
    }
    check("host name", |host| host.name = "a".repeat(256));
    for address in [
        "",
        "-oProxyCommand=x",
        "a b",
        "a;reboot",
        "$(x)",
        "1.2.3",
        "1.2.3.256",
        "::g",
        "a..b",
        "a_-",
        "fe80::1%eth0",
        "user@host",
        "host:22",
        "bücher.example",
    ] {
        let address = address.to_owned();
        check("address", move |host| {
            host.reach = Reach::Ssh {
                address: address.clone(),
                port: 22,
                user: None,
            };
        });
    }
    check("port 0", |host| {
        host.reach = Reach::Ssh {
            address: "a".into(),
            port: 0,
            user: None,
        };
    });
    check("user", |host| {
        host.reach = Reach::Ssh {
            address: "a".into(),
            port: 22,
            user: Some(" ".into()),
        };
    });
    for label in ["", "a,b", " a", "a\u{7f}"] {
        check("site", |host| host.site = label.to_owned());
        check("group", |host| host.groups = [label.to_owned()].into());
        check("tag", |host| host.tags = [label.to_owned()].into());
        check("credential", |host| {
            host.credential = Some(label.to_owned())
        });
    }
    check("65 tags", |host| {
        host.tags = (0..65).map(|number| number.to_string()).collect();
    });
}

#[test]
fn names_with_metacharacters_and_markup_are_names() {
    let place = Place::new();
    let inventory = place.inventory();
    for name in [
        "$(reboot)",
        "<script>",
        "a b",
        "'; drop",
        "-rf",
        "../../etc",
        "büro",
        &"x".repeat(255),
    ] {
        inventory.add(&ssh(name, "10.0.0.1"), WHO).unwrap();
        assert_eq!(inventory.get(name).unwrap().unwrap().name, name);
    }
}

#[test]
fn an_address_has_one_form() {
    for (given, kept) in [
        ("10.0.0.11", "10.0.0.11"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("WEB1", "web1"),
        ("web_1.example.org.", "web_1.example.org"),
    ] {
        assert_eq!(field::address(given).unwrap(), kept);
    }
}
