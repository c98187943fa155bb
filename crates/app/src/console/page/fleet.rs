//! The fleet: how it stands, what is worst, what nobody knows, and every host.

use std::collections::BTreeMap;

use maud::{Markup, html};
use scan::{policy::ComplianceState, token::Role};

use crate::{
    console::{badge, chart, link::Link, trend, visit::Visit, when},
    present::counted,
    view::{self, Change, ChangesAsked, Fleet, HostRow, RuleCount, Unassessed},
};

use super::words;

/// Changes in the overview: what fits beside the worst.
const CHANGES_SHOWN: usize = 8;
/// Hosts and rules without an answer in the overview; the table has them all.
const STALE_SHOWN: usize = 3;
/// Rows of the table of hosts; the cells show more.
const ROWS_SHOWN: usize = 100;
/// Cells, and what the table is sorted from. More hosts than anybody reads on one page.
const HOSTS_MAX: usize = 5_000;

pub(in crate::console) fn fleet(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let overview = view::overview(&visit.reader, visit.at)?;
    let fleet = overview.fleet(visit.moment());
    if fleet.hosts == 0 {
        let content = empty(visit);
        return visit.page("Fleet").spanning(visit.span()?).show(&content);
    }
    let changes = view::changes(
        &visit.reader,
        &ChangesAsked {
            until: visit.until(),
            limit: Some(CHANGES_SHOWN),
            ..ChangesAsked::default()
        },
    )?;
    let hosts: Vec<&HostRow> = overview.worst().take(HOSTS_MAX).collect();
    let trend = trend::of_fleet(visit, fleet.counts.score)?;
    let content = html! {
        div class="title" {
            h1 { "Fleet" }
            p class="soft" { (standing(&fleet)) }
            @if visit.at_least(Role::Auditor) && visit.sees_everything() { div class="aside" { (super::downloads(visit, None)) } }
        }
        div class="grid" {
            (score(&fleet, &trend))
            (states(visit, &fleet))
            (unknown(visit, &fleet, &hosts))
        }
        @if visit.is_wall { (cells(visit, &hosts)) br; }
        div class="grid" {
            (worst_rules(visit, &fleet.worst_rules))
            (worst_hosts(visit, &fleet.worst_hosts))
            (recent(visit, &changes.changes))
        }
        @if !visit.is_wall {
            (cells(visit, &hosts))
            (table(visit, &hosts))
        }
    };
    visit
        .page("Fleet")
        .keeping(&["state", "site", "q", "sort", "dir"])
        .spanning(visit.span()?)
        .show(&content)
}

fn empty(visit: &Visit<'_>) -> Markup {
    html! {
        h1 { "Fleet" }
        div class="card" {
            @if let Some(at) = visit.at {
                p class="empty" { strong { "There were no hosts on " (when::full(at)) "." } " Move the slider to the right, to the first mark." }
            } @else if visit.at_least(Role::Operator) {
                p class="empty" { strong { "No host is watched yet." } " Add one in "
                    a href=(visit.link("/admin")) { "Administration" } ", or on the command line with "
                    code { "holdfast host add NAME ADDRESS" } ". It is scanned within a minute." }
            } @else {
                p class="empty" { strong { "No host is watched yet, or none that your token may see." }
                    " An operator adds hosts in Administration." }
            }
        }
    }
}

/// The fleet in a sentence.
fn standing(fleet: &Fleet) -> String {
    let state = |state: ComplianceState| fleet.states.get(state.name()).copied().unwrap_or(0);
    let compliant = state(ComplianceState::Compliant);
    let critical = state(ComplianceState::Critical);
    let mut text = match (fleet.hosts, compliant) {
        (1, 1) => "The one host is compliant".to_owned(),
        (1, _) => "1 host, not compliant".to_owned(),
        (hosts, compliant) if hosts == compliant => format!("All {hosts} hosts are compliant"),
        (hosts, compliant) => format!("{compliant} of {hosts} hosts are compliant"),
    };
    match critical {
        0 => {}
        1 => text.push_str("; 1 is critical"),
        more => text.push_str(&format!("; {more} are critical")),
    }
    text
}

fn score(fleet: &Fleet, trend: &trend::Trend) -> Markup {
    html! {
        section class="card w5 tall" aria-labelledby="score" {
            h2 id="score" { "Score" }
            @match fleet.counts.score {
                None => p class="empty" { strong { "Nothing was assessed." } " A score appears with the first scan." },
                Some(score) => {
                    p class="figure" {
                        span class="value" { (words::score(score)) } " " span class="unit" { "%" }
                        @if let Some(told) = trend.movement(score) { span class="soft" { (told) } }
                    }
                    (chart::gauge(score))
                    p class="soft" {
                        (words::thousands(fleet.counts.pass)) " of " (words::thousands(fleet.counts.pass + fleet.counts.fail))
                        " checks pass"
                        @if fleet.counts.not_assessed > 0 { "; " (words::thousands(fleet.counts.not_assessed)) " could not be assessed" }
                    }
                }
            }
            div class="group" { (trend.chart("Score of the fleet")) }
        }
    }
}

