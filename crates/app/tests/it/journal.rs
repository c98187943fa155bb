//! `holdfast journal` on directories that the binary made and the test damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    holdfast::{Run, Sandbox},
    schema,
};

/// Segments of three batches, so that sealed ones are there after a dozen records.
const SIZES: (&str, &str) = ("HOLDFAST_PROOF_SIZES", "12288,4096,8000,1");
const SEGMENT_LEN: u64 = 12_288;
/// Where the three batches of 2000-byte records begin.
const BATCHES: [u64; 3] = [4096, 6160, 8224];

fn run(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut command = sandbox.command(args);
    Run::of(command.env(SIZES.0, SIZES.1).output().unwrap())
}

/// Segments of records 1 to 3, 4 to 6, 7 to 9 and 10 to 12.
fn journal(sandbox: &Sandbox) -> PathBuf {
    let bench = sandbox.path("bench");
    let args = ["journal", "bench", bench.to_str().unwrap()];
    let sizes = [
        "--count",
        "12",
        "--appenders",
        "1",
        "--size",
        "2000",
        "--keep",
    ];
    let run = run(sandbox, &[&args[..], &sizes[..]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let journal = bench.join("ordinary");
    assert!(segment(&journal, 10).is_file());
    journal
}

fn segment(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    with(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path, offset: usize) {
    change(path, |bytes| bytes[offset] ^= 1);
}

fn zero(path: &Path, from: u64) {
    change(path, |bytes| {
        let from = usize::try_from(from).unwrap();
        bytes[from..].fill(0);
    });
}

/// A block as its owner would have written it with other numbers in it: docs/format/journal.md.
fn reseal(block: &mut [u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..]);
    block[12..16].copy_from_slice(&checksum.to_le_bytes());
}

/// The first batch of segment 4 begins with 5, and verifies.
fn forge_first(dir: &Path) {
    let identity = fs::read(dir.join("identity")).unwrap();
    let seed = crc32c::crc32c(&identity[16..36]);
    let seed = crc32c::crc32c_append(seed, &4_u64.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &BATCHES[0].to_le_bytes());
    change(&segment(dir, 4), |bytes| {
        let batch = &mut bytes[4096..6160];
        batch[24..32].copy_from_slice(&5_u64.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &batch[12..]);
        batch[8..12].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &batch[8..56]);
        batch[4..8].copy_from_slice(&checksum.to_le_bytes());
    });
}

type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 14] = [
    ("FRAME_CORRUPT", |dir| flip(&segment(dir, 4), 7000)),
    ("FRAME_CORRUPT", |dir| flip(&segment(dir, 10), 5000)),
    ("SEQ_GAP", |dir| zero(&segment(dir, 4), BATCHES[2])),
    ("FIRST_SEQ_NOT_BASE", forge_first),
    ("SAFESEQ_GT_MAXSEQ", |dir| {
        zero(&segment(dir, 10), BATCHES[2])
    }),
    ("SAFESEQ_NOT_FOUND", |dir| {
        for base in [1, 4, 7, 10] {
            fs::remove_file(segment(dir, base)).unwrap();
        }
    }),
    ("SEGMENT_MISSING", |dir| {
        fs::remove_file(segment(dir, 7)).unwrap();
    }),
    ("SEGMENT_HEADER_CORRUPT", |dir| flip(&segment(dir, 7), 100)),
    ("SAFE_POINT_CORRUPT", |dir| {
        flip(&dir.join("safe-point"), 100);
        flip(&dir.join("safe-point"), 4196);
    }),
    ("SAFE_POINT_MISSING", |dir| {
        fs::remove_file(dir.join("safe-point")).unwrap();
    }),
    ("SAFE_POINT_REGRESSED", |dir| {
        change(&dir.join("safe-point"), |bytes| {
            for slot in bytes.chunks_mut(4096) {
                slot[48..56].copy_from_slice(&2_u64.to_le_bytes());
                reseal(slot);
            }
        });
    }),
    ("EPOCH_REGRESSED", |dir| {
        change(&dir.join("safe-point"), |bytes| {
            for slot in bytes.chunks_mut(4096) {
                slot[72..80].copy_from_slice(&9_u64.to_le_bytes());
                reseal(slot);
            }
        });
    }),
    ("IDENTITY_MISMATCH", |dir| flip(&dir.join("identity"), 20)),
    ("VERSION_UNKNOWN", |dir| {
        change(&dir.join("identity"), |bytes| {
            bytes[8] = 2;
            reseal(bytes);
        });
    }),
];

