//! The comparison on the built binary: it passes what is sound, and finds what was taken away.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

use world::{Disk, RealDisk};

use super::{
    acks::{Acks, Checked},
    breach::Breach,
    process::Ended,
    record::{Attempt, Landed, Record, Report},
    tally::Phase,
    *,
};

/// Enough for every phase but `up` to be hit with this seed, few enough for every test run.
const KILLS: u64 = 12;
const SEED: u64 = 20;

/// Crates the product is made of.
const PARTS: [&str; 6] = ["app", "replica", "scan", "store", "wal", "world"];

/// A product in a sandbox of its own.
struct Bench {
    sandbox: TempDir,
    product: Product,
}

impl Bench {
    fn new() -> Self {
        let sandbox = sandbox().unwrap();
        let product = install(&binary(), sandbox.path()).unwrap();
        Self { sandbox, product }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Ended {
        self.product.run(&self.dir("data"), words).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        RealDisk.replace(&self.dir(name), bytes).unwrap();
    }

    /// Writes ten more records a writer and takes in what was told.
    fn load(&self, acks: &mut Acks) {
        let run = self.run(&[
            "load",
            "run",
            "--writers",
            "2",
            "--commits",
            "10",
            "--quiet",
        ]);
        assert_eq!(acks.take_in(2, &run.stdout), Ok(20));
    }

    /// What `load check` makes of these acknowledgements.
    fn check(&self, acks: &[u8]) -> Checked {
        self.write("acks", acks);
        let check = self.run(&["load", "check", "acks", "--output", "json"]);
        serde_json::from_slice(&check.stdout).unwrap()
    }

    fn scan(&self, bundle: &bundle::Bundle) -> Report {
        self.write(&bundle.file, bundle.facts.to_string().as_bytes());
        let scan = self.run(&["scan", "--replay", &bundle.file, "--output", "json"]);
        Report::in_output(&scan.stdout).unwrap()
    }

    fn status(&self, host: &str) -> Option<Report> {
        let status = self.run(&["status", "--host", host, "--output", "json"]);
        serde_json::from_slice(&status.stdout).ok()
    }

    /// Makes `to` what `from` is.
    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.dir(from), self.dir(to));
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        copy_dir(&from, &to);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a copy nobody needs after the test"
)]
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The built binary, if it is of the sources as they are; a test run of the workspace has made it.
/// Else it is built.
pub(crate) fn binary() -> PathBuf {
    let root = crate::tree::workspace_root(&env::current_dir().unwrap()).unwrap();
    let built = built_at().unwrap();
    let time = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let newest = PARTS.map(|part| newest_below(&root.join("crates").join(part)));
    let source = newest.into_iter().max().flatten();
    if time(&built).is_some_and(|built| source.is_some_and(|source| source < built)) {
        return built;
    }
    build(&root).unwrap()
}

fn newest_below(dir: &Path) -> Option<SystemTime> {
    let mut newest = fs::metadata(dir).and_then(|it| it.modified()).ok();
    for entry in fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        let at = if entry.file_type().ok()?.is_dir() {
            newest_below(&entry.path())
        } else {
            entry.metadata().and_then(|it| it.modified()).ok()
        };
        newest = newest.max(at);
    }
    newest
}

/// Death of the process only: what a killed process had written, the page cache still has.
///
/// Proves: DOC-1, SVC-10
#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let sandbox = sandbox().unwrap();
    let product = install(&binary(), sandbox.path()).unwrap();
    let mut campaign = Campaign::new(product, SEED, Tally::new(KILLS, false));
    match campaign.run() {
        Ok(()) => {}
        Err(Fault::Breach(breach)) => {
            let kept = sandbox.keep();
            panic!("{breach}\n  seed {SEED}, kept: {}", kept.display());
        }
        Err(fault) => panic!("{fault:?}"),
    }
    let tally = &campaign.tally;
    assert!(tally.kills() >= KILLS, "{tally}");
    for phase in [Phase::Load, Phase::Scan] {
        assert!(tally.kills_in(phase) > 0, "{phase:?}\n{tally}");
    }
    assert!(tally.records_told > 0 && tally.checks > 0, "{tally}");
}

