//! Which hosts count as a release of RHEL, and how their verdicts say so.

use serde_json::{Value, json};

use super::{super::known_platform, ERROR, Outcome, PASS, UNKNOWN, rule, sample, verdict};

#[derive(Clone, Copy)]
struct Host {
    id: &'static str,
    version: &'static str,
    like: Option<&'static str>,
    platform: Option<&'static str>,
}

const fn host(
    id: &'static str,
    version: &'static str,
    like: Option<&'static str>,
    platform: Option<&'static str>,
) -> Host {
    Host {
        id,
        version,
        like,
        platform,
    }
}

fn check(os: &Value, wanted: Outcome, said: &str) {
    let rule = rule("{fact: c.text, equals: yes}");
    let mut facts = sample();
    facts.facts["os"] = os.clone();
    let verdict = verdict(&rule, &facts);
    assert_eq!(verdict.verdict, wanted, "{os}: {}", verdict.reason);
    assert!(verdict.reason.contains(said), "{os}: {}", verdict.reason);
    let evidence = String::from_utf8_lossy(verdict.evidence.bytes()).into_owned();
    let declares = evidence.contains("os.platform_id");
    assert_eq!(declares, said.contains("counts"), "{os}");
    if wanted == PASS {
        assert_eq!(known_platform(&facts), Some("rhel-9"), "{os}");
    }
}

/// The os-release files of the rebuilds as their projects document them; Amazon Linux and Fedora
/// are no rebuilds. The rule is for debian-12 and rhel-9.
#[test]
fn a_rebuild_counts_as_the_release_that_it_declares_and_says_so() {
    const OTHER: Outcome = Outcome::NotApplicable;
    let all = Some("rhel centos fedora");
    let (el8, el9, el10) = (
        Some("platform:el8"),
        Some("platform:el9"),
        Some("platform:el10"),
    );
    for (host, wanted, said) in [
        (
            host("rocky", "9.4", all, el9),
            PASS,
            "(rocky counts as rhel-9)",
        ),
        (
            host("almalinux", "9.5", all, el9),
            PASS,
            "(almalinux counts as rhel-9)",
        ),
        (
            host("ol", "9.4", Some("fedora"), el9),
            PASS,
            "(ol counts as rhel-9)",
        ),
        (
            host("centos", "9", Some("rhel fedora"), el9),
            PASS,
            "(centos counts as rhel-9)",
        ),
        (
            host("own", "9.1", Some("rhel"), None),
            PASS,
            "(own counts as rhel-9)",
        ),
        // What it declares counts, not its own numbering.
        (
            host("rhcos", "4.18", Some("rhel fedora"), el9),
            PASS,
            "(rhcos counts as rhel-9)",
        ),
        (
            host("odd", "9", Some("rhel"), el10),
            OTHER,
            "this host is odd 9",
        ),
        (
            host("rocky", "8.10", all, el8),
            OTHER,
            "this host is rocky 8.10",
        ),
        (
            host("amzn", "2023", Some("fedora"), Some("platform:al2023")),
            OTHER,
            "amzn 2023",
        ),
        (
            host("fedora", "9", None, Some("platform:f9")),
            OTHER,
            "fedora 9",
        ),
        (host("like", "12", Some("debian"), None), OTHER, "like 12"),
        (host("rhel", "9.4", Some("fedora"), el9), PASS, ""),
    ] {
        let mut os = json!({"id": host.id, "version_id": host.version});
        if let Some(like) = host.like {
            os["id_like"] = like.into();
        }
        if let Some(platform) = host.platform {
            os["platform_id"] = platform.into();
        }
        check(&os, wanted, said);
    }
}

#[test]
fn a_declaration_that_is_unknown_or_no_text_decides_nothing() {
    let unknown = json!({"$unknown": {"reason": "malformed", "detail": "x"}});
    check(
        &json!({"id": "x", "version_id": "9", "platform_id": 9}),
        ERROR,
        "not text",
    );
    check(
        &json!({"id": "x", "version_id": "9", "id_like": unknown}),
        UNKNOWN,
        "",
    );
    check(
        &json!({"id": "x", "version_id": "9", "platform_id": unknown}),
        UNKNOWN,
        "",
    );
}
