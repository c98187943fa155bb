//! Where oscap and Holdfast judge the same thing, and why they differ where they do.
//!
//! ```sh
//! apt-get install openscap-scanner ssg-base ssg-debderived
//! cd benches && cargo run --release --bin agreement -- ../target/release/holdfast > ../docs/agreement.md
//! ```
//!
//! Both look at this machine, one after the other. Debian 12 has no content of its own, and oscap skips
//! all of Ubuntu's there, so the platform filters are taken out of a scratch copy of the data stream. Exits
//! with 1 when a disagreement has no explanation in `agreement.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use quick_xml::{Reader, events::Event};
use serde::Deserialize;

const CONTENT: &str = "/usr/share/xml/scap/ssg/content/ssg-ubuntu2204-ds.xml";
const PROFILE: &str = "xccdf_org.ssgproject.content_profile_cis_level2_server";
const RULE_PREFIX: &str = "xccdf_org.ssgproject.content_rule_";

/// Rules of oscap that walk the whole file system, each for itself: minutes, for what one walk of ours
/// answers. They are compared by name only: nobody waits for them here.
const WALKS: [&str; 6] = [
    "file_permissions_unauthorized_world_writable",
    "file_permissions_ungroupowned",
    "no_files_unowned_by_user",
    "dir_perms_world_writable_sticky_bits",
    "file_permissions_unauthorized_suid",
    "file_permissions_unauthorized_sgid",
];

#[derive(Deserialize)]
struct Known {
    subject: Vec<Subject>,
    explanation: Vec<Explanation>,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    oscap: Vec<String>,
    ours: Vec<String>,
}

#[derive(Deserialize)]
struct Explanation {
    oscap: String,
    ours: String,
    subjects: BTreeSet<String>,
    because: String,
    why: String,
}

#[derive(Deserialize)]
struct Report {
    verdicts: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    rule: String,
    verdict: String,
    reason: String,
}

struct Row<'k> {
    subject: &'k Subject,
    oscap: String,
    ours: String,
    reason: String,
    agrees: bool,
    explanation: Option<usize>,
}

