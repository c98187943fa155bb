//! What every page must be: readable, reachable, of one piece, and harmless.

use serde_json::{Value, json};

use super::{
    driver::{Browser, ENTER, ESCAPE, Look, TAB},
    site::{self, HOST, Site},
};
use crate::{Peer, facts, facts::KPTR_RULE, holdfast::Sandbox};

/// Looks at a page from inside; returns what is wrong with it.
const CHECKS: &str = include_str!("checks.js");
/// Notes every violation of the Content-Security-Policy, kept over pages.
const LISTEN: &str = "addEventListener('securitypolicyviolation', (event) => { \
    const told = JSON.parse(localStorage.getItem('violations') || '[]'); \
    told.push(event.violatedDirective + ' ' + event.blockedURI + ' ' + location.pathname); \
    localStorage.setItem('violations', JSON.stringify(told)); });";

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/",
        "/?wall",
        "/rules",
        "/changes",
        "/alerts?state=all",
        "/schedule",
        "/policy",
        "/waivers",
        "/audit",
        "/admin",
        "/nowhere",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("/hosts/{HOST}?verdict=all"));
    paths.push(format!("/rules/{KPTR_RULE}"));
    paths.push("/?at=2026-01-01T00:00:00Z".to_owned());
    paths
}

fn is_sound(browser: &Browser, what: &str) {
    let faults = browser.run(CHECKS);
    assert_eq!(faults, json!([]), "{what}: {faults:#}");
}

/// Names, headings, contrast, width and targets; light and dark; wide, on a phone and on a wall.
pub(super) fn pages(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    browser.before_each_page(LISTEN);
    browser.open(&site.page("/sign-in"));
    is_sound(&browser, "the door");
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    let evidence = browser
        .run("return document.querySelector('a[href^=\"/evidence/\"]').getAttribute('href')");
    let mut paths = paths();
    paths.push(evidence.as_str().unwrap().to_owned());
    for (width, height, is_dark) in [
        (1280, 900, false),
        (1280, 900, true),
        (360, 740, false),
        (360, 740, true),
        (1920, 1080, true),
    ] {
        browser.size(width, height);
        browser.scheme(is_dark);
        for path in &paths {
            browser.open(&site.page(path));
            browser.run(
                "for (const fold of document.querySelectorAll('main details')) fold.open = true;",
            );
            is_sound(&browser, &format!("{path} at {width}, dark: {is_dark}"));
        }
    }
    // The switch outweighs what the system prefers.
    browser.scheme(false);
    browser.open(&site.page("/"));
    browser.click(&browser.find("footer button[value=dark]"));
    browser.until(
        "the dark",
        "document.documentElement.dataset.theme === 'dark'",
    );
    is_sound(&browser, "the dark by the switch");
    let violations = browser.run("return localStorage.getItem('violations')");
    assert_eq!(violations, Value::Null, "{violations}");
    let complaints: Vec<Value> = browser
        .complaints()
        .into_iter()
        // A page that is not there is a complaint that the test asked for.
        .filter(|told| {
            !told["message"]
                .as_str()
                .unwrap_or_default()
                .contains("/nowhere")
        })
        .filter(|told| told["level"] == "SEVERE")
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    // That the list above would have shown one: this is one.
    browser.run("const inline = document.createElement('style'); inline.textContent = 'body {}'; document.head.append(inline);");
    browser.until("a violation", "localStorage.getItem('violations') !== null");
}

/// The same pages, a past moment by the field, and a form: by a browser that runs no script.
pub(super) fn without_script(chromedriver: &Peer) {
    let site = Site::with_history();
    let look = Look {
        has_script: false,
        ..Look::default()
    };
    let browser = Browser::start(chromedriver, look);
    browser.open(&site.page("/sign-in"));
    browser.type_into(&browser.find("#token"), &site.admin_token());
    browser.click(&browser.find("form button"));
    for path in paths() {
        browser.open(&site.page(&path));
        assert!(browser.try_find("main h1").is_some(), "{path}");
        assert!(browser.text_of_page().contains("Holdfast"), "{path}");
    }
    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    let badge = format!("#rule-{KPTR_RULE} .badge");
    assert_eq!(browser.text(&browser.find(&badge)), "fails");
    // From change to change, until the moment at which it passed.
    const STEPS_MAX: usize = 10;
    let mut steps = 0;
    while browser.text(&browser.find(&badge)) != "passes" {
        steps += 1;
        assert!(steps <= STEPS_MAX, "never passed: {}", browser.url());
        browser.click(&browser.find("a[title='The recorded change before']"));
    }
    assert!(
        browser.text_of_page().contains("As it was on"),
        "{}",
        browser.text_of_page()
    );
    browser.click(&browser.find("form.date button"));
    assert!(browser.url().contains("at="), "{}", browser.url());
    browser.click(&browser.named("Back to now"));
    assert_eq!(browser.text(&browser.find(&badge)), "fails");
    browser.click(&browser.find("footer button[value=dark]"));
    assert!(browser.try_find("html[data-theme=dark]").is_some());
}

