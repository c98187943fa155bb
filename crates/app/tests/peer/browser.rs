//! The console as people have it: in a real browser, by clicks and keys.

#[path = "browser/auditor.rs"]
mod auditor;
#[path = "browser/driver.rs"]
mod driver;
#[path = "browser/site.rs"]
pub(crate) mod site;
#[path = "browser/sound.rs"]
mod sound;
#[path = "browser/use.rs"]
mod usage;

use libtest_mimic::Trial;

use crate::Peer;

static CHROMEDRIVER: Peer = Peer::new(
    "chromedriver",
    "HOLDFAST_PEER_CHROMEDRIVER",
    "/usr/bin/chromedriver",
);

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        CHROMEDRIVER.test(
            "a_token_opens_the_console_and_signing_out_closes_it",
            usage::doors,
        ),
        CHROMEDRIVER.test(
            "the_slider_goes_through_the_past_by_arrow_keys",
            usage::slider,
        ),
        auditor::test(),
        CHROMEDRIVER.test("a_change_arrives_while_somebody_looks", usage::live),
        CHROMEDRIVER.test("a_viewer_sees_no_forms_and_may_send_none", usage::roles),
        CHROMEDRIVER.test(
            "findings_hosts_and_rules_are_filtered_and_opened",
            usage::filters,
        ),
        CHROMEDRIVER.test(
            "an_administrator_adds_a_host_and_has_a_failure_waived",
            usage::administers,
        ),
        CHROMEDRIVER.test(
            "every_page_is_sound_for_everybody_in_both_schemes",
            sound::pages,
        ),
        CHROMEDRIVER.test("every_page_does_without_script", sound::without_script),
        CHROMEDRIVER.test("what_others_wrote_stays_text", sound::hostile_text),
        CHROMEDRIVER.test(
            "the_keyboard_goes_everywhere_and_is_seen_to",
            sound::keyboard,
        ),
    ]
}
