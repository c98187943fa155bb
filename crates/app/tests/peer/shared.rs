//! Machines on one PostgreSQL: what each must have, and what they do at once.

use std::{fs, thread};

use libtest_mimic::{Failed, Trial};
use rustix::process::Signal;

use crate::{
    cluster::{self, Server},
    machine::{KEYS, Machine},
};

/// What these tests need: PostgreSQL's own programs.
pub(crate) struct Cluster;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        Cluster.test(
            "a_machine_without_the_keys_of_the_site_is_refused_and_told_where_they_are",
            keys,
        ),
        Cluster.test(
            "of_first_starts_at_once_one_makes_the_token_and_all_start",
            first_starts,
        ),
        Cluster.test(
            "commands_of_several_machines_at_once_all_go_through",
            commands,
        ),
        Cluster.test(
            "up_stops_beside_a_postgresql_that_is_stopped_in_mid_air",
            frozen,
        ),
    ]
}

impl Cluster {
    pub(crate) fn test(&self, name: &str, run: fn()) -> Trial {
        let is_missing = cluster::programs().is_none();
        let is_required = std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
        let trial = Trial::test(name, move || {
            if is_missing {
                let text = "PostgreSQL is missing: no /usr/lib/postgresql/*/bin";
                return Err(Failed::from(text));
            }
            run();
            Ok(())
        });
        trial.with_ignored_flag(is_missing && !is_required)
    }
}

/// Two machines that began on one empty database had a data key each, and the second one scanned with
/// what opens nothing and was refused what the first had put into the queue.
///
/// Proves: LED-9
fn keys() {
    let server = Server::start();
    let url = server.url(&server.database());
    let [first, second] = [(); 2].map(|()| Machine::on(&url));
    let mut up = first.up();
    up.serves();
    for key in KEYS {
        assert!(first.has(key), "{key}");
    }
    let own = first.sandbox.data_dir();
    for (given, missing) in [(0, KEYS[0]), (1, KEYS[1])] {
        if given > 0 {
            second.take_keys_of(&first);
            fs::remove_file(second.sandbox.data_dir().join("keys").join(missing)).unwrap();
        }
        let run = second.run(&["up"]);
        run.is_refused_naming(missing);
        let next = format!("copy keys/{missing} from `");
        assert!(run.stderr.contains(&next), "{}", run.stderr);
        assert!(
            run.stderr.contains(&own.display().to_string()),
            "{}",
            run.stderr
        );
        assert!(!second.has(missing), "one of its own would be taken for it");
    }
    // One of its own, as a directory that was used alone has it.
    for key in KEYS {
        let path = second.sandbox.data_dir().join("keys").join(key);
        let alone = Machine::on(&server.url(&server.database()));
        alone.up().serves();
        fs::copy(alone.sandbox.data_dir().join("keys").join(key), &path).unwrap();
        second.run(&["up"]).is_refused_naming(key);
        second.take_keys_of(&first);
    }
    second.up().serves();
}

/// Two or three `up` began at once: one ended on a conflict, and left a token that opens nothing.
///
/// Proves: SVC-1
fn first_starts() {
    const MACHINES: usize = 4;
    let server = Server::start();
    let url = server.url(&server.database());
    let machines = [(); MACHINES].map(|()| Machine::on(&url));
    // With keys that another site's first start made: what is at once is all that differs.
    let other = Machine::on(&server.url(&server.database()));
    other.up().serves();
    for machine in &machines {
        machine.take_keys_of(&other);
    }
    let mut ups = machines.each_ref().map(Machine::up);
    for up in &mut ups {
        up.serves();
    }
    let (with, without): (Vec<_>, Vec<_>) = machines
        .iter()
        .partition(|machine| machine.has("admin.token"));
    assert_eq!((with.len(), without.len()), (1, MACHINES - 1));
    for up in &mut ups {
        let is_maker = up.told().contains("its first token was made just now");
        up.signal(Signal::TERM);
        assert_eq!(up.ends(), 0, "{is_maker}: {}", up.told());
    }
    let tokens: serde_json::Value =
        serde_json::from_str(&with[0].done(&["token", "list", "-o", "json"])).unwrap();
    assert_eq!(
        tokens["tokens"].as_array().map(Vec::len),
        Some(1),
        "{tokens}"
    );
}

/// Of 45 tokens that three machines made at once three were refused for a conflict with the others.
fn commands() {
    const MACHINES: usize = 3;
    const EACH: usize = 6;
    let server = Server::start();
    let url = server.url(&server.database());
    let machines = [(); MACHINES].map(|()| Machine::on(&url));
    machines[0].done(&["token", "list"]);
    thread::scope(|scope| {
        for (number, machine) in machines.iter().enumerate() {
            scope.spawn(move || {
                for at in 0..EACH {
                    machine.done(&["token", "add", &format!("t-{number}-{at}")]);
                }
            });
        }
    });
    let tokens: serde_json::Value =
        serde_json::from_str(&machines[0].done(&["token", "list", "-o", "json"])).unwrap();
    let made = tokens["tokens"].as_array().unwrap().len();
    assert_eq!(made, MACHINES * EACH);
}

/// A server whose processes are stopped takes connections and answers nothing: `up` waited for it for as
/// long as it said nothing, whatever it was told.
///
/// Proves: SVC-10
fn frozen() {
    let server = Server::start();
    let machine = Machine::on(&server.url(&server.database()));
    let mut up = machine.up();
    up.serves();
    let stopped = server.freeze();
    up.signal(Signal::TERM);
    up.ends();
    assert!(!up.told().contains("panicked"), "{}", up.told());
    drop(stopped);
    let mut again = machine.up();
    again.serves().signal(Signal::TERM);
    assert_eq!(again.ends(), 0, "{}", again.told());
    machine.done(&["audit", "verify"]);
    machine.done(&["ledger", "verify"]);
}
