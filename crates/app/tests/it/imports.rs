//! What other tools found, taken in: what is kept, what is refused, and that the record stays as it is.

use serde_json::{Value, json};

use crate::{
    facts::bundle,
    holdfast::{Run, Sandbox},
    schema,
};

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_org.ssgproject.content_benchmark_DEBIAN-11">
<Rule id="xccdf_org.ssgproject.content_rule_accounts_no_uid_except_zero"><title>Only <sub>root</sub> &amp; nobody &#101;lse</title></Rule>
"#;

fn test_result(attributes: &str, inside: &str) -> String {
    format!(
        r#"<TestResult id="xccdf_t_testresult_1" start-time="2026-03-01T08:00:00+01:00" {attributes} test-system="cpe:/a:redhat:openscap:1.3.7">
<benchmark href="/usr/share/a.xml" id="xccdf_org.ssgproject.content_benchmark_DEBIAN-11"/>
<profile idref="xccdf_org.ssgproject.content_profile_standard"/>
<target>press-3</target><target-facts><fact name="a">b</fact></target-facts>{inside}
<score system="urn:xccdf:scoring:default">1</score></TestResult>"#
    )
}

fn result(rule: &str, word: &str) -> String {
    format!(
        r#"<rule-result idref="xccdf_org.ssgproject.content_rule_{rule}" severity="high"><result>{word}</result><check system="x"/></rule-result>"#
    )
}

const WORDS: [&str; 9] = [
    "pass",
    "fail",
    "error",
    "unknown",
    "notapplicable",
    "notchecked",
    "notselected",
    "informational",
    "fixed",
];

fn every_word() -> String {
    let words: String = WORDS
        .iter()
        .map(|word| result(&format!("a_{word}"), word))
        .collect();
    words + &result("accounts_no_uid_except_zero", "pass")
}

fn whole(attributes: &str, inside: &str) -> String {
    format!("{HEAD}{}</Benchmark>", test_result(attributes, inside))
}

const ENDED: &str = r#"end-time="2026-03-01T08:00:09+01:00""#;

fn import(sandbox: &Sandbox, text: &str) -> Run {
    let file = sandbox.file("results.xml", text);
    sandbox.run(["import".as_ref(), "xccdf".as_ref(), file.as_os_str()])
}

fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let (_, list) = sandbox.json(["import", "list"]);
    list["imported"].as_array().unwrap().clone()
}

/// Proves: LED-11
#[test]
fn a_result_of_another_tool_is_kept_once_and_only_its_pass_is_a_pass() {
    let sandbox = Sandbox::new();
    let text = whole(ENDED, &every_word());
    let run = import(&sandbox, &text);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let first = listed(&sandbox);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["host"], "press-3");
    assert_eq!(first[0]["finished"], "2026-03-01T07:00:09.000Z");
    assert_eq!(first[0]["counts"]["pass"], 2);
    let again = import(&sandbox, &text);
    assert!(again.stdout.contains("nothing new"), "{}", again.stdout);
    assert_eq!(
        listed(&sandbox),
        first,
        "the same file twice changes nothing"
    );

    let id = first[0]["id"].as_str().unwrap();
    let (_, shown) = sandbox.json(["import", "show", &id[..10]]);
    let rules = shown["rules"].as_array().unwrap();
    assert_eq!(
        rules.len(),
        9,
        "what was not selected is counted and not kept"
    );
    for rule in rules {
        let word = rule["result"].as_str().unwrap();
        let expected = match word {
            "pass" => "pass",
            "fail" => "fail",
            "error" => "error",
            "notapplicable" => "not_applicable",
            _ => "not_assessed",
        };
        assert_eq!(rule["verdict"], expected, "{word}");
    }
    let mapped = rules.last().unwrap();
    assert_eq!(mapped["title"], "Only root & nobody else");
    assert_eq!(mapped["ours"], json!(["root-only-uid-zero"]));

    let audit = sandbox.run(["audit", "--output", "csv"]).stdout;
    assert_eq!(audit.matches("import.results").count(), 1, "{audit}");
}

