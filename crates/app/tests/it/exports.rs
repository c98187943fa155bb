//! What is exported, of a record made to break whatever writes it down.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    holdfast::{Run, Sandbox, repository},
    hostile_fleet::{self, NEVER_SCANNED, PLAIN, WAIVED, hostile_name},
    schema,
};

/// Formats of a state.
const STATES: [&str; 7] = ["jsonl", "csv", "html", "oscal", "xccdf", "sarif", "junit"];

fn fleet() -> Sandbox {
    let sandbox = Sandbox::new();
    hostile_fleet::make(&sandbox.data_dir());
    sandbox
}

fn export(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut whole = vec!["export"];
    whole.extend(args);
    let run = sandbox.run(whole);
    assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
    run.stdout
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn of_type<'v>(lines: &'v [Value], kind: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// The verdicts that stand, by host and rule, as the ledger's own words have them.
fn verdicts(sandbox: &Sandbox) -> BTreeMap<(String, String), String> {
    let lines = lines(&export(sandbox, &["--format", "jsonl"]));
    of_type(&lines, "verdict")
        .into_iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            ((text("host"), text("rule")), text("verdict"))
        })
        .collect()
}

fn count(verdicts: &BTreeMap<(String, String), String>, wanted: &str) -> usize {
    verdicts
        .values()
        .filter(|verdict| *verdict == wanted)
        .count()
}

/// Well-formed, by a parser of others; gives each element with its attributes and text.
fn elements(text: &str) -> Vec<(String, BTreeMap<String, String>, String)> {
    use quick_xml::{Reader, XmlVersion, events::Event};
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open = Vec::new();
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                let attributes = tag.attributes().map(|attribute| {
                    let attribute = attribute.unwrap();
                    let value = attribute.normalized_value(XmlVersion::Implicit1_0).unwrap();
                    (attribute.key.as_ref().to_owned(), value.into_owned())
                });
                open.push(found.len());
                found.push((
                    tag.name().as_ref().to_owned(),
                    attributes.collect(),
                    String::new(),
                ));
            }
            Event::Text(text) => {
                if let Some(&at) = open.last() {
                    found[at].2.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(name) => {
                let text = quick_xml::escape::resolve_predefined_entity(&name).unwrap();
                found[*open.last().unwrap()].2.push_str(text);
            }
            Event::End(_) => drop(open.pop()),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty());
    found
}

/// Proves: LED-11
#[test]
fn what_could_not_be_assessed_is_a_pass_in_no_format() {
    let sandbox = fleet();
    let verdicts = verdicts(&sandbox);
    let passes = count(&verdicts, "pass");
    assert!(passes > 0 && count(&verdicts, "not_assessed") > 0 && count(&verdicts, "error") > 0);

    let sarif: Value = serde_json::from_str(&export(&sandbox, &["-f", "sarif"])).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), verdicts.len());
    let kinds = |wanted: &str| results.iter().filter(|it| it["kind"] == wanted).count();
    assert_eq!(kinds("pass"), passes);
    assert_eq!(
        kinds("open"),
        count(&verdicts, "not_assessed") + count(&verdicts, "error")
    );

    let xccdf = elements(&export(&sandbox, &["-f", "xccdf"]));
    let said = |wanted: &str| {
        let results = xccdf.iter().filter(|(name, ..)| name == "result");
        results.filter(|(.., text)| text == wanted).count()
    };
    assert_eq!(said("pass"), passes);
    assert_eq!(said("unknown"), count(&verdicts, "not_assessed"));
    assert_eq!(said("error"), count(&verdicts, "error"));

    let junit = elements(&export(&sandbox, &["-f", "junit"]));
    let named = |wanted: &str| junit.iter().filter(|(name, ..)| name == wanted).count();
    // Each host has a case of its own for its scan, which is an error where there was none.
    let clean = named("testcase") - named("failure") - named("error") - named("skipped");
    assert_eq!(clean, passes + 2);

    let csv = export(&sandbox, &["-f", "csv"]);
    let rows = csv.lines().skip(1).filter(|line| line.contains(",pass,"));
    assert_eq!(rows.count(), passes);

    let ocsf = lines(&export(&sandbox, &["-f", "ocsf"]));
    for event in &ocsf {
        let is_pass = event["unmapped"]["verdict"] == "pass";
        assert_eq!(event["compliance"]["status_id"] == 1, is_pass, "{event}");
    }

    let oscal: Value = serde_json::from_str(&export(&sandbox, &["-f", "oscal"])).unwrap();
    for result in oscal["assessment-results"]["results"].as_array().unwrap() {
        let verdict_of: BTreeMap<&str, &str> = result["observations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| {
                let property = it["props"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|p| p["name"] == "verdict");
                (
                    it["uuid"].as_str().unwrap(),
                    property.unwrap()["value"].as_str().unwrap(),
                )
            })
            .collect();
        for finding in result["findings"].as_array().into_iter().flatten() {
            let related = finding["related-observations"].as_array().unwrap();
            let all_fine = related.iter().all(|it| {
                let verdict = verdict_of[it["observation-uuid"].as_str().unwrap()];
                ["pass", "not_applicable"].contains(&verdict)
            });
            let is_satisfied = finding["target"]["status"]["state"] == "satisfied";
            assert_eq!(is_satisfied, all_fine, "{finding}");
        }
    }
}