fn states(visit: &Visit<'_>, fleet: &Fleet) -> Markup {
    let counts = counts(fleet);
    html! {
        section class="card w3" aria-labelledby="states" {
            h2 id="states" { "Hosts by state" }
            (chart::stack(&counts))
            ul class="list" {
                @for &(state, count) in &counts {
                    li {
                        a class="first" href=(visit.link("/").with("state", state.name())) { (badge::state(state)) }
                        span class="number" { (count) }
                    }
                }
            }
            dl class="figures group" {
                @for (name, count) in [("critical", fleet.failing.critical), ("high", fleet.failing.high), ("medium", fleet.failing.medium), ("low", fleet.failing.low)] {
                    div { dt { (name) " failures" } dd { (words::thousands(count)) } }
                }
            }
        }
    }
}

fn counts(fleet: &Fleet) -> Vec<(ComplianceState, u64)> {
    let mut counts: Vec<_> = ComplianceState::ALL
        .into_iter()
        .map(|state| (state, fleet.states.get(state.name()).copied().unwrap_or(0)))
        .collect();
    // As in a legend: what is well first, what nobody knows last.
    counts.reverse();
    counts
}

/// What nobody knows: hosts without an answer, rules without an answer.
fn unknown(visit: &Visit<'_>, fleet: &Fleet, hosts: &[&HostRow]) -> Markup {
    let is_stale = |row: &&HostRow| row.counts.is_none() || row.last_attempt_failed.is_some();
    let stale: Vec<&HostRow> = hosts.iter().copied().filter(is_stale).collect();
    html! {
        section class="card w4" aria-labelledby="unknown" {
            h2 id="unknown" { "What could not be assessed" }
            @if stale.is_empty() && fleet.unassessed.is_empty() {
                p class="empty" { strong { "Nothing." } " Every host was reached, and every rule gave an answer." }
            }
            @if !stale.is_empty() {
                p { (told(&stale, visit)) }
                ul class="list" {
                    @for row in stale.iter().take(STALE_SHOWN) {
                        li {
                            a class="first" href=(visit.host(&row.host)) { (row.host) }
                            span class="soft small" {
                                @match &row.last_attempt_failed {
                                    Some(attempt) => (when::age(attempt.time.0, visit.moment())),
                                    None => "never scanned",
                                }
                            }
                            span class="under" { (attempt(row)) }
                        }
                    }
                }
            }
            @if !fleet.unassessed.is_empty() { (rules_unknown(visit, &fleet.unassessed)) }
        }
    }
}

fn rules_unknown(visit: &Visit<'_>, unassessed: &[Unassessed]) -> Markup {
    html! {
        h3 class="group" { "Rules without an answer" }
        ul class="list" {
            @for rule in unassessed.iter().take(STALE_SHOWN) {
                li {
                    a class="first" href=(visit.rule(&rule.rule)) { (super::title(&rule.title, &rule.rule)) }
                    span class="soft small" { (counted(rule.hosts, "host")) }
                    span class="under" {
                        (rule.reason)
                        @if rule.alike < rule.hosts { " (on " (rule.alike) " of them; on the others for other reasons)" }
                    }
                }
            }
        }
    }
}

fn attempt(row: &HostRow) -> String {
    match &row.last_attempt_failed {
        None if row.via == "offline" => "waits for facts that are brought by hand".to_owned(),
        None => "waits for its first scan".to_owned(),
        Some(attempt) if attempt.failures == 1 => words::failure(attempt.reason).to_owned(),
        Some(attempt) => format!(
            "{}, {} attempts in a row",
            words::failure(attempt.reason),
            attempt.failures
        ),
    }
}

/// `3 hosts could not be assessed: 2 cannot be reached, for up to 5 h; 1 waits for its first scan`.
fn told(rows: &[&HostRow], visit: &Visit<'_>) -> String {
    let mut reasons: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let attempt = row.last_attempt_failed.as_ref();
        let word = attempt.map_or("not scanned yet", |attempt| words::failure(attempt.reason));
        let at = attempt.map_or(visit.moment(), |attempt| {
            row.assessed.unwrap_or(attempt.time).0
        });
        let found = reasons.entry(word.to_owned()).or_insert((0, u64::MAX));
        *found = (found.0 + 1, found.1.min(at.nanos()));
    }
    let now = visit.moment().nanos();
    let told = reasons
        .iter()
        .map(|(word, &(count, since))| match now.saturating_sub(since) {
            0 => format!("{count} {word}"),
            past => format!("{count} {word} (last assessed {} ago)", when::span(past)),
        });
    let hosts = counted(rows.len() as u64, "host");
    format!(
        "{hosts} could not be assessed: {}",
        told.collect::<Vec<_>>().join("; ")
    )
}