/// Names, lengths and bytes, to see that nothing was changed.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

/// Proves: JRN-11, JRN-21
#[test]
fn verify_names_exactly_the_code_of_what_is_damaged_and_changes_nothing() {
    let whole = Sandbox::new();
    let journal = journal(&whole);
    for (code, damage) in DAMAGES {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("journal");
        fs::create_dir(&dir).unwrap();
        for (path, bytes) in snapshot(&journal) {
            fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
        }
        let name = dir.to_str().unwrap();
        let (exit, report) = sandbox.json(["journal", "verify", name]);
        assert_eq!((exit, &report["holds"]), (0, &true.into()), "{report}");
        schema::check("journal-verify", &report);

        damage(&dir);
        let before = snapshot(&dir);
        let (exit, report) = sandbox.json(["journal", "verify", name]);
        schema::check("journal-verify", &report);
        assert_eq!(exit, 1, "{code}: {report}");
        assert_eq!(report["cause"], code, "{report}");
        assert_eq!(report["page"], format!("docs/errors/{code}.md"));
        let failing: Vec<&str> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["holds"] == false)
            .map(|check| check["clause"].as_str().unwrap())
            .collect();
        // Whatever else is broken, a start that is refused breaks this one.
        assert!(failing.contains(&"JRN-10"), "{code}: {report}");

        let inspect = sandbox.run(["journal", "inspect", name, "--batches", "--records"]);
        assert_eq!(inspect.code, 1, "{}", inspect.stderr);
        assert!(inspect.stdout.contains(code), "{code}: {}", inspect.stdout);
        let repair = sandbox.run(["journal", "repair", name]);
        repair.is_refused_naming(code);
        repair.is_refused_naming(&format!("docs/errors/{code}.md"));
        // The page of this one says not to reset: nothing is wrong with the journal.
        let resets = repair.stderr.contains("journal reset");
        assert_eq!(resets, code != "VERSION_UNKNOWN", "{}", repair.stderr);
        let dry = sandbox.run(["journal", "repair", "--dry-run", name]);
        assert_eq!(dry.code, 1, "{}", dry.stderr);
        sandbox
            .run(["journal", "export", name])
            .is_refused_naming(code);
        let mut after = snapshot(&dir);
        // Repairing took the lock and let go of it.
        after.retain(|(path, _)| !path.ends_with("lock"));
        let mut before = before;
        before.retain(|(path, _)| !path.ends_with("lock"));
        assert!(before == after, "{code}: something was changed");

        let page = sandbox.run(["journal", "explain", code]);
        assert_eq!(page.code, 0);
        assert!(page.stdout.starts_with(&format!("# {code}\n")));
    }
}

/// The way out that the pages name: rescue, reset, import.
///
/// Proves: JRN-16, JRN-21
#[test]
fn what_verifies_is_rescued_and_imported_after_a_reset() {
    let sandbox = Sandbox::new();
    let dir = journal(&sandbox);
    let name = dir.to_str().unwrap();
    flip(&segment(&dir, 4), 7000);
    let file = sandbox.path("rescued.jsonl");
    let to = file.to_str().unwrap();
    let export = sandbox.run(["journal", "export", name, "--salvage", "--to", to]);
    assert_eq!(export.code, 3, "{}", export.stderr);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1 + 11 + 1 + 1, "{}", export.stderr);
    assert!(text.contains(r#"{"gap":{"cause":"FRAME_CORRUPT","from":5,"to":5"#));

    let reset = sandbox.run(["journal", "reset", name, "--reason", "bit rot"]);
    assert_eq!(reset.code, 0, "{}", reset.stderr);
    assert!(
        fs::read_to_string(dir.join("audit"))
            .unwrap()
            .contains("bit rot")
    );
    let refused = sandbox.run(["journal", "import", to, name]);
    refused.is_refused_naming("gaps");
    let import = ["journal", "import", to, name, "--accept-gaps"];
    for _ in 0..2 {
        let import = sandbox.run(import);
        assert_eq!(import.code, 0, "{}", import.stderr);
    }
    let (exit, report) = sandbox.json(["journal", "verify", name]);
    assert_eq!(exit, 0, "{report}");
    assert_eq!(report["generation"], 2);
    // The record of the reset, and those that were rescued.
    assert_eq!(report["records"], 12);
    let aside = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir() && path.to_string_lossy().contains("reset-1-"))
        .expect("the reset moved everything aside");
    let (exit, report) = sandbox.json(["journal", "verify", aside.to_str().unwrap()]);
    assert_eq!((exit, &report["cause"]), (1, &"FRAME_CORRUPT".into()));
}