#[test]
fn an_import_is_shown_beside_the_record_and_changes_none_of_it() {
    let sandbox = Sandbox::new();
    let facts = sandbox.file("facts.json", bundle("press-3", "0").to_string());
    let scan = ["scan".as_ref(), "--replay".as_ref(), facts.as_os_str()];
    sandbox.run(scan);
    let status = ["status", "--host", "press-3"];
    let before = sandbox.json(status).1;
    let export = ["export", "-f", "jsonl", "--at", "now"];
    let lines = |run: Run| {
        run.stdout
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let exported = lines(sandbox.run(export));
    assert_eq!(import(&sandbox, &whole(ENDED, &every_word())).code, 0);
    assert_eq!(sandbox.json(status).1, before);
    assert_eq!(lines(sandbox.run(export)), exported);
    let rule = ["history", "root-only-uid-zero", "--host", "press-3"];
    let (_, history) = sandbox.json(rule);
    schema::check("history", &history);
    assert_eq!(history["imported"][0]["result"], "pass");
    assert_eq!(
        history["imported"][0]["rule"],
        "xccdf_org.ssgproject.content_rule_accounts_no_uid_except_zero"
    );
    let table = sandbox.run(rule).stdout;
    assert!(
        table.contains("IMPORTED") && table.contains("accounts_no_uid"),
        "{table}"
    );
}

#[test]
fn what_is_no_result_is_refused_and_leaves_nothing() {
    let deep = format!("{}{}", "<a>".repeat(300), "</a>".repeat(300));
    let long = format!("<a>{}</a>", "x".repeat(9 << 20));
    let good = whole(ENDED, &every_word());
    let bomb = r#"<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>"#;
    let outside = r#"<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>"#;
    let tests: [(&str, &str, &str); 18] = [
        ("an entity bomb", bomb, "document type"),
        ("an external entity", outside, "document type"),
        ("an entity of nobody", "<a>&b;</a>", "entity"),
        ("depth", &deep, "within each other"),
        ("a text without end", &long, "more than 8388608 bytes"),
        ("nothing", "", "no TestResult"),
        ("no XML", "pass,fail", "no TestResult"),
        ("a page", "<html><body/></html>", "no TestResult"),
        ("a cut", &good[..good.find("<score").unwrap()], "cut off"),
        (
            "a cut in the end",
            &good[..good.len() - 3],
            "not well-formed",
        ),
        ("wrong ends", "<a><b></a></b>", "not well-formed"),
        (
            "UTF-16",
            r#"<?xml version="1.0" encoding="UTF-16"?><a/>"#,
            "UTF-16",
        ),
        (
            "a word of nobody",
            &whole(ENDED, &result("a", "passed")),
            "`passed`",
        ),
        (
            "no word",
            &whole(ENDED, r#"<rule-result idref="a"/>"#),
            "without a result",
        ),
        ("no rule", &whole(ENDED, ""), "without a rule-result"),
        ("no end", &whole("", &every_word()), "end-time"),
        (
            "a wrong time",
            &whole(r#"end-time="soon""#, &every_word()),
            "`soon`",
        ),
        (
            "the future",
            &whole(r#"end-time="2199-01-01T00:00:00Z""#, &every_word()),
            "future",
        ),
    ];
    for (what, text, named) in tests {
        let sandbox = Sandbox::new();
        let run = import(&sandbox, text);
        assert_eq!(run.code, 2, "{what}: {}", run.stdout);
        run.is_refused_naming(named);
        assert!(!sandbox.data_dir().exists(), "{what} left something");
    }
}

#[test]
fn one_bad_result_among_good_ones_refuses_the_whole_file() {
    let sandbox = Sandbox::new();
    let two = format!(
        "{HEAD}{}{}</Benchmark>",
        test_result(ENDED, &every_word()),
        test_result(ENDED, &result("a", "maybe"))
    );
    import(&sandbox, &two).is_refused_naming("maybe");
    assert!(!sandbox.data_dir().exists());
    let twice = format!(
        "{HEAD}{}{}</Benchmark>",
        test_result(ENDED, &every_word()),
        test_result(r#"end-time="2026-03-02T08:00:09""#, &every_word())
    );
    assert_eq!(import(&sandbox, &twice).code, 0);
    let listed = listed(&sandbox);
    assert_eq!(listed.len(), 2);
    let zones: Vec<&Value> = listed.iter().map(|it| &it["zone_assumed"]).collect();
    assert_eq!(zones, [false, true]);
}

/// Version 1.1 of XCCDF, and a report as a container, under names of other spaces.
#[test]
fn results_are_found_wherever_they_lie_and_only_those_of_xccdf() {
    let sandbox = Sandbox::new();
    let inner = test_result(ENDED, &every_word()).replacen(
        "<TestResult",
        r#"<TestResult xmlns="http://checklists.nist.gov/xccdf/1.1""#,
        1,
    );
    let other = inner.replace("checklists.nist.gov/xccdf/1.1", "example.org/other");
    let report = format!(
        r#"<arf:asset-report-collection xmlns:arf="http://scap.nist.gov/schema/asset-reporting-format/1.1"><arf:reports><arf:report id="x"><arf:content>{inner}</arf:content></arf:report><arf:report id="y"><arf:content>{other}</arf:content></arf:report></arf:reports></arf:asset-report-collection>"#
    );
    assert_eq!(import(&sandbox, &report).code, 0);
    assert_eq!(listed(&sandbox).len(), 1);
    let file = sandbox.file("r.xml", &report);
    let named = sandbox.run([
        "import".as_ref(),
        "xccdf".as_ref(),
        file.as_os_str(),
        "--host".as_ref(),
        "press-4".as_ref(),
    ]);
    assert_eq!(named.code, 0, "{}", named.stderr);
    let hosts: Vec<Value> = listed(&sandbox)
        .into_iter()
        .map(|it| it["host"].clone())
        .collect();
    assert_eq!(hosts, ["press-3", "press-4"]);
}