fn worst_rules(visit: &Visit<'_>, rules: &[RuleCount]) -> Markup {
    html! {
        section class="card w4" aria-labelledby="worst-rules" {
            div class="card-head" { h2 id="worst-rules" { "Worst rules" } a class="aside" href=(visit.link("/rules")) { "All rules" } }
            @if rules.is_empty() { p class="empty" { strong { "No rule fails." } } }
            ul class="list" {
                @for rule in rules.iter().take(8) {
                    li {
                        a class="first" href=(visit.rule(&rule.rule)) { (super::title(&rule.title, &rule.rule)) }
                        span class="number" { (counted(rule.failing, "host")) }
                        span class="under" { (badge::severity(rule.severity)) }
                    }
                }
            }
        }
    }
}

fn worst_hosts(visit: &Visit<'_>, hosts: &[HostRow]) -> Markup {
    html! {
        section class="card w4" aria-labelledby="worst-hosts" {
            div class="card-head" { h2 id="worst-hosts" { "Worst hosts" } a class="aside" href="#hosts" { "All hosts" } }
            @if hosts.is_empty() { p class="empty" { strong { "No host fails a rule." } } }
            ul class="list" {
                @for row in hosts.iter().take(8) {
                    li {
                        a class="first" href=(visit.host(&row.host)) { (row.host) }
                        span class="number" { (words::score_of(row.counts.as_ref().and_then(|counts| counts.score))) }
                        span class="under" { (badge::state(row.state)) " " (words::failing(&row.failing)) }
                    }
                }
            }
        }
    }
}

fn recent(visit: &Visit<'_>, changes: &[Change]) -> Markup {
    html! {
        section class="card w4" aria-labelledby="recent" {
            div class="card-head" { h2 id="recent" { "Recent changes" } a class="aside" href=(visit.link("/changes")) { "All changes" } }
            @if changes.is_empty() { p class="empty" { strong { "Nothing changed." } " Changes appear here with each scan that finds one." } }
            ul class="list" { @for change in changes { (super::changes::item(visit, change, true)) } }
        }
    }
}

