//! What people do with the console.

use super::{
    driver::{ARROW_LEFT, ARROW_RIGHT, Browser, ESCAPE, Look},
    site::{HOST, Site},
};
use crate::{Peer, facts::KPTR_RULE};

/// Right and wrong tokens, the page asked for before, signing out, a token revoked meanwhile.
pub(super) fn doors(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    browser.open(&site.page("/changes?host=web-1"));
    assert!(
        browser.url().contains("/sign-in?back="),
        "{}",
        browser.url()
    );
    for wrong in [
        "hf_nonsense",
        "hf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        browser.type_into(&browser.find("#token"), wrong);
        browser.click(&browser.find("form button"));
        browser.until(
            "a refusal",
            "document.querySelector('[role=alert]') !== null",
        );
        assert!(
            browser.text_of_page().contains("Not signed in"),
            "{}",
            browser.text_of_page()
        );
        assert!(
            !browser.source().contains(wrong),
            "a token is never shown again"
        );
    }
    let admin = site.admin_token();
    browser.type_into(&browser.find("#token"), &admin);
    browser.click(&browser.find("form button"));
    browser.until("the page asked for", "location.pathname === '/changes'");
    assert!(browser.url().contains("host=web-1"), "{}", browser.url());
    let cookies = browser.cookies();
    let cookie = &cookies.as_array().unwrap()[0];
    assert_eq!(
        (&cookie["httpOnly"], &cookie["sameSite"]),
        (&true.into(), &"Strict".into()),
        "{cookie}"
    );
    assert!(!cookies.to_string().contains(&admin), "{cookies}");

    let auditor = site.make_token(&browser, "auditor-1", "auditor");
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    browser.open(&site.page("/"));
    assert!(browser.url().contains("/sign-in"), "{}", browser.url());

    site.sign_in(&browser, &auditor);
    let other = Browser::start(chromedriver, Look::default());
    site.sign_in(&other, &admin);
    other.open(&site.page("/admin"));
    let revoke = "form[action='/admin/tokens/auditor-1/revoke']";
    other.click(&other.find(&format!("details:has({revoke}) > summary")));
    other.click(&other.find(&format!("{revoke} button")));
    other.until(
        "the revocation",
        "document.querySelector(\"form[action='/admin/tokens/auditor-1/revoke']\") === null",
    );
    browser.open(&site.page("/"));
    assert!(browser.url().contains("ended=yes"), "{}", browser.url());
    assert!(
        browser.text_of_page().contains("Your session has ended"),
        "{}",
        browser.text_of_page()
    );
}

/// An auditor looks at what was, and takes it away.
pub(super) fn slider(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    let auditor = site.make_token(&browser, "auditor-1", "auditor");
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    site.sign_in(&browser, &auditor);

    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    let verdict = format!("document.querySelector('#rule-{KPTR_RULE} .badge').textContent.trim()");
    let shown = |browser: &Browser| {
        browser
            .run(&format!("return {verdict}"))
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(shown(&browser), "fails");
    browser.press("t");
    browser.until("the focus", "document.activeElement.id === 'slider'");
    // What this machine's first scan recorded lies between: on to the moment at which it passed.
    const STEPS_MAX: usize = 10;
    let mut steps = 0;
    while shown(&browser) != "passes" {
        steps += 1;
        assert!(steps <= STEPS_MAX, "never passed: {}", browser.url());
        let before = browser.url();
        browser.press(ARROW_LEFT);
        browser.until("another moment", &format!("location.href !== '{before}' && document.readyState === 'complete' && document.activeElement.id === 'slider'"));
    }
    let then = browser.url();
    assert!(then.contains("at="), "{then}");
    assert!(
        then.contains("verdict=all"),
        "what else was asked is kept: {then}"
    );
    assert!(
        browser.text_of_page().contains("As it was on"),
        "{}",
        browser.text_of_page()
    );

    // Links keep the moment, downloads are of it, and a way leads back.
    let hrefs = "return Array.from(document.querySelectorAll('main a[href^=\"/rules/\"]')).every((link) => link.href.includes('at='))";
    assert_eq!(browser.run(hrefs), true);
    let oscal = browser.run("return document.querySelector('a[href*=\"/exports/oscal\"]').href");
    assert!(
        oscal.as_str().unwrap().contains("at=") && oscal.as_str().unwrap().contains("host="),
        "{oscal}"
    );
    browser.click(&browser.find(&format!("#rule-{KPTR_RULE} summary")));
    browser.click(&browser.find(&format!("#rule-{KPTR_RULE} a[href^='/rules/']")));
    browser.until("the rule", "location.pathname.startsWith('/rules/')");
    assert!(
        browser.text_of_page().contains("As it was on"),
        "{}",
        browser.text_of_page()
    );

    browser.press("t");
    browser.press(ARROW_RIGHT);
    browser.until("a later moment", &format!("location.href !== '{then}'"));
    browser.press(ESCAPE);
    browser.open(&then);
    browser.press("n");
    browser.until("now", "!location.search.includes('at=')");
    assert_eq!(shown(&browser), "fails");
}

/// The page of changes, open while a host is scanned.
pub(super) fn live(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page(&format!("/changes?host={HOST}")));
    browser.until(
        "the connection",
        "document.querySelector('#live.on') !== null",
    );
    let count = "document.querySelectorAll('[data-live] [data-key]').length";
    let before = browser.run(&format!("return {count}")).as_u64().unwrap();
    site.replay("2");
    browser.until("the change", &format!("{count} > {before}"));
    let first = browser.run("return document.querySelector('[data-live] [data-key]').textContent");
    assert!(first.as_str().unwrap().contains("passes"), "{first}");
}