/// Whatever hosts, facts and people wrote is shown as it was written.
pub(super) fn hostile_text(chromedriver: &Peer) {
    const EVIL: &str =
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
    let sandbox = Sandbox::new();
    let mut bundle = facts::bundle(HOST, EVIL);
    bundle["facts"]["os"]["pretty_name"] = json!(EVIL);
    site::replay_bundle(&sandbox, &bundle);
    let tagged = sandbox.run(["host", "add", "db-1", "--offline", "--tag", "a-tag"]);
    let site = Site::start(sandbox);
    drop(tagged);
    let browser = Browser::start(chromedriver, Look::default());
    browser.before_each_page(LISTEN);
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page("/waivers"));
    for (field, text) in [
        ("#rule", KPTR_RULE),
        ("#name", HOST),
        ("#owner", EVIL),
        ("#reason", EVIL),
    ] {
        browser.type_into(&browser.find(field), text);
    }
    browser.run("const until = document.querySelector('#until'); until.value = new Date(Date.now() + 30 * 86400000).toISOString().slice(0, 10);");
    browser.click(&browser.named("Ask"));
    let encoded = "%3Cscript%3Edocument.title%3D'taken'%3C%2Fscript%3E";
    let mut paths = paths();
    paths.extend(
        [
            "/hosts/",
            "/rules/",
            "/evidence/",
            "/changes?host=",
            "/?q=",
            "/audit?actor=",
            "/?at=",
            "/rules?q=",
        ]
        .map(|path| format!("{path}{encoded}")),
    );
    for path in &paths {
        browser.open(&site.page(path));
        let found = browser.run(
            "return [document.title, document.querySelectorAll('main script, main img').length]",
        );
        assert!(found[0] != "taken" && found[1] == 0, "{path}: {found}");
    }
    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    let text = browser.run("return document.querySelector('main').textContent");
    assert!(
        text.as_str().unwrap().contains("<img src=x"),
        "shown as it is: {text}"
    );
    let violations = browser.run("return localStorage.getItem('violations')");
    assert_eq!(violations, Value::Null, "{violations}");
}

/// The first stop leads past the head; every stop is seen; the list of keys opens and closes.
pub(super) fn keyboard(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page(&format!("/hosts/{HOST}")));
    browser.press(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        "skip"
    );
    browser.press(ENTER);
    browser.until("the content", "location.hash === '#main'");
    browser.open(&site.page(&format!("/hosts/{HOST}")));
    // Stops in the order of the page, each with an outline.
    const STOPS: usize = 40;
    let mut places = Vec::new();
    for _ in 0..STOPS {
        browser.press(TAB);
        let stop = browser.run(
            "const at = document.activeElement; if (at === document.body) return null; const style = getComputedStyle(at); \
             const all = Array.from(document.querySelectorAll('*')); \
             return [all.indexOf(at), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, at.outerHTML.slice(0, 120)];",
        );
        if stop.is_null() {
            break;
        }
        assert_eq!(stop[1], true, "no outline: {stop}");
        places.push(stop[0].as_u64().unwrap());
    }
    assert!(places.len() > 15, "{places:?}");
    assert!(places.is_sorted(), "{places:?}");
    browser.press(ESCAPE);
    browser.open(&site.page("/"));
    browser.press("?");
    browser.until("the keys", "document.querySelector('#keys').open");
    is_sound(&browser, "the list of keys");
    browser.press(ESCAPE);
    browser.until("their end", "!document.querySelector('#keys').open");
    browser.press("gr");
    browser.until("the rules", "location.pathname === '/rules'");
}
