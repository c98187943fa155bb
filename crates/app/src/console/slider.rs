//! The moment that a page is of, and the way to another: a slider over all that was recorded, a field and
//! a button beside it for whoever has no script.

use maud::{Markup, html};
use world::Timestamp;

use super::{
    chart::{number, quotient},
    frame::Page,
    link::Link,
    when,
};

/// Units across; the view box is stretched to the width that there is.
const WIDTH: f64 = 1000.0;

/// A moment at which changes were recorded, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Timestamp,
    pub(super) changes: u64,
}

/// Everything that the slider spans: from the first record to now.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) marks: Vec<Mark>,
}

/// Changes at one moment that make a mark a tall one: a first scan, an upgrade.
const MANY: u64 = 25;

pub(super) fn slider(page: &Page<'_>, span: &Span) -> Markup {
    let here = page.at.unwrap_or(page.now);
    let (from, to) = (
        when::millis(span.from),
        when::millis(page.now).max(when::millis(span.from) + 1),
    );
    let x = |at: Timestamp| WIDTH * quotient(when::millis(at).clamp(from, to) - from, to - from);
    let marks: Vec<String> = span
        .marks
        .iter()
        .map(|mark| mark_milli(mark).to_string())
        .collect();
    html! {
        section class=(if page.at.is_some() { "moment past" } else { "moment" }) aria-label="Moment shown" {
            div class="moment-in" {
                div class="label" {
                    @match page.at {
                        Some(at) => { "As it was on " (when::full(at)) small { "every link keeps this moment" } },
                        None => { "Now" small { "updated " (when::full(page.now)) } },
                    }
                }
                div class="slider" data-with-script hidden {
                    svg viewBox="0 0 1000 32" preserveAspectRatio="none" aria-hidden="true" {
                        rect class="track" y="13" width="1000" height="6" rx="3" {}
                        @for mark in &span.marks {
                            @let many = mark.changes >= MANY;
                            rect class=(if many { "mark more" } else { "mark" }) x=(number(x(mark.at)))
                                y=(if many { "4" } else { "9" }) width="2" height=(if many { "24" } else { "14" }) {}
                        }
                    }
                    input id="slider" type="range" disabled min=(from) max=(to) step="1"
                        value=(if page.at.is_some() { when::millis(here).clamp(from, to) } else { to })
                        data-marks=(marks.join(" ")) aria-label="Moment shown; arrow keys go to the change before and after";
                    span class="ends" aria-hidden="true" { (when::short(span.from, page.now)) span { "now" } }
                    output id="slider-moment" for="slider" {}
                }
                (steps(page, span, here))
            }
        }
    }
}

/// The first whole millisecond, as addresses name moments, at which a mark's changes are seen.
fn mark_milli(mark: &Mark) -> u64 {
    when::millis(mark.at) + 1
}

/// The change before, the change after, a day and hour, and back to now: without script too.
fn steps(page: &Page<'_>, span: &Span, here: Timestamp) -> Markup {
    let moment = |mark: &Mark| Timestamp::from_nanos(mark_milli(mark) * when::MILLI);
    let earlier = span
        .marks
        .iter()
        .rev()
        .map(moment)
        .find(|at| *at < here && page.at != Some(*at));
    let later = page
        .at
        .and_then(|here| span.marks.iter().map(moment).find(|at| *at > here));
    let go = |at: Option<Timestamp>| {
        page.query
            .iter()
            .fold(Link::to(page.path), |link, (name, value)| {
                link.with(name, value)
            })
            .at(at)
    };
    html! {
        form class="date" method="get" action=(page.path) {
            @for (name, value) in &page.query { input type="hidden" name=(name) value=(value); }
            @if let Some(at) = earlier {
                a class="button" href=(go(Some(at))) title="The recorded change before" { span class="unseen" { "To the change before, " (when::words(at)) } span aria-hidden="true" { "←" } }
            }
            @if let Some(at) = later {
                a class="button" href=(go(Some(at))) title="The recorded change after" { span class="unseen" { "To the change after, " (when::words(at)) } span aria-hidden="true" { "→" } }
            }
            label class="small soft" for="at" { span class="unseen" { "Day and hour to show, " } "UTC" }
            input id="at" type="datetime-local" name="at" title="UTC" value=(when::field(here))
                min=(when::field(span.from)) max=(when::field(page.now)) required;
            button { "Show" }
            @if page.at.is_some() { a id="back-to-now" class="button back" href=(go(None)) { "Back to now" } }
        }
    }
}