/// The proof that a form is of a page of the one who is signed in.
pub(super) const OWN: &str = "document.querySelector('input[name=form]').value";

/// Sends a form from the page that is shown, as a page that shows too much would have it.
pub(super) fn post(browser: &Browser, path: &str, form: &str) -> u64 {
    let script = format!(
        "const form = new URLSearchParams({{form: {form}, name: 'evil', role: 'admin'}}); \
             const request = new XMLHttpRequest(); request.open('POST', '{path}', false); \
             request.setRequestHeader('Content-Type', 'application/x-www-form-urlencoded'); \
             request.send(form.toString()); return request.status;"
    );
    browser.run(&script).as_u64().unwrap()
}

/// Nothing to press, no page, no form of another's making.
#[allow(clippy::too_many_lines, reason = "one walk of three roles")]
pub(super) fn roles(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    let viewer = site.make_token(&browser, "viewer-1", "viewer");
    let operator = site.make_token(&browser, "operator-1", "operator");
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    site.sign_in(&browser, &viewer);
    for path in ["/", "/alerts", "/waivers", "/schedule", "/policy"] {
        browser.open(&site.page(path));
        let forms = browser
            .run("return Array.from(document.querySelectorAll('main form[method=post]')).length");
        assert_eq!(forms, 0, "{path}");
        let places = browser.run("return Array.from(document.querySelectorAll('.head nav a')).map((link) => link.textContent).join()");
        assert!(
            !places.as_str().unwrap().contains("Admin")
                && !places.as_str().unwrap().contains("Audit"),
            "{places}"
        );
    }
    for path in ["/audit", "/admin"] {
        browser.open(&site.page(path));
        assert!(
            browser
                .text_of_page()
                .contains("Your token may not do that"),
            "{path}"
        );
    }
    browser.open(&site.page("/"));
    for path in [
        "/admin/hosts",
        "/admin/tokens",
        "/admin/hosts/web-1/retire",
        "/waivers",
        "/waivers/1/approve",
        "/alerts/1/acknowledge",
    ] {
        assert_eq!(post(&browser, path, OWN), 403, "{path}");
        assert_eq!(post(&browser, path, "'forged'"), 403, "{path}");
    }
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    // An operator makes no tokens, and nobody adds a host with a form that no page made.
    site.sign_in(&browser, &operator);
    browser.open(&site.page("/admin"));
    assert_eq!(
        browser.run("return document.querySelector('form[action=\"/admin/tokens\"]') === null"),
        true
    );
    assert_eq!(post(&browser, "/admin/tokens", OWN), 403);
    assert_eq!(post(&browser, "/admin/hosts", "''"), 403);
    let hosts = site.sandbox.run(["host", "list"]).stdout;
    assert!(!hosts.contains("evil"), "{hosts}");
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page("/audit?action=auth"));
    let told = browser.text_of_page();
    assert!(
        told.contains("auth.denied") && told.contains("token viewer-1"),
        "{told}"
    );
}

