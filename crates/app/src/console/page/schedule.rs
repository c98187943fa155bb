//! When hosts are scanned next, what is under way, and what is left alone.

use maud::{Markup, html};

use crate::{
    console::{badge, visit::Visit, when},
    present::counted,
    view::{self, CountersView, JobRow, MaintenanceRow, ScheduleRow},
};

use super::words;

const ROWS_SHOWN: usize = 200;

pub(in crate::console) fn schedule(visit: &Visit<'_>) -> Result<Markup, view::Error> {
    let rows = view::schedule(&visit.reader)?;
    let jobs = view::jobs(&visit.reader)?;
    let maintenances = view::maintenances(&visit.reader)?;
    let counters = view::counters(&visit.reader)?;
    let due = rows
        .iter()
        .filter(|row| row.next.0 <= visit.now && !row.maintenance)
        .count();
    let content = html! {
        div class="title" {
            h1 { "Schedule" }
            p class="soft" { (counted(rows.len() as u64, "host")) ", " (due) " due, " (counted(jobs.len() as u64, "scan")) " waiting or under way" }
        }
        @if let Some(at) = visit.at {
            div class="note doubt" role="note" { p { strong { "This is the schedule as it is now" } ", not as it was " (when::full(at)) ": no past of it is kept." } }
        }
        (ticks(visit, &counters))
        div class="grid" { (under_way(visit, &jobs)) (left_alone(visit, &maintenances)) }
        (next(visit, &rows))
    };
    visit.page("Schedule").show(&content)
}

fn ticks(visit: &Visit<'_>, counters: &CountersView) -> Markup {
    html! {
        @match counters.last_tick {
            Some(tick) => p class="lead" { "The schedule was last looked at " (when::age(tick.0, visit.now)) "." },
            None => p class="lead" { "The schedule was never looked at: `holdfast up` does so each minute." },
        }
        @if counters.hmac_rejected > 0 {
            div class="note bad" role="note" { p { strong { (counted(counters.hmac_rejected, "job")) " did not carry our mark" } " and were not run. If nobody changed the data key, somebody wrote into the queue: look at the audit log." } }
        }
        br;
    }
}

fn under_way(visit: &Visit<'_>, jobs: &[JobRow]) -> Markup {
    html! {
        section class="card w6" aria-labelledby="jobs" {
            h2 id="jobs" { "Waiting and under way" }
            @if jobs.is_empty() { p class="empty" { strong { "Nothing is being scanned." } " The next scans stand below." } }
            ul class="list" {
                @for job in jobs.iter().take(ROWS_SHOWN) {
                    li {
                        a class="first" href=(visit.host(&job.host)) { (job.host) }
                        span class="soft small" { "asked for " (when::age(job.enqueued.0, visit.now)) }
                        span class="under" {
                            @match &job.worker { Some(worker) => { "with worker " (worker) }, None => "waits for a worker" }
                            @if job.attempt > 1 { ", attempt " (job.attempt) }
                        }
                    }
                }
            }
        }
    }
}

fn left_alone(visit: &Visit<'_>, maintenances: &[MaintenanceRow]) -> Markup {
    html! {
        section class="card w6" aria-labelledby="maintenance" {
            h2 id="maintenance" { "Maintenance" }
            @if maintenances.is_empty() {
                p class="empty" { strong { "Nothing is left alone." } " An operator sets maintenance with " code { "holdfast maintenance set" } "." }
            }
            ul class="list" {
                @for set in maintenances {
                    li {
                        span class="first" { (set.scope) " " strong { (set.name) } }
                        span class="soft small" { @match set.until { Some(until) => { "until " (when::short(until.0, visit.now)) }, None => "until it is ended" } }
                        span class="under" { (set.reason) " · by " (set.by) ", since " (when::short(set.since.0, visit.now)) }
                    }
                }
            }
        }
    }
}

fn next(visit: &Visit<'_>, rows: &[ScheduleRow]) -> Markup {
    html! {
        section class="card" aria-labelledby="next" {
            h2 id="next" { "Next scans" }
            @if rows.is_empty() { p class="empty" { strong { "No host is in the schedule." } " A host that is added is due at once." } }
            @else { div class="scroll" { table class="stacked" {
                caption { (words::shown(rows.len().min(ROWS_SHOWN), rows.len(), "host")) ", the soonest first" }
                thead { tr { th scope="col" { "Host" } th scope="col" { "Next" } th scope="col" { "State" } th scope="col" { "Last scan" } th scope="col" { "Policy" } th scope="col" { "Attempts that failed" } } }
                tbody {
                    @for row in rows.iter().take(ROWS_SHOWN) {
                        tr {
                            td class="name" { a href=(visit.host(&row.host)) { (row.host) } }
                            td class="nowrap" data-label="Next" {
                                @if row.next.0 <= visit.now { "due now" } @else { (when::age(row.next.0, visit.now)) }
                                @if row.job.is_some() { " " span class="tag" { "under way" } }
                                @if row.maintenance { " " span class="tag" { "maintenance" } }
                            }
                            td { (badge::state(row.state)) }
                            td class="nowrap" data-label="Last scan" { @match row.last_finished { Some(at) => (when::age(at.0, visit.now)), None => "never" } }
                            td data-label="Policy" { (row.policy_version.as_deref().unwrap_or("–")) }
                            td class="words" data-label="Attempts that failed" { @if let Some(attempt) = &row.last_attempt_failed { (attempt.failures) ": " (words::failure(attempt.reason)) } }
                        }
                    }
                }
            } } }
        }
    }
}