/// Every host as a cell, worst first.
fn cells(visit: &Visit<'_>, hosts: &[&HostRow]) -> Markup {
    let counts: Vec<_> = ComplianceState::ALL
        .into_iter()
        .map(|state| {
            (
                state,
                hosts.iter().filter(|row| row.state == state).count() as u64,
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    html! {
        section class="card" aria-labelledby="cells" {
            div class="card-head" {
                h2 id="cells" { "Every host" }
                span class="soft small" { "one cell each, filled by its score" }
                span class="aside actions" { (chart::legend(&counts)) }
            }
            ul class="cells" {
                @for row in hosts {
                    @let score = row.counts.as_ref().and_then(|counts| counts.score);
                    @let told = format!("{}: {}, {}", row.host, badge::state_word(row.state), words::score_of(score));
                    li { a href=(visit.host(&row.host)) aria-label=(told) title=(told) { (chart::cell(row.state, score)) } }
                }
            }
        }
    }
}

/// Columns by which the table is sorted.
const COLUMNS: [(&str, &str, bool); 6] = [
    ("host", "Host", false),
    ("state", "State", false),
    ("score", "Score", true),
    ("failing", "Failing", true),
    ("unknown", "Not assessed", true),
    ("scanned", "Scanned", false),
];

fn table(visit: &Visit<'_>, all: &[&HostRow]) -> Markup {
    let asked = |name| visit.asked(name).unwrap_or_default();
    let (state, site, text) = (asked("state"), asked("site"), asked("q").to_lowercase());
    let mut rows: Vec<&HostRow> = all
        .iter()
        .copied()
        .filter(|row| state.is_empty() || row.state.name() == state)
        .filter(|row| site.is_empty() || row.site == site)
        .filter(|row| text.is_empty() || matches(row, &text))
        .collect();
    sort(&mut rows, asked("sort"), asked("dir") == "down");
    let mut sites: Vec<&str> = all.iter().map(|row| row.site.as_str()).collect();
    sites.sort_unstable();
    sites.dedup();
    let shown = rows.len().min(ROWS_SHOWN);
    html! {
        section id="hosts" class="card" aria-labelledby="hosts-title" {
            h2 id="hosts-title" { "Hosts" }
            (filter(visit, &sites))
            @if rows.is_empty() {
                p class="empty" { strong { "No host is like that." } " " a href=(visit.link("/")) { "Show all " (all.len()) } }
            } @else {
                div class="scroll" {
                    table class="stacked" {
                        caption {
                            (words::shown(shown, rows.len(), "host"))
                            @if rows.len() > shown { "; filter to see the others" }
                            " " span id="hosts-told" role="status" {}
                        }
                        thead { tr { @for (name, title, is_number) in COLUMNS { (column(visit, name, title, is_number)) } th scope="col" { "Site" } } }
                        tbody { @for row in rows.iter().take(shown) { (host_row(visit, row)) } }
                    }
                }
            }
        }
    }
}

fn matches(row: &HostRow, text: &str) -> bool {
    let mut labels = row
        .groups
        .iter()
        .chain(&row.tags)
        .chain([&row.host, &row.site]);
    labels.any(|label| label.to_lowercase().contains(text))
}

fn sort(rows: &mut [&HostRow], by: &str, is_down: bool) {
    let number = |value: Option<u64>| value.unwrap_or(0);
    let counts = |row: &HostRow| row.counts.clone().unwrap_or_default();
    match by {
        "host" => rows.sort_by(|one, other| one.host.cmp(&other.host)),
        "state" => rows.sort_by_key(|row| row.state),
        "score" => rows.sort_by(|one, other| {
            let score = |row: &HostRow| counts(row).score.unwrap_or(-1.0);
            score(one).total_cmp(&score(other))
        }),
        "failing" => rows.sort_by_key(|row| counts(row).fail),
        "unknown" => rows.sort_by_key(|row| counts(row).not_assessed),
        "scanned" => rows.sort_by_key(|row| number(row.assessed.map(|at| at.0.nanos()))),
        // As they come: worst first.
        _ => {}
    }
    if is_down {
        rows.reverse();
    }
}

fn filter(visit: &Visit<'_>, sites: &[&str]) -> Markup {
    let here = visit.asked("state").unwrap_or_default();
    html! {
        form class="filter" method="get" action="/#hosts" role="search" aria-label="Hosts" {
            @if let Some(at) = visit.at { input type="hidden" name="at" value=(view::Moment(at)); }
            div class="field" {
                label for="q" { "Name, group, tag" }
                input id="q" name="q" type="search" value=(visit.asked("q").unwrap_or_default()) data-search
                    data-filters="#hosts tbody tr" data-told="hosts-told" autocomplete="off";
            }
            div class="field" {
                label for="state" { "State" }
                select id="state" name="state" data-submits {
                    option value="" { "all" }
                    @for state in ComplianceState::ALL {
                        option value=(state.name()) selected[state.name() == here] { (badge::state_word(state)) }
                    }
                }
            }
            @if sites.len() > 1 {
                div class="field" {
                    label for="site" { "Site" }
                    select id="site" name="site" data-submits {
                        option value="" { "all" }
                        @for site in sites { option selected[visit.asked("site") == Some(*site)] { (site) } }
                    }
                }
            }
            button { "Filter" }
        }
    }
}

/// A heading that sorts; a second time the other way round.
fn column(visit: &Visit<'_>, name: &str, title: &str, is_number: bool) -> Markup {
    let is_here = visit.asked("sort") == Some(name);
    let is_down = is_here && visit.asked("dir") == Some("down");
    let to: Link = ["state", "site", "q"]
        .into_iter()
        .fold(Link::to("/"), |link, name| {
            link.with_any(name, visit.asked(name))
        })
        .with("sort", name)
        .with_any("dir", (is_here && !is_down).then_some("down"))
        .at(visit.at);
    let to = String::from(to) + "#hosts";
    html! {
        th scope="col" class=[is_number.then_some("number")]
            aria-sort=[is_here.then_some(if is_down { "descending" } else { "ascending" })] {
            a href=(to) { (title) @if is_here { span aria-hidden="true" { (if is_down { " ↓" } else { " ↑" }) } } }
        }
    }
}

fn host_row(visit: &Visit<'_>, row: &HostRow) -> Markup {
    let counts = row.counts.clone().unwrap_or_default();
    html! {
        tr {
            td class="name" { a href=(visit.host(&row.host)) { (row.host) } }
            td {
                (badge::state(row.state))
                @if row.maintenance { " " span class="tag" { "maintenance" } }
            }
            td class="number" data-label="Score" {
                @if let Some(score) = counts.score { (chart::bar(score)) " " (words::score(score)) " %" } @else { "–" }
            }
            td class="number" data-label="Failing" { (counts.fail) }
            td class="number" data-label="Not assessed" { (counts.not_assessed + counts.error) }
            td class="nowrap" data-label="Scanned" {
                @match &row.assessed { Some(at) => (when::age(at.0, visit.moment())), None => "never" }
                @if let Some(failed) = &row.last_attempt_failed { br; span class="small doubt" { (words::failure(failed.reason)) } }
            }
            td data-label="Site" { (row.site) }
        }
    }
}