fn main() -> ExitCode {
    let binary = env::args()
        .nth(1)
        .unwrap_or_else(|| "../target/release/holdfast".to_owned());
    let known: Known = toml::from_str(include_str!("../../agreement.toml"))
        .expect("agreement.toml has the shape of Known");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let begin = Instant::now();
    let oscap = oscap(dir.path());
    let oscap_seconds = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let ours = holdfast(&binary, dir.path());
    let our_seconds = begin.elapsed().as_secs_f64();

    let rows: Vec<Row<'_>> = known
        .subject
        .iter()
        .map(|subject| compare(subject, &oscap, &ours, &known.explanation))
        .collect();
    let unexplained = print(&rows, &known.explanation, oscap.len(), ours.len());
    println!(
        "\noscap took {oscap_seconds:.1} s without its {} rules that walk the file system, Holdfast {our_seconds:.1} s \
         without its walk.",
        WALKS.len()
    );
    if unexplained == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Results by rule, those of the profile only.
fn oscap(dir: &Path) -> BTreeMap<String, String> {
    let content = fs::read_to_string(CONTENT).expect("ssg-debderived is installed");
    let scratch = dir.join("content.xml");
    fs::write(&scratch, without_platforms(&content)).expect("the scratch directory takes a file");
    let results = dir.join("results.xml");
    let mut command = Command::new("oscap");
    command.args(["xccdf", "eval", "--skip-valid", "--profile", PROFILE]);
    for rule in WALKS {
        command
            .arg("--skip-rule")
            .arg(format!("{RULE_PREFIX}{rule}"));
    }
    let status = command
        .arg("--results")
        .arg(&results)
        .arg(&scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openscap-scanner is installed");
    // 2 says that a rule failed.
    assert!(
        matches!(status.code(), Some(0 | 2)),
        "oscap ended with {status}"
    );
    rule_results(&fs::read_to_string(results).expect("oscap wrote its results"))
}

fn without_platforms(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(start) = rest.find("<xccdf-1.2:platform idref=\"") {
        let (before, tag) = rest.split_at(start);
        let end = tag.find("/>").expect("the element is empty") + 2;
        out.push_str(before);
        if !(tag[..end].contains("#machine") || tag[..end].contains("cpe:/o:")) {
            out.push_str(&tag[..end]);
        }
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

fn rule_results(xml: &str) -> BTreeMap<String, String> {
    let mut reader = Reader::from_str(xml);
    let mut results = BTreeMap::new();
    let (mut rule, mut in_result) = (None, false);
    loop {
        match reader.read_event().expect("oscap writes well-formed XML") {
            Event::Start(tag) if tag.local_name().as_ref() == "rule-result" => {
                let id = tag.try_get_attribute("idref").expect("attributes parse");
                rule = id.map(|id| id.value.replace(RULE_PREFIX, ""));
            }
            Event::Start(tag) if tag.local_name().as_ref() == "result" => in_result = true,
            Event::Text(text) if in_result => {
                let text = text.to_string();
                if let (Some(rule), true) = (rule.take(), text != "notselected") {
                    results.insert(rule, text);
                }
                in_result = false;
            }
            Event::Eof => return results,
            _ => {}
        }
    }
}

fn holdfast(binary: &str, dir: &Path) -> BTreeMap<String, Verdict> {
    let output = Command::new(binary)
        .args(["scan", "--no-walk", "--quiet", "--output", "json"])
        .env("HOLDFAST_DATA_DIR", dir.join("data"))
        .output()
        .unwrap_or_else(|error| panic!("{binary}: {error}"));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{binary}: {error}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    report
        .verdicts
        .into_iter()
        .map(|verdict| (verdict.rule.clone(), verdict))
        .collect()
}

fn compare<'k>(
    subject: &'k Subject,
    oscap: &BTreeMap<String, String>,
    ours: &BTreeMap<String, Verdict>,
    explanations: &[Explanation],
) -> Row<'k> {
    let theirs = subject.oscap.iter().map(|rule| {
        oscap
            .get(rule)
            .unwrap_or_else(|| panic!("oscap has no rule {rule}"))
            .as_str()
    });
    let verdicts: Vec<&Verdict> = subject
        .ours
        .iter()
        .map(|rule| ours.get(rule).unwrap_or_else(|| panic!("no rule {rule}")))
        .collect();
    let oscap = fold(theirs.collect());
    let ours = fold(
        verdicts
            .iter()
            .map(|verdict| verdict.verdict.as_str())
            .collect(),
    );
    let reason = verdicts
        .iter()
        .find(|verdict| verdict.verdict == ours)
        .map(|verdict| verdict.reason.clone())
        .unwrap_or_default();
    let agrees = ours.replace('_', "") == oscap;
    let explanation = explanations.iter().position(|explanation| {
        !agrees
            && explanation.oscap == oscap
            && explanation.ours == ours
            && explanation.subjects.contains(&subject.name)
            && reason.contains(&explanation.because)
    });
    Row {
        subject,
        oscap,
        ours,
        reason,
        agrees,
        explanation,
    }
}

/// One failure fails the subject; what does not apply leaves the rest to decide.
fn fold(results: Vec<&str>) -> String {
    let of = |result: &str| results.contains(&result);
    if of("fail") {
        return "fail".to_owned();
    }
    let open = results
        .iter()
        .find(|result| !matches!(**result, "pass" | "notapplicable" | "not_applicable"));
    match open {
        Some(open) => (*open).to_owned(),
        None if of("pass") => "pass".to_owned(),
        None => results.first().copied().unwrap_or_default().to_owned(),
    }
}

/// The document; how many disagreements nobody explained.
fn print(rows: &[Row<'_>], explanations: &[Explanation], theirs: usize, ours: usize) -> usize {
    let agreed = rows.iter().filter(|row| row.agrees).count();
    let unexplained: Vec<&Row<'_>> = rows
        .iter()
        .filter(|row| !row.agrees && row.explanation.is_none())
        .collect();
    println!(
        "# Agreement with oscap\n\nWritten by `benches/src/bin/agreement.rs`; do not edit.\n\n\
         oscap judged {theirs} rules of Ubuntu 22.04's CIS profile (ssg-debderived, platform filters taken out of a\n\
         scratch copy) and Holdfast {ours} of its own on one machine. They have {} subjects in common: {agreed} times\n\
         the same result, {} times another that is explained below, {} times one that is not.\n",
        rows.len(),
        rows.len() - agreed - unexplained.len(),
        unexplained.len()
    );
    for row in &unexplained {
        println!(
            "- **unexplained**: {}: oscap {}, Holdfast {} ({})",
            row.subject.name, row.oscap, row.ours, row.reason
        );
    }
    println!("\n## Where they differ\n\n| subjects | oscap | Holdfast | why |\n|---|---|---|---|");
    for (index, explanation) in explanations.iter().enumerate() {
        let subjects: Vec<&str> = rows
            .iter()
            .filter(|row| row.explanation == Some(index))
            .map(|row| row.subject.name.as_str())
            .collect();
        if !subjects.is_empty() {
            println!(
                "| {} | {} | {} | {} |",
                subjects.join(", "),
                explanation.oscap,
                explanation.ours,
                explanation.why
            );
        }
    }
    println!(
        "\n## Every subject\n\n| subject | oscap | Holdfast | rules of oscap | rules of Holdfast |\n|---|---|---|---|---|"
    );
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} |",
            row.subject.name,
            row.oscap,
            row.ours,
            row.subject.oscap.join(" "),
            row.subject.ours.join(" ")
        );
    }
    unexplained.len()
}
