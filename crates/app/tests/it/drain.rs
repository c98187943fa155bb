//! `holdfast events drain`, `dead-letter` and `bridge` as processes: killed at any moment, in front of
//! receivers that fail.

mod bridge;
mod commands;
mod kills;
#[allow(dead_code, reason = "the tests of the room itself use all of it")]
#[path = "../../../events/src/drain/tests/peer.rs"]
mod peer;

use std::{
    io::Write,
    ops::Range,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::holdfast::{Run, Sandbox};

const CLASSES: [&str; 5] = ["error", "decision", "action", "lifecycle", "other"];

/// Appends `count` events, of each class in turn, numbered from 0; gives their ids.
fn append(sandbox: &Sandbox, count: usize) -> Vec<String> {
    append_numbered(sandbox, 0..count)
}

fn append_numbered(sandbox: &Sandbox, numbers: Range<usize>) -> Vec<String> {
    let count = numbers.len();
    let mut child = sandbox
        .command(["events", "append", "--source", "robot"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for number in numbers {
            let class = CLASSES[number % CLASSES.len()];
            writeln!(stdin, "{{\"class\":\"{class}\",\"body\":{number}}}").unwrap();
        }
    });
    let run = Run::of(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let id = |line: &str| {
        let ack: Value = serde_json::from_str(line).unwrap();
        ack["id"].as_str().unwrap().to_owned()
    };
    let ids: Vec<String> = run.stdout.lines().map(id).collect();
    assert_eq!(ids.len(), count);
    ids
}

fn drain(sandbox: &Sandbox, to: &str) -> Run {
    sandbox.run(["events", "drain", "--once", "--to", to])
}

/// A drain that runs, killed with the test.
struct Draining(Child);

impl Draining {
    fn start(sandbox: &Sandbox, to: &str) -> Self {
        let child = sandbox
            .command(["events", "drain", "--once", "--quiet", "--to", to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self(child)
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }

    /// Its exit code; none when it was killed.
    fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.kill();
        drop(self.0.wait());
    }
}