/// It was told as records that are missing, and the import asked to accept gaps where there are none.
#[test]
fn a_damaged_header_costs_no_record_and_is_no_gap() {
    let sandbox = Sandbox::new();
    let dir = journal(&sandbox);
    let name = dir.to_str().unwrap();
    flip(&segment(&dir, 4), 100);
    let inspect = sandbox.run(["journal", "inspect", name]);
    let text = inspect.stdout;
    assert!(text.contains("after it, records go on with 4\n"), "{text}");
    assert!(text.contains("1 damage in all; 12 records"), "{text}");
    let file = sandbox.path("rescued.jsonl");
    let to = file.to_str().unwrap();
    let export = sandbox.run(["journal", "export", name, "--salvage", "--to", to]);
    assert_eq!(export.code, 0, "{}", export.stderr);
    let empty = sandbox.path("empty");
    let import = sandbox.run(["journal", "import", to, empty.to_str().unwrap()]);
    assert_eq!(import.code, 0, "{}", import.stderr);

    // Without its batches, one gap: the header alone told of the segment.
    zero(&segment(&dir, 4), 4096);
    let gaps = sandbox.run([
        "journal",
        "export",
        name,
        "--salvage",
        "--to",
        to,
        "--force",
    ]);
    assert_eq!(gaps.code, 3, "{}", gaps.stderr);
    assert!(gaps.stderr.contains("1 gap:"), "{}", gaps.stderr);
}

/// It left its files, and the next run refused the directory.
#[test]
fn a_measurement_that_is_stopped_leaves_nothing() {
    let sandbox = Sandbox::new();
    let bench = sandbox.path("bench");
    let mut child = sandbox
        .command([
            "journal",
            "bench",
            bench.to_str().unwrap(),
            "--seconds",
            "600",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    while !bench.join("raw").exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    run.is_refused_naming("stopped by a signal");
    assert!(!bench.exists(), "{}", run.stderr);
}

/// One such file ended the rescue of all others.
///
/// Proves: JRN-21
#[test]
fn a_segment_that_is_no_file_is_a_failed_check_and_all_others_are_rescued() {
    let sandbox = Sandbox::new();
    let dir = journal(&sandbox);
    let name = dir.to_str().unwrap();
    fs::remove_file(segment(&dir, 4)).unwrap();
    fs::create_dir(segment(&dir, 4)).unwrap();
    let (exit, report) = sandbox.json(["journal", "verify", name]);
    assert_eq!(exit, 1, "{report}");
    assert_eq!(report["cause"], "SEGMENT_HEADER_CORRUPT", "{report}");
    let text = sandbox.run(["journal", "verify", name]).stdout;
    assert!(text.contains("FAIL  JRN-2"), "{text}");
    assert!(text.contains("is not a regular file"), "{text}");
    let inspect = sandbox.run(["journal", "inspect", name]);
    assert_eq!(inspect.code, 1, "{}", inspect.stderr);
    let export = sandbox.run(["journal", "export", name, "--salvage"]);
    assert_eq!(export.code, 3, "{}", export.stderr);
    assert_eq!(export.stdout.lines().count(), 1 + 9 + 1 + 1);
    assert!(export.stdout.contains("is not a regular file"));
}

#[test]
fn an_import_takes_only_a_whole_export_into_an_empty_journal() {
    let sandbox = Sandbox::new();
    let dir = journal(&sandbox);
    let export = sandbox.run(["journal", "export", dir.to_str().unwrap()]);
    assert_eq!(export.code, 0, "{}", export.stderr);
    let whole = export.stdout;
    let end = whole.trim_end().rfind('\n').unwrap();
    let cases = [
        (
            "a changed record",
            whole.replacen("ZZ", "ZY", 1),
            "checksum",
        ),
        ("no trailer", whole[..=end].to_owned(), "trailer"),
        ("half a line", whole[..end - 10].to_owned(), "line"),
        (
            "more behind it",
            format!("{whole}{{}}\n"),
            "behind its trailer",
        ),
        ("nothing", String::new(), "empty"),
        ("another file", "hello\n".to_owned(), "no export"),
    ];
    for (what, text, told) in cases {
        let file = sandbox.file("export.jsonl", text);
        let into = sandbox.path("into");
        let args = [
            "journal",
            "import",
            file.to_str().unwrap(),
            into.to_str().unwrap(),
        ];
        let import = sandbox.run(args);
        import.is_refused_naming(told);
        assert!(!into.exists(), "{what}: something was made");
    }
    let file = sandbox.file("export.jsonl", &whole);
    let import = ["journal", "import", file.to_str().unwrap(), "--dir"];
    let full = sandbox.run([&import[..], &[dir.to_str().unwrap()]].concat());
    full.is_refused_naming("only a new or an empty one");
    let into = sandbox.path("into");
    let into = into.to_str().unwrap();
    assert_eq!(sandbox.run([&import[..], &[into]].concat()).code, 0);
    let again = sandbox.run(["journal", "export", into]);
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.contains("\"lsn\""))
            .map(str::to_owned)
            .collect()
    };
    assert!(lines(&again.stdout) == lines(&whole), "other records");
}