/// Proves: LED-11
#[test]
fn sarif_and_json_lines_are_what_their_schemas_say() {
    let sandbox = fleet();
    let empty = Sandbox::new();
    hostile_fleet::make_empty(&empty.data_dir());
    let text = std::fs::read_to_string(repository("fixtures/schemas/sarif-2.1.0.json")).unwrap();
    // One pattern of the schema, of a language that is not written here, has a bracket too many.
    let schema: Value = serde_json::from_str(&text.replace("{2}]?$", "{2}$")).unwrap();
    let validator = jsonschema::draft7::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    for place in [&sandbox, &empty] {
        let sarif: Value = serde_json::from_str(&export(place, &["-f", "sarif"])).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&sarif)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}");
        for args in [vec!["-f", "jsonl"], vec!["-f", "jsonl", "--since", "30d"]] {
            let lines = lines(&export(place, &args));
            assert_eq!(lines.last().unwrap()["type"], "end");
            for line in &lines {
                schema::check("export", line);
            }
        }
    }
}

#[test]
fn words_of_a_host_stay_words_in_every_format() {
    let sandbox = fleet();
    for format in STATES.into_iter().chain(["ocsf"]) {
        let text = export(&sandbox, &["-f", format]);
        let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{ffff}';
        if ["csv", "html", "xccdf", "junit"].contains(&format) {
            assert_eq!(text.find(hidden), None, "{format}");
        }
        if ["csv", "html", "junit"].contains(&format) {
            assert!(!text.contains('\u{202e}'), "{format}");
        }
        match format {
            "html" => {
                assert!(!text.contains("<script"), "{format}");
                assert!(
                    !text.contains("http://") && !text.contains("https://"),
                    "nothing is fetched"
                );
                assert!(text.contains("default-src 'none'"));
                assert!(text.contains("never scanned") || text.contains("Never scanned"));
            }
            "xccdf" | "junit" => assert!(elements(&text).len() > 10),
            "csv" => {
                for record in csv_records(&text) {
                    assert_eq!(record.len(), 18);
                    let formula = |cell: &String| cell.starts_with(['=', '+', '-', '@', '\t']);
                    assert_eq!(record.iter().find(|cell| formula(cell)), None);
                }
            }
            "sarif" | "oscal" => drop(serde_json::from_str::<Value>(&text).unwrap()),
            _ => drop(lines(&text)),
        }
    }
    let hosts = lines(&export(&sandbox, &["-f", "jsonl"]));
    let names: Vec<&str> = of_type(&hosts, "host")
        .iter()
        .map(|host| host["host"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&hostile_name().as_str()),
        "JSON has the exact name"
    );
}

fn csv_records(text: &str) -> Vec<Vec<String>> {
    let mut records = Vec::new();
    for line in text.lines() {
        let mut cells = vec![String::new()];
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(String::new()),
                c => cells.last_mut().unwrap().push(c),
            }
        }
        records.push(cells);
    }
    records
}

