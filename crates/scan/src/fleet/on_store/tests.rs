use std::{
    net::{Ipv4Addr, TcpListener},
    sync::mpsc,
    thread,
    time::Duration,
};

use uuid::Uuid;
use world::{RealClock, RealDisk};

use super::*;
use crate::{
    collect::{Limits, Needs},
    credential::Sudo,
    executor::{Cancel, Executor, Guard, Order},
    fleet::Work,
    inventory::tests::{Place, WHO, ssh},
};

/// Longer than a connection to this machine takes on a busy one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody needs the store later here.
struct Nowhere;

impl Access for Nowhere {
    fn submit(&self, work: Work) {
        work(Err("closed".to_owned()));
    }
}

fn vault(place: &Place) -> Vault {
    let keys = place.dir.path().join(KEYS_DIR);
    Vault::new(
        place.store.clone(),
        Arc::new(RealDisk),
        Arc::new(RealRandom),
        keys,
    )
    .unwrap()
}

fn scan(place: &Place, host: &Host) -> Reason {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let disk = Arc::new(RealDisk);
    let opened = OnStore::without_queue(&place.store, place.dir.path(), disk, Arc::clone(&clock));
    let access: Arc<dyn Access> = Arc::new(Nowhere);
    let order = Order {
        scan: Uuid::new_v4(),
        host: host.name.clone(),
        way: opened.unwrap().way(host, &access),
        policy_version: String::new(),
        limits: Limits {
            deadline: PATIENCE,
            ..Limits::default()
        },
        rules: Vec::new().into(),
        collectors: Vec::new(),
        needs: Arc::new(Needs::default()),
        progress: Arc::new(()),
        cancel: Cancel::default(),
        on_facts: None,
    };
    let failed = Executor::new(Guard::new(), Arc::new(()), clock).run(&order);
    failed.unwrap_err().reason
}

/// Proves: EXE-3
#[test]
fn nobody_is_dialled_for_a_credential_that_does_not_open() {
    let place = Place::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut host = ssh("web1", "127.0.0.1");
    host.reach = Reach::Ssh {
        address: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        user: None,
    };
    listener.set_nonblocking(true).unwrap();
    let unseen = || {
        let came = listener.accept().map(|(_, from)| from);
        assert_eq!(
            came.unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "somebody was dialled"
        );
    };
    assert_eq!(scan(&place, &host), Reason::CredentialMissing);
    unseen();

    let mut secret = Secret::of_user("admin", Sudo::Never);
    secret.password = Some("a password".to_owned().into());
    vault(&place)
        .add("default", &secret, place.now(), WHO)
        .unwrap();
    let key = place.dir.path().join(KEYS_DIR).join("data.key");
    let good = RealDisk.read(&key, 64).unwrap();
    RealDisk.replace(&key, &[7; 32]).unwrap();
    assert_eq!(scan(&place, &host), Reason::CredentialDecryptionFailed);
    unseen();
    RealDisk.remove_file(&key).unwrap();
    assert_eq!(scan(&place, &host), Reason::CredentialDecryptionFailed);
    unseen();

    // The listener would have noticed.
    RealDisk.replace(&key, &good).unwrap();
    listener.set_nonblocking(false).unwrap();
    let (sender, came) = mpsc::sync_channel(1);
    thread::spawn(move || sender.send(listener.accept().map(drop)));
    assert_eq!(scan(&place, &host), Reason::HostUnreachable);
    came.recv_timeout(PATIENCE).unwrap().unwrap();
}

/// A site that several machines keep in turn: what the second finds on itself is not the first one's.
#[test]
fn a_host_that_is_the_machine_itself_is_scanned_by_that_machine_alone() {
    let place = Place::new();
    let host = Host::new("first", Reach::Local, world::Timestamp::from_nanos(1));
    let access: Arc<dyn Access> = Arc::new(Nowhere);
    for (machine, is_scanned) in [("first", true), ("second", false)] {
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(RealClock::new()));
        let opened = OnStore::without_queue(&place.store, place.dir.path(), disk, clock);
        let way = opened.unwrap().on_machine(machine.to_owned());
        let ready = way.way(&host, &access).ready();
        assert_eq!(ready.is_ok(), is_scanned, "{machine}");
    }
}
