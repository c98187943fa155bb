//! The printed collector, run by the shells of this machine.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use world::{Clock, RealClock};

use super::faithful::{differences, needs};
use crate::{
    capture::{is_capture, printed_script, replay},
    collect::{self, Progress},
    facts::Unknown,
    target::LocalTarget,
};

#[allow(clippy::disallowed_methods, reason = "the host of the test")]
fn sh(shell: &str, args: &[&str], script: &str) -> Vec<u8> {
    let mut child = Command::new(shell)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let script = script.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{shell} {args:?}");
    output.stdout
}

/// The script as a file would be, read whole before it runs: its input is its own.
fn capture_of(shell: &str, script: &str) -> Vec<u8> {
    sh(shell, &[], &format!("{{\n{script}\n}}\n"))
}

/// Proves: EXE-1
#[test]
fn a_capture_of_the_printed_script_is_judged_as_the_machine_is() {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let needs = Arc::new(needs());
    let script = printed_script(&needs, &clock);
    let collectors: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|collector| collector.name != "walk")
        .collect();
    let progress: Arc<dyn Progress> = Arc::new(());
    let local = collect::collect_only(
        &collectors,
        Arc::new(LocalTarget::new("/", Arc::clone(&clock)).unwrap()),
        Arc::clone(&needs),
        progress,
        Arc::clone(&clock),
    );
    for shell in ["/bin/sh", "/bin/bash"] {
        sh(shell, &["-n"], &script);
        let capture = capture_of(shell, &script);
        assert!(is_capture(&capture));
        let facts = replay(&capture, &needs, &clock).unwrap();
        assert_eq!(facts.host, local.host);
        let mut found = Vec::new();
        for (name, fact) in &local.facts {
            differences(name, fact, &facts.facts[name], &mut found);
        }
        // It could not be asked again: what it did not foresee is unknown, and nothing else differs.
        found.retain(|difference| {
            !difference.contains("not_collected") && !difference.contains("was not asked for")
        });
        assert!(found.is_empty(), "{shell}: {found:#?}");
        let walk = Unknown::from_value(&facts.facts["walk"]).unwrap();
        assert_eq!(walk.reason, crate::facts::Reason::NotCollected);
        for cut in [capture.len() - 1, capture.len() / 2, 60] {
            let refused = replay(&capture[..cut], &needs, &clock).unwrap_err();
            assert!(refused.detail.contains("cut"), "{refused}");
        }
    }
}