#[test]
fn one_moment_gives_the_same_bytes_and_another_moment_its_own() {
    let sandbox = Sandbox::new();
    let moments = hostile_fleet::make(&sandbox.data_dir());
    let between = format!(
        "{}",
        jiff::Timestamp::from_nanosecond(i128::from(moments.between.nanos())).unwrap()
    );
    for format in STATES {
        let first = export(&sandbox, &["-f", format, "--at", &between]);
        let second = export(&sandbox, &["-f", format, "--at", &between]);
        assert!(first == second, "{format} differs from one run to the next");
    }
    let then = lines(&export(&sandbox, &["-f", "jsonl", "--at", &between]));
    let of = |lines: &[Value], rule: &str| -> String {
        let rows = of_type(lines, "verdict");
        let row = rows
            .iter()
            .find(|row| row["rule"] == rule && row["host"] == PLAIN);
        row.unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(of(&then, "ssh-root-login-off"), "fail");
    let now = lines(&export(&sandbox, &["-f", "jsonl"]));
    assert_eq!(of(&now, "ssh-root-login-off"), "pass");
    let waived: Vec<bool> = [&then, &now]
        .map(|lines| {
            let rows = of_type(lines, "verdict");
            rows.iter()
                .any(|row| row["rule"] == WAIVED && row["waiver"].is_object())
        })
        .to_vec();
    assert_eq!(waived, [false, true], "a waiver holds from its approval on");
}

/// Proves: LED-11
#[test]
fn evidence_that_is_exported_has_the_digest_of_the_ledger() {
    let sandbox = fleet();
    let digest = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let text = export(&sandbox, &["-f", "jsonl"]);
    let mut seen = 0;
    for line in text
        .lines()
        .filter(|line| line.starts_with(r#"{"type":"evidence""#))
    {
        let (head, document) = line.split_once(r#""document":"#).unwrap();
        let document = document.strip_suffix('}').unwrap();
        assert!(head.contains(&digest(document.as_bytes())), "{line}");
        seen += 1;
    }
    let oscal: Value = serde_json::from_str(&export(&sandbox, &["-f", "oscal"])).unwrap();
    let resources = oscal["assessment-results"]["back-matter"]["resources"]
        .as_array()
        .unwrap();
    for resource in resources.iter().filter(|it| it["base64"].is_object()) {
        let content = BASE64_STANDARD
            .decode(resource["base64"]["value"].as_str().unwrap())
            .unwrap();
        assert_eq!(
            resource["rlinks"][0]["hashes"][0]["value"],
            digest(&content).as_str()
        );
        seen -= 1;
    }
    assert_eq!(seen, 0, "both have all of it");
}

#[test]
fn a_change_is_an_event_and_a_finding_keeps_its_name() {
    let sandbox = fleet();
    let events = lines(&export(&sandbox, &["-f", "ocsf", "--host", PLAIN]));
    let of = |rule: &str| -> Vec<&Value> {
        let found = events
            .iter()
            .filter(|it| it["compliance"]["control"] == rule);
        found.collect()
    };
    let mended = of("ssh-root-login-off");
    let activities: Vec<u64> = mended
        .iter()
        .map(|it| it["activity_id"].as_u64().unwrap())
        .collect();
    assert_eq!(activities, [1, 3], "created, then closed");
    assert_eq!(
        mended[0]["finding_info"]["uid"],
        mended[1]["finding_info"]["uid"]
    );
    assert_ne!(mended[0]["metadata"]["uid"], mended[1]["metadata"]["uid"]);
    let broken = of("root-only-uid-zero");
    assert_eq!(broken[1]["activity_id"], 2, "opened again");
    let since = lines(&export(&sandbox, &["-f", "ocsf", "--since", "7d"]));
    assert_eq!(since.len(), 4, "two hosts, two flips each");
    let csv = export(&sandbox, &["-f", "csv", "--since", "7d", "--until", "6d"]);
    assert_eq!(csv.lines().count(), 1, "only the header");
}

#[test]
fn hosts_are_chosen_by_name_group_and_site() {
    let sandbox = fleet();
    let hosts = |args: &[&str]| -> Vec<String> {
        let mut whole = vec!["-f", "jsonl"];
        whole.extend(args);
        let lines = lines(&export(&sandbox, &whole));
        of_type(&lines, "host")
            .iter()
            .map(|host| host["host"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(hosts(&["--host", PLAIN]), [PLAIN]);
    assert_eq!(hosts(&["--group", "new"]), [NEVER_SCANNED]);
    assert_eq!(hosts(&["--site", "north"]), [NEVER_SCANNED, PLAIN]);
    assert_eq!(hosts(&["--all"]).len(), 3);
    for (args, named) in [
        (["--host", "nobody"], "nobody"),
        (["--group", "none"], "none"),
        (["--site", "nowhere"], "nowhere"),
    ] {
        let mut whole = vec!["export", "-f", "csv", "--to", "out"];
        whole.extend(args);
        let out = sandbox.path("out").display().to_string();
        whole[4] = &out;
        sandbox.run(whole).is_refused_naming(named);
        assert!(!sandbox.path("out").exists(), "nothing is left behind");
    }
}

#[test]
fn what_cannot_be_exported_is_refused_with_a_way_out() {
    let sandbox = fleet();
    for (args, named) in [
        (
            vec!["export", "-f", "docx"],
            "jsonl, csv, html, oscal, xccdf, sarif, ocsf, junit",
        ),
        (vec!["export", "-f", "ocsf", "--at", "now"], "ocsf"),
        (vec!["export", "-f", "oscal", "--since", "2d"], "oscal"),
        (vec!["export", "-f", "csv", "--at", "2999-01-01"], "future"),
        (
            vec!["export", "-f", "csv", "--since", "1d", "--until", "2d"],
            "--since",
        ),
    ] {
        sandbox.run(args).is_refused_naming(named);
    }
    let kept = sandbox.file("kept.csv", "mine");
    let to = ["export", "-f", "csv", "--to", kept.to_str().unwrap()];
    sandbox.run(to).is_refused_naming("kept.csv");
    assert_eq!(std::fs::read(&kept).unwrap(), b"mine");
    let run = sandbox.run(to.into_iter().chain(["--force"]));
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    assert!(
        std::fs::read_to_string(&kept)
            .unwrap()
            .starts_with("host,site")
    );
    let beside: Vec<_> = std::fs::read_dir(kept.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".tmp"))
        .collect();
    assert_eq!(beside, Vec::<String>::new());
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let sandbox = fleet();
    let mut child = sandbox
        .command(["export", "-f", "oscal"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 10]).unwrap();
    drop(out);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn an_export_without_a_host_says_so_and_is_whole() {
    let sandbox = Sandbox::new();
    hostile_fleet::make_empty(&sandbox.data_dir());
    for format in STATES {
        let text = export(&sandbox, &["-f", format]);
        assert!(!text.is_empty(), "{format}");
        match format {
            "html" => assert!(text.contains("No host was watched")),
            "oscal" => assert!(text.contains("nothing was assessed")),
            "xccdf" | "junit" => drop(elements(&text)),
            _ => {}
        }
    }
    assert_eq!(export(&sandbox, &["-f", "ocsf"]), "");
}

/// A full device, as a pipe to it behaves: what is printed is not whole, and the exit code says so.
#[test]
fn what_could_not_be_written_is_not_called_done() {
    let sandbox = fleet();
    let command = sandbox.command(["export", "-f", "oscal"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" export -f oscal > /dev/full"])
        .arg(command.get_program());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(key, value);
        }
    }
    let run = Run::of(shell.stdin(Stdio::null()).output().unwrap());
    run.is_refused_naming("export");
}

/// Names in the directory where an export is to go.
fn left(dir: &std::path::Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Interrupted in the midst, once the file is begun under its other name. An export that was quicker is
/// whole; it is tried until one was not.
fn interrupt(sandbox: &Sandbox, args: &[&str], whole: &str) {
    for _ in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        let mut child = sandbox
            .command(args)
            .arg("--to")
            .arg(&to)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        while left(dir.path()).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let pid = rustix::process::Pid::from_child(&child);
        // One that has ended already takes no signal.
        let _sent = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let run = Run::of(child.wait_with_output().unwrap());
        if run.code == 0 {
            assert_eq!(left(dir.path()), ["out"], "{args:?}");
            assert!(run.stderr.contains(whole), "{args:?}: {}", run.stderr);
            continue;
        }
        assert_eq!(left(dir.path()), [""; 0], "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("stopped"), "{args:?}: {}", run.stderr);
        return;
    }
    panic!("{args:?}: none was interrupted before its end");
}

/// Proves: LED-11
#[test]
fn an_export_that_is_interrupted_leaves_no_half_file() {
    let sandbox = fleet();
    interrupt(&sandbox, &["export", "--format", "jsonl"], " verdicts of ");
    interrupt(&sandbox, &["ledger", "export"], "verify it with");
}
