//! What an auditor comes for: a past day as it was, the document of it, and a proof that nobody rewrote it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::{
    CHROMEDRIVER,
    driver::{ARROW_LEFT, Browser, Look},
    site::{HOST, Site},
    usage::{OWN, post},
};
use crate::{Peer, facts::KPTR_RULE, holdfast::Sandbox, serving::PATIENCE};

/// Changes between a host's newest scan and the one before: this machine's first scan is among them.
const STEPS_MAX: usize = 10;

pub(super) fn test() -> Trial {
    CHROMEDRIVER.test(
        "an_auditor_sees_a_past_day_takes_its_document_and_verifies_the_chain_offline",
        verifies,
    )
}

/// Proves: LED-10, LED-11, SVC-6
fn verifies(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    let token = site.make_token(&browser, "auditor-1", "auditor");
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    site.sign_in(&browser, &token);
    assert_eq!(
        post(&browser, "/admin/tokens", OWN),
        403,
        "it may only read"
    );

    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    assert_eq!(shown(&browser), "fails");
    go_back(&browser);
    assert!(browser.text_of_page().contains("As it was on"));

    let taken = TempDir::new().unwrap();
    browser.downloads_to(taken.path());
    browser.click(&browser.find("details.menu summary"));
    browser.click(&browser.named("OSCAL assessment results"));
    let document = downloaded(&browser, taken.path(), "json");
    let document = fs::read_to_string(document).unwrap();
    let url = browser.url();
    let at = url.split("at=").nth(1).unwrap().split('&').next().unwrap();
    let at = at.replace("%3A", ":");
    let export = ["export", "--format", "oscal", "--host", HOST, "--at", &at];
    let own = site.sandbox.run(export);
    assert_eq!(own.code, 0, "{}", own.stderr);
    assert_eq!(
        document, own.stdout,
        "byte for byte what the command writes"
    );
    let now = site.sandbox.run(&export[..5]);
    assert_ne!(document, now.stdout, "a verdict has changed since");

    let key = browser.text(&browser.find("details.menu li span.under code:last-of-type"));
    browser.click(&browser.named("The ledger, to verify offline"));
    let ledger = downloaded(&browser, taken.path(), "zst");
    drop(site);
    offline(&ledger, &key);
}

/// With the binary, the file and the public key, where there is nothing else.
fn offline(ledger: &Path, key: &str) {
    let elsewhere = Sandbox::new();
    let verify = |file: &Path| {
        let file = file.to_str().unwrap();
        elsewhere.run(["ledger", "verify", "--export", file, "--key", key])
    };
    let bytes = fs::read(ledger).unwrap();
    let run = verify(&elsewhere.file("ledger.jsonl.zst", &bytes));
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.starts_with("sound: "), "{}", run.stdout);
    assert!(!elsewhere.data_dir().exists(), "nothing is created");

    let text = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap();
    let edited = text.replacen("\"to\":\"fail\"", "\"to\":\"pass\"", 1);
    assert_ne!(edited, text);
    let edited = zstd::encode_all(edited.as_bytes(), 0).unwrap();
    let lines = text.lines().count();
    let cut: String = text
        .lines()
        .take(lines / 2)
        .flat_map(|line| [line, "\n"])
        .collect();
    let cut = zstd::encode_all(cut.as_bytes(), 0).unwrap();
    for (what, copy) in [
        ("edited", &edited[..]),
        ("cut at a line", &cut),
        ("cut", &bytes[..bytes.len() / 2]),
    ] {
        let run = verify(&elsewhere.file("copy.jsonl.zst", copy));
        assert_ne!(run.code, 0, "{what}: {}", run.stdout);
        assert!(!run.stdout.contains("sound: "), "{what}: {}", run.stdout);
    }
}

fn shown(browser: &Browser) -> String {
    let script =
        format!("return document.querySelector('#rule-{KPTR_RULE} .badge').textContent.trim()");
    browser.run(&script).as_str().unwrap().to_owned()
}

/// By the slider, to the moment at which the rule passed.
fn go_back(browser: &Browser) {
    browser.press("t");
    browser.until("the focus", "document.activeElement.id === 'slider'");
    for _ in 0..STEPS_MAX {
        if shown(browser) == "passes" {
            return;
        }
        let before = browser.url();
        browser.press(ARROW_LEFT);
        let there = format!(
            "location.href !== '{before}' && document.readyState === 'complete' && \
             document.activeElement.id === 'slider'"
        );
        browser.until("another moment", &there);
    }
    panic!("never passed: {}", browser.url());
}

/// The one file of this kind, once it is whole: the browser writes beside an empty one of its name.
fn downloaded(browser: &Browser, dir: &Path, extension: &str) -> PathBuf {
    let begun = Instant::now();
    loop {
        let files = fs::read_dir(dir).unwrap().flatten();
        let files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        let is = |path: &&PathBuf, kind: &str| path.extension().is_some_and(|it| it == kind);
        let is_whole = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
        let is_under_way = files.iter().any(|path| is(&path, "crdownload"));
        let mut found = files
            .iter()
            .filter(|path| is(path, extension) && is_whole(path));
        if let Some(path) = found.next().filter(|_| !is_under_way) {
            return path.clone();
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "nothing was downloaded from {}",
            browser.url()
        );
        thread::yield_now();
    }
}
