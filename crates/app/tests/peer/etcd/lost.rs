//! Answers of etcd that are lost on their way: what was asked for is done, and nobody knows.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use libtest_mimic::Trial;

use super::{ETCD, Etcd, address, site, site::Site};
use crate::Peer;

/// In the transaction that puts an epoch on record, and in no other request.
const RECORDS: &[u8] = br#""target":"MOD""#;

pub(super) fn test() -> Trial {
    ETCD.test(
        "an_answer_that_is_lost_as_an_epoch_is_recorded_costs_no_failover",
        unanswered,
    )
}

/// Passes everything on to `etcd`, but for the first so many answers to [`RECORDS`]: the connection ends instead.
struct Lossy {
    address: String,
    to_lose: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Lossy {
    fn before(etcd: &Etcd) -> Self {
        let address = address();
        let listener = TcpListener::bind(&address).unwrap();
        let lossy = Self {
            address,
            to_lose: Arc::default(),
            is_over: Arc::default(),
        };
        let (etcd, to_lose) = (etcd.client.clone(), Arc::clone(&lossy.to_lose));
        let is_over = Arc::clone(&lossy.is_over);
        thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // Etcd may have ended with its test.
                if let Ok(server) = TcpStream::connect(&etcd) {
                    pass_on(caller, server, &to_lose);
                }
            }
        });
        lossy
    }

    fn lose(&self, answers: usize) {
        self.to_lose.store(answers, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.to_lose.load(Ordering::Relaxed)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(&self.address));
    }
}

fn pass_on(caller: TcpStream, server: TcpStream, to_lose: &Arc<AtomicUsize>) {
    let is_lost = Arc::new(AtomicBool::new(false));
    let (asks, answers) = (caller.try_clone().unwrap(), server.try_clone().unwrap());
    let (lost, to_lose) = (Arc::clone(&is_lost), Arc::clone(to_lose));
    thread::spawn(move || {
        let mut asked = Vec::new();
        pump(asks, server, |bytes| {
            asked.extend_from_slice(bytes);
            if asked.windows(RECORDS.len()).any(|window| window == RECORDS) {
                asked.clear();
                let one_less = |left: usize| left.checked_sub(1);
                let lose = to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
                lost.store(lose.is_ok(), Ordering::Relaxed);
            }
            true
        });
    });
    thread::spawn(move || pump(answers, caller, |_| !is_lost.load(Ordering::Relaxed)));
}

/// Until one side ends, or `goes_on` says so: then both end.
fn pump(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !goes_on(&bytes[..len]) || to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

fn unanswered(peer: &Peer) {
    // It is asked again at the next endpoint, which has done it already; where there is none, later.
    for has_another in [true, false] {
        let etcd = Etcd::start(peer);
        let lossy = Lossy::before(&etcd);
        let site = Site::of_three(&match has_another {
            true => format!("{},{}", lossy.address, etcd.client),
            false => lossy.address.clone(),
        });
        let [a, b, c] = site.nodes();
        let (up_a, up_b, up_c) = site.up();
        lossy.lose(1);
        up_a.kill();
        let writes = site.writer(&[b, c]);
        assert_eq!(lossy.left(), 0, "an answer was lost");
        writes.adds("new-after");
        let status = writes.status();
        assert_eq!(status["coordinator"]["is_own"], true, "{status:#}");

        let up_a = a.up();
        writes.until("all copies", |status| site::in_sync(status) == 2);
        a.until("everything", |_| {
            let hosts = a.hosts();
            hosts.contains("new-first") && hosts.contains("new-after")
        });
        for up in [up_a, up_b, up_c] {
            up.ends_well();
        }
    }
}
