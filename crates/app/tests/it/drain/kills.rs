//! A drain that is killed again and again while it sends.
//!
//! The failure looked for: an event that no receiver has and that no later drain sends; and, between
//! two Holdfasts, an event that is kept twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    peer::{Answer, Peer},
    *,
};
use crate::serving::Serving;

/// Numbers that repeat with their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Rounds that a drain is killed in at most.
const KILLS_MAX: usize = 25;
/// Rounds that are worth the name.
const KILLS_MIN: usize = 3;
/// Events that several batches hold.
const MORE: usize = 4_000;

/// The receiver itself kills the sender, before it answers, after it took the events, or not; and
/// fails and hangs up in between.
/// Proves: EVT-4, EVT-5
#[test]
fn a_drain_killed_while_it_sends_delivers_all_in_order_of_class() {
    let sandbox = Sandbox::new();
    let ids = append(&sandbox, 6_000);
    let victim: Arc<Mutex<Option<Pid>>> = Arc::new(Mutex::new(None));
    let killer = Arc::clone(&victim);
    let mut dice = Dice(7);
    let peer = Peer::new(move |_| {
        let mut is_killed = false;
        if dice.below(3) == 0
            && let Some(pid) = killer.lock().unwrap().take()
        {
            kill_process(pid, Signal::KILL).unwrap();
            is_killed = true;
        }
        match dice.below(6) {
            // Whoever is killed is killed before it hears that it was taken.
            _ if is_killed => Answer::Accept,
            0 => Answer::Status(503, vec![("retry-after", "0")]),
            1 => Answer::HangUp,
            _ => Answer::Accept,
        }
    });
    let to = format!("otlp={}", peer.url());
    let mut kills = 0;
    for _ in 0..2 * KILLS_MAX {
        let draining = Draining::start(&sandbox, &to);
        if kills < KILLS_MAX {
            *victim.lock().unwrap() = Some(draining.pid());
        }
        let code = draining.wait();
        *victim.lock().unwrap() = None;
        match code {
            None => kills += 1,
            Some(0) => break,
            Some(_) => {}
        }
    }
    assert!(kills >= 5, "killed only {kills} times");
    let taken = peer.taken();
    let has: BTreeSet<&String> = taken.iter().collect();
    let wanted: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(has, wanted, "after {kills} kills");
    let place: BTreeMap<&String, usize> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
    for class in 0..CLASSES.len() {
        // What is sent again may repeat a batch; what is new comes in order.
        let mut last = None;
        for id in &taken {
            let at = place[id];
            if at % CLASSES.len() == class && last.is_none_or(|last| at > last) {
                let next = last.map_or(class, |last| last + CLASSES.len());
                assert_eq!(at, next, "an event of class {class} was passed over");
                last = Some(at);
            }
        }
    }
    let run = drain(&sandbox, &to);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(peer.taken().len(), taken.len(), "nothing is left to send");
}

/// Proves: EVT-3, EVT-4, EVT-5
#[test]
fn events_are_kept_once_by_another_holdfast_whoever_of_the_two_is_killed() {
    let (from, into) = (Sandbox::new(), Sandbox::new());
    let mut count = MORE;
    append(&from, count);
    let mut server = Serving::start(&into);
    let listen = server.address.to_string();
    let to = format!("holdfast=http://{listen}");
    let mut kills = 0;
    for round in 0..3 * KILLS_MAX {
        let mut draining = Draining::start(&from, &to);
        if kills >= KILLS_MAX {
            match draining.wait() {
                Some(0) => break,
                _ => continue,
            }
        }
        // Killed once the receiver has more than before: somewhere around an acknowledgement.
        let before = kept(&server).len();
        while kept(&server).len() == before && draining.0.try_wait().unwrap().is_none() {}
        if round % 3 == 2 {
            server.kill();
            draining.kill();
            server = Serving::start_with(&into, &["events", "serve", "--listen", &listen], &[]);
        } else {
            draining.kill();
        }
        match draining.wait() {
            // It was done before this test came to look.
            Some(0) if kills < KILLS_MIN => {
                append_numbered(&from, count..count + MORE);
                count += MORE;
            }
            Some(0) => break,
            _ => kills += 1,
        }
    }
    assert!(kills >= KILLS_MIN, "killed only {kills} times");
    let kept = kept(&server);
    let numbers: BTreeSet<u64> = kept
        .iter()
        .map(|event| event["body"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), count, "all are there after {kills} kills");
    assert_eq!(kept.len(), count, "each is there once after {kills} kills");
}

fn kept(server: &Serving) -> Vec<Value> {
    let reply = server.get("/api/v1/events");
    assert_eq!(reply.status, 200);
    let text = String::from_utf8(reply.body).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
