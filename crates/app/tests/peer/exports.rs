//! Exports, read by the official schema or tool of each format; and results of oscap, taken in.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    Peer,
    holdfast::{Run, Sandbox, repository},
    hostile_fleet,
};

static XMLLINT: Peer = Peer::new("xmllint", "HOLDFAST_PEER_XMLLINT", "/usr/bin/xmllint");
static OSCAP: Peer = Peer::new("oscap", "HOLDFAST_PEER_OSCAP", "/usr/bin/oscap");
static CONTENT: Peer = Peer::new(
    "SCAP Security Guide for Debian 11 (ssg-debian, with oscap)",
    "HOLDFAST_PEER_SSG",
    "/usr/share/xml/scap/ssg/content/ssg-debian11-ds.xml",
);
static MODELS: Peer = Peer::new(
    "compliance-trestle and py-ocsf-models",
    "HOLDFAST_PEER_MODELS",
    "target/peers/models/bin/python",
);

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        XMLLINT.test("junit_is_what_the_schema_of_jenkins_says", junit),
        OSCAP.test("xccdf_is_what_oscap_calls_valid", xccdf),
        MODELS.test(
            "oscal_is_read_by_models_made_from_the_schema_of_nist",
            oscal,
        ),
        MODELS.test("ocsf_is_read_by_the_models_of_others", ocsf),
        CONTENT.test(
            "a_report_of_oscap_is_taken_in_once_however_it_is_wrapped",
            report,
        ),
    ]
}

/// A hostile fleet, an empty one, and a real scan of this machine.
fn places() -> Vec<(&'static str, Sandbox)> {
    let hostile = Sandbox::new();
    hostile_fleet::make(&hostile.data_dir());
    let empty = Sandbox::new();
    hostile_fleet::make_empty(&empty.data_dir());
    let real = Sandbox::new();
    let run = real.run(["scan", "--no-walk", "--quiet"]);
    assert!([0, 1, 3].contains(&run.code), "{}", run.stderr);
    vec![("hostile", hostile), ("empty", empty), ("real", real)]
}

fn export(sandbox: &Sandbox, format: &str) -> PathBuf {
    let file = sandbox.path(&format!("export.{format}"));
    let to = ["export", "--format", format, "--to", file.to_str().unwrap()];
    let run = sandbox.run(to);
    assert_eq!(run.code, 0, "{}", run.stderr);
    file
}

fn run(command: &mut Command) -> Run {
    Run::of(
        command
            .stdin(Stdio::null())
            .output()
            .expect("it is installed"),
    )
}

/// Proves: LED-11
fn junit(xmllint: &Peer) {
    let schema = repository("fixtures/schemas/junit-10.xsd");
    for (place, sandbox) in places() {
        let checked = run(Command::new(xmllint.path())
            .args(["--noout", "--nonet", "--schema"])
            .arg(&schema)
            .arg(export(&sandbox, "junit")));
        assert_eq!(checked.code, 0, "{place}: {}", checked.stderr);
    }
}

/// Proves: LED-11
fn xccdf(oscap: &Peer) {
    for (place, sandbox) in places() {
        let file = export(&sandbox, "xccdf");
        let checked = run(Command::new(oscap.path())
            .args(["xccdf", "validate"])
            .arg(&file));
        assert_eq!(
            checked.code, 0,
            "{place}: {}{}",
            checked.stdout, checked.stderr
        );
        let told = run(Command::new(oscap.path()).arg("info").arg(&file));
        assert!(
            told.stdout.contains("Checklist version: 1.2"),
            "{}",
            told.stdout
        );
        let results = told.stdout.matches("Result ID:").count();
        let expected = [("hostile", 2), ("empty", 0), ("real", 1)];
        assert!(
            expected.contains(&(place, results)),
            "{place}: {}",
            told.stdout
        );
        if place == "hostile" {
            let taken = import(&sandbox, &file);
            taken.is_refused_naming("is no host name");
            comes_back(&sandbox);
        }
    }
}

fn import(sandbox: &Sandbox, file: &Path) -> Run {
    sandbox.run(["import".as_ref(), "xccdf".as_ref(), file.as_os_str()])
}

/// What is exported of a host whose name is all seen can be imported: the same words come back.
fn comes_back(sandbox: &Sandbox) {
    let shown = sandbox.run([
        "export",
        "--format",
        "xccdf",
        "--host",
        hostile_fleet::PLAIN,
    ]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let taken = import(sandbox, &sandbox.file("plain.xccdf", shown.stdout));
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    let (_, list) = sandbox.json(["import", "list", "--host", hostile_fleet::PLAIN]);
    let counts = &list["imported"][0]["counts"];
    assert_eq!(
        (
            &counts["pass"],
            &counts["fail"],
            &counts["unknown"],
            &counts["error"]
        ),
        (&2.into(), &2.into(), &2.into(), &1.into())
    );
}

fn model(python: &Peer, script: &str, file: &Path) -> Value {
    let script = repository("crates/app/tests/peer").join(script);
    let read = run(Command::new(python.path())
        .args(["-W", "ignore"])
        .arg(script)
        .arg(file));
    assert_eq!(read.code, 0, "{}", read.stderr);
    serde_json::from_str(&read.stdout).unwrap()
}

/// Proves: LED-11
fn oscal(python: &Peer) {
    for (place, sandbox) in places() {
        let read = model(python, "oscal_model.py", &export(&sandbox, "oscal"));
        assert_eq!(read["version"], "1.1.3");
        let results = match place {
            "hostile" => 3,
            _ => 1,
        };
        assert_eq!(read["results"], results, "{place}: {read}");
        assert_eq!(
            read["observations"] == 0,
            place == "empty",
            "{place}: {read}"
        );
    }
}

/// Proves: LED-11
fn ocsf(python: &Peer) {
    for (place, sandbox) in places() {
        let read = model(python, "ocsf_model.py", &export(&sandbox, "ocsf"));
        assert_eq!(read["events"] == 0, place == "empty", "{place}: {read}");
    }
}

/// Proves: LED-11
fn report(content: &Peer) {
    let sandbox = Sandbox::new();
    let (results, container) = (sandbox.path("results.xml"), sandbox.path("arf.xml"));
    let profile = "xccdf_org.ssgproject.content_profile_standard";
    let evaluated = run(Command::new(OSCAP.path())
        .args(["xccdf", "eval", "--profile", profile, "--results"])
        .arg(&results)
        .arg("--results-arf")
        .arg(&container)
        .arg(content.path()));
    assert!([0, 2].contains(&evaluated.code), "{}", evaluated.stderr);
    let import = |file: &Path| {
        let (code, taken) = sandbox.json(["import".as_ref(), "xccdf".as_ref(), file.as_os_str()]);
        assert_eq!(code, 0);
        (
            taken["added"].as_array().unwrap().clone(),
            taken["known"].clone(),
        )
    };
    let (added, _) = import(&results);
    assert_eq!(added.len(), 1);
    let counts: u64 = added[0]["counts"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert!(
        counts > 300,
        "every rule of the benchmark has a word: {added:?}"
    );
    assert_eq!(added[0]["profile"], profile);
    assert_eq!(
        import(&container),
        (vec![], 1.into()),
        "the same result in a container"
    );
}