/// Proves: SVC-10
#[test]
fn a_load_that_is_asked_to_stop_ends_in_time_and_told_of_everything() {
    let bench = Bench::new();
    let mut acks = Acks::default();
    let words = ["load", "run", "--writers", "16", "--quiet"];
    let mut run = bench.product.start(&bench.dir("data"), &words).unwrap();
    run.first_line().unwrap();
    let ended = run.stop_after(Duration::from_millis(100)).unwrap();
    ended.has_stopped().unwrap();
    // Nothing may be there that was not told: the last commits were printed before the end.
    let told = acks.take_in(0, &ended.stdout).unwrap();
    let checked = bench.check(acks.text());
    assert_eq!(acks.compare(&checked), Ok(()));
    assert_eq!(checked.present, told);
}

/// Proves: SVC-10
#[test]
fn a_watch_that_is_asked_to_stop_ends_in_time_whatever_it_is_doing() {
    let bench = Bench::new();
    // Before it listens, while it reads its rules, collects, and walks the file systems.
    for millis in [0, 300, 800, 1600] {
        let up = bench.product.start(&bench.dir("data"), &["up", "--quiet"]);
        let ended = up.unwrap().stop_after(Duration::from_millis(millis));
        ended.unwrap().has_stopped().unwrap();
    }
}

#[test]
fn a_directory_put_back_to_an_older_copy_is_a_loss_of_records() {
    let bench = Bench::new();
    let mut acks = Acks::default();
    bench.load(&mut acks);
    bench.copy("data", "copy");
    bench.load(&mut acks);
    assert_eq!(acks.compare(&bench.check(acks.text())), Ok(()));

    bench.copy("copy", "data");
    let checked = bench.check(acks.text());
    assert_eq!(checked.missing, 20, "{checked:?}");
    assert!(acks.compare(&checked).is_err(), "{checked:?}");

    // Nobody checks, and the load goes on: it gives numbers and positions a second time.
    let run = bench.run(&[
        "load",
        "run",
        "--writers",
        "2",
        "--commits",
        "10",
        "--quiet",
    ]);
    assert!(acks.take_in(2, &run.stdout).is_err());
}

#[test]
fn a_directory_put_back_to_an_older_copy_is_a_loss_of_scans() {
    let bench = Bench::new();
    let bundles = bundle::bundles(&mut Dice::new(SEED));
    let mut record = Record::default();
    let mut settle = |report: &Report| -> Result<Landed, Breach> {
        let attempt = Attempt::Acknowledged(Arc::new(report.clone()));
        record.settle(&attempt, bench.status(&report.host), "then".to_owned())
    };
    assert_eq!(settle(&bench.scan(&bundles[0])), Ok(Landed::Wholly));
    bench.copy("data", "copy");
    let second = bench.scan(&bundles[1]);
    assert_eq!(settle(&second), Ok(Landed::Wholly));

    bench.copy("copy", "data");
    assert!(settle(&second).is_err());
    let latest = record.latest();
    assert!(Record::compare(latest, bench.status(&second.host).as_ref()).is_err());
}

#[test]
fn acknowledgements_that_were_never_given_are_found_missing() {
    let bench = Bench::new();
    let mut acks = Acks::default();
    bench.load(&mut acks);
    let mut invented = acks.text().to_vec();
    invented.extend_from_slice(b"ack 0 11 1000\n");
    let checked = bench.check(&invented);
    assert_eq!((checked.missing, checked.acknowledged), (1, 21));
    assert!(acks.compare(&checked).is_err());
}

#[test]
fn a_binary_that_gives_no_answer_at_all_is_found_and_ended() {
    let sandbox = sandbox().unwrap();
    let script = sandbox.path().join("script");
    RealDisk
        .replace(&script, b"#!/bin/sh\necho $$ > started\nexec sleep 600\n")
        .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let mut product = install(&script, sandbox.path()).unwrap();
    product.answer_wait_max = Duration::from_secs(2);
    let hung = product.run(&sandbox.path().join("data"), &["status"]);
    assert!(matches!(hung, Err(Fault::Breach(_))), "{hung:?}");
    let pid = fs::read_to_string(sandbox.path().join("started")).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(!process.exists(), "{} lives on", process.display());
}

#[test]
fn a_binary_that_gives_no_answer_of_ours_is_found() {
    let sandbox = sandbox().unwrap();
    let product = install(Path::new("/bin/true"), sandbox.path()).unwrap();
    let mut campaign = Campaign::new(product, SEED, Tally::new(1, false));
    assert!(matches!(campaign.run(), Err(Fault::Breach(_))));
}