#[test]
fn a_torn_tail_is_told_then_cut_and_kept() {
    let sandbox = Sandbox::new();
    let dir = journal(&sandbox);
    let name = dir.to_str().unwrap();
    let end = BATCHES[2] + 2064;
    assert!(end < SEGMENT_LEN);
    change(&segment(&dir, 10), |bytes| {
        let end = usize::try_from(end).unwrap();
        bytes[end..end + 4].copy_from_slice(b"torn");
    });
    let (exit, report) = sandbox.json(["journal", "verify", name]);
    assert_eq!(exit, 0, "a torn tail is no damage: {report}");
    assert_eq!(report["tail"]["bytes"], 4, "{report}");
    let dry = sandbox.run(["journal", "repair", "--dry-run", name]);
    assert!(dry.stdout.contains("4 bytes"), "{}", dry.stdout);
    let repair = sandbox.run(["journal", "repair", name]);
    assert!(repair.stdout.contains("cut 4 bytes"), "{}", repair.stdout);
    let (_, report) = sandbox.json(["journal", "verify", name]);
    assert_eq!(report["quarantined"][0]["bytes"], 4, "{report}");
    assert_eq!(report["quarantined"][0]["verifies"], true);
    let kept = fs::read_dir(dir.join("quarantine"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "bytes"))
        .unwrap();
    flip(&kept, 0);
    let (exit, report) = sandbox.json(["journal", "verify", name]);
    assert_eq!(exit, 1, "{report}");
}

#[test]
fn a_journal_is_found_in_its_data_directory_and_never_guessed() {
    let sandbox = Sandbox::new();
    sandbox
        .run(["journal", "verify"])
        .is_refused_naming("no journal");
    let load = run(
        &sandbox,
        &["load", "run", "--commits", "3", "--writers", "1"],
    );
    assert_eq!(load.code, 0, "{}", load.stderr);
    let data = sandbox.data_dir().join("load");
    let verify = sandbox.run(["journal", "verify", "--dir", data.to_str().unwrap()]);
    assert_eq!(verify.code, 0, "{}", verify.stderr);
    assert!(verify.stderr.contains("load/journal"), "{}", verify.stderr);
    fs::create_dir(data.join("events")).unwrap();
    fs::create_dir(data.join("events/journal")).unwrap();
    fs::copy(
        data.join("journal/identity"),
        data.join("events/journal/identity"),
    )
    .unwrap();
    sandbox
        .run(["journal", "verify", data.to_str().unwrap()])
        .is_refused_naming("more than one journal");
    let bench = sandbox.run(["journal", "bench", data.to_str().unwrap()]);
    bench.is_refused_naming("not empty");
}