/// What is typed narrows the lists, with the server and as one types.
pub(super) fn filters(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    browser.open(&site.page(&format!("/hosts/{HOST}?verdict=all")));
    let shown = "Array.from(document.querySelectorAll('#finding-list details')).filter((row) => row.offsetParent !== null).length";
    let all = browser.run(&format!("return {shown}")).as_u64().unwrap();
    browser.press("/");
    browser.until("the field", "document.activeElement.id === 'q'");
    browser.type_into(&browser.find("#q"), "kptr");
    browser.until("fewer", &format!("{shown} < {all} && {shown} > 0"));
    browser.click(&browser.find(".filter button"));
    browser.until("the server's answer", "location.search.includes('q=kptr')");
    assert!(
        browser.text_of_page().contains("kptr"),
        "{}",
        browser.text_of_page()
    );

    browser.open(&site.page("/rules?q=kptr"));
    browser.click(&browser.find("#rules tbody a"));
    browser.until("the rule", "location.pathname.startsWith('/rules/')");
    assert!(
        browser.text_of_page().contains(HOST),
        "where it fails: {}",
        browser.text_of_page()
    );
    browser.click(&browser.find("main table a[href^='/evidence/']"));
    browser.until("the evidence", "location.pathname.startsWith('/evidence/')");
    assert!(
        browser.text_of_page().contains("kptr_restrict"),
        "{}",
        browser.text_of_page()
    );

    browser.open(&site.page("/?state=unknown"));
    browser.open(&site.page("/?sort=host&dir=down#hosts"));
    assert_eq!(
        browser.run("return document.querySelector('th[aria-sort]').getAttribute('aria-sort')"),
        "descending"
    );
}

/// A host added, a waiver asked for by one and approved by another.
pub(super) fn administers(chromedriver: &Peer) {
    let site = Site::with_history();
    let browser = Browser::start(chromedriver, Look::default());
    site.sign_in(&browser, &site.admin_token());
    let operator = site.make_token(&browser, "operator-1", "operator");
    browser.open(&site.page("/admin"));
    browser.type_into(&browser.find("#host-name"), "db-1");
    browser.type_into(&browser.find("#host-groups"), "databases, berlin");
    browser.click(&browser.named("Add host"));
    browser.until("the host", "location.pathname === '/hosts/db-1'");
    let listed = site.sandbox.run(["host", "list"]).stdout;
    assert!(
        listed.contains("db-1") && listed.contains("databases"),
        "{listed}"
    );
    // The same again is refused with what to do.
    browser.open(&site.page("/admin"));
    browser.type_into(&browser.find("#host-name"), "db-1");
    browser.click(&browser.named("Add host"));
    browser.until(
        "a refusal",
        "document.querySelector('h1').textContent.includes('cannot be done')",
    );

    browser.open(&site.page("/waivers"));
    for (field, text) in [
        ("#rule", KPTR_RULE),
        ("#name", "db-1"),
        ("#owner", "Carla"),
        ("#reason", "the vendor needs it"),
    ] {
        browser.type_into(&browser.find(field), text);
    }
    browser.run("const until = document.querySelector('#until'); until.value = new Date(Date.now() + 30 * 86400000).toISOString().slice(0, 10);");
    browser.click(&browser.named("Ask"));
    browser.until(
        "the waiver",
        "document.body.textContent.includes('waits for approval')",
    );
    browser.click(&browser.named("Sign out"));
    browser.until("the door", "location.pathname === '/sign-in'");
    site.sign_in(&browser, &operator);
    browser.open(&site.page("/waivers"));
    browser.click(&browser.named("Approve"));
    browser.until(
        "the approval",
        "document.body.textContent.includes('approved by')",
    );

    browser.open(&site.page("/admin"));
    // The first click asks, and does nothing.
    let retire = "form[action='/admin/hosts/db-1/retire']";
    browser.click(&browser.find(&format!("details:has({retire}) > summary")));
    browser.until(
        "the question",
        "document.querySelector(\"form[action='/admin/hosts/db-1/retire'] button\").checkVisibility()",
    );
    browser.click(&browser.find(&format!("{retire} button")));
    browser.until(
        "the end",
        "document.querySelector(\"form[action='/admin/hosts/db-1/retire']\") === null",
    );
}
