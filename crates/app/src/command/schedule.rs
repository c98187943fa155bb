//! `holdfast schedule`: when each host is scanned next, and what the schedule counted.

use std::sync::Arc;

use scan::{
    backend::{Backend, Counters, Embedded, JobView, Maintenance, Tick},
    schedule::{self, Kind, Probe, Row},
};
use world::{RealRandom, Timestamp};

use crate::{
    cli::{Output, schedule::Schedule},
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, table},
    screen::Screen,
    site::{self, Site},
};

/// Jobs of one listing: more than a queue has when anybody looks at it. Arbitrary.
const JOBS_MAX: usize = 100_000;

pub(crate) fn run(asked: &Schedule, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let text = with_backend(config, screen, |backend| {
        if asked.counters {
            let counters = backend.counters().map_err(refused)?;
            return print_counters(&counters, config.output.value);
        }
        if asked.jobs {
            let jobs = backend.jobs(JOBS_MAX).map_err(refused)?;
            return print_jobs(&jobs, config.output.value);
        }
        if asked.now {
            for host in &asked.hosts {
                let found = backend.hasten(host, super::now(), &super::actor());
                if !found.map_err(refused)? {
                    return Err(unknown(host));
                }
            }
        }
        let rows = chosen(backend.schedule().map_err(refused)?, &asked.hosts)?;
        let maintenances = backend.maintenances().map_err(refused)?;
        print_rows(&rows, &maintenances, super::now(), config.output.value)
    })?;
    if asked.now {
        site::changed(config.data_dir()?, screen);
    }
    screen.result(&text)?;
    Ok(Exit::Clean)
}

/// Runs `work` on the schedule of the data directory, and closes it whatever comes of it. Without the
/// key of the queue: what is asked here enqueues nothing.
pub(super) fn with_backend<T>(
    config: &Config,
    screen: Screen,
    work: impl FnOnce(&Embedded) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let done = Embedded::without_key(site.store().clone(), Arc::new(RealRandom))
        .map_err(refused)
        .and_then(|backend| work(&backend));
    site.close(screen);
    done
}

/// An error of the schedule as the user sees it.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn refused(error: schedule::Error) -> Refusal {
    if let Some(of_store) = error.of_store() {
        return Site::store_refused(of_store.clone());
    }
    let next = match error.kind() {
        Kind::Conflict => "try again",
        Kind::Invalid => "nothing was changed; mend what it names",
        Kind::LeaseLost | Kind::Refused | Kind::Storage => {
            "run `holdfast doctor` to check disk and data directory"
        }
    };
    Refusal::new(error.to_string()).next(next)
}

fn unknown(host: &str) -> Refusal {
    Refusal::new(format!("host `{host}` is not in the schedule"))
        .next("`holdfast schedule` lists those that are, `holdfast host add` adds one")
}

fn chosen(rows: Vec<Row>, hosts: &[String]) -> Result<Vec<Row>, Refusal> {
    if let Some(host) = hosts
        .iter()
        .find(|host| !rows.iter().any(|row| row.host == **host))
    {
        return Err(unknown(host));
    }
    let is_chosen = |row: &Row| hosts.is_empty() || hosts.contains(&row.host);
    Ok(rows.into_iter().filter(is_chosen).collect())
}

fn print_rows(
    rows: &[Row],
    maintenances: &[Maintenance],
    now: Timestamp,
    output: Output,
) -> Result<String, Refusal> {
    let blocked = |row: &Row| {
        let of_host = maintenances.iter().filter(|it| it.blocks(row, now));
        // The one that ends last; one without an end is longest.
        of_host.max_by_key(|it| it.until.unwrap_or(u64::MAX))
    };
    Ok(match output {
        Output::Json => super::json(&serde_json::json!({
            "hosts": rows.iter().map(|row| document(row, blocked(row).is_some())).collect::<Vec<_>>(),
        }))?,
        Output::Csv => csv::lines(
            [
                "host",
                "site",
                "state",
                "score",
                "next",
                "last_finished",
                "waits_for",
            ],
            rows.iter().map(|row| {
                [
                    row.host.clone(),
                    row.site.clone(),
                    row.state.name().to_owned(),
                    row.score
                        .map_or_else(String::new, |score| format!("{score:.1}")),
                    rfc3339(row.next),
                    row.last_finished.map_or_else(String::new, rfc3339),
                    waits_for(row, blocked(row), now).0.to_owned(),
                ]
            }),
        ),
        Output::Table if rows.is_empty() => {
            "no host is in the schedule; `holdfast host add` adds one\n".to_owned()
        }
        Output::Table => table::rows(
            ["HOST", "SITE", "STATE", "SCORE", "LAST SCAN", "NEXT SCAN"],
            rows.iter().map(|row| {
                let (_, next) = waits_for(row, blocked(row), now);
                [
                    row.host.clone(),
                    row.site.clone(),
                    row.state.name().replace('_', "-"),
                    row.score
                        .map_or_else(String::new, |score| format!("{score:.1} %")),
                    row.last_finished.map_or_else(|| "never".to_owned(), local),
                    next,
                ]
            }),
        ),
    })
}

/// What the next scan of a host waits for: in a word, and for people.
fn waits_for(row: &Row, blocked: Option<&Maintenance>, now: Timestamp) -> (&'static str, String) {
    let until = row.backoff.get(&Probe::Scan).and_then(|it| it.until);
    if row.job.is_some() {
        ("job", "queued or running".to_owned())
    } else if let Some(maintenance) = blocked {
        let end = maintenance.until.map_or_else(
            || "when maintenance is cleared".to_owned(),
            |until| format!("after maintenance, {}", local(until)),
        );
        ("maintenance", end)
    } else if let Some(until) = until.filter(|until| *until > now.nanos().max(row.next)) {
        let failures = row.backoff[&Probe::Scan].failures;
        (
            "backoff",
            format!("{}, after {failures} failures", local(until)),
        )
    } else if row.next <= now.nanos() {
        ("tick", "due".to_owned())
    } else {
        ("time", local(row.next))
    }
}

fn document(row: &Row, in_maintenance: bool) -> serde_json::Value {
    let backoff: Vec<_> = row
        .backoff
        .iter()
        .map(|(probe, backoff)| {
            serde_json::json!({
                "probe": probe,
                "failures": backoff.failures,
                "last_failed": rfc3339(backoff.last_failed),
                "reason": backoff.reason,
                "until": backoff.until.map(rfc3339),
            })
        })
        .collect();
    serde_json::json!({
        "host": row.host,
        "site": row.site,
        "groups": row.groups,
        "state": row.state,
        "score": row.score,
        "next": rfc3339(row.next),
        "last_finished": row.last_finished.map(rfc3339),
        "last_scan": row.last_scan,
        "policy_version": row.policy_version,
        "job": row.job,
        "in_maintenance": in_maintenance,
        "backoff": backoff,
    })
}

fn print_jobs(jobs: &[JobView], output: Output) -> Result<String, Refusal> {
    let cells = |job: &JobView, time: fn(u64) -> String| {
        let (worker, until) = job.worker.clone().unzip();
        [
            job.job.clone(),
            job.host.clone(),
            job.site.clone(),
            time(job.enqueued),
            worker.unwrap_or_default(),
            until.map_or_else(String::new, time),
            job.attempt.to_string(),
        ]
    };
    Ok(match output {
        Output::Json => super::json(&serde_json::json!({
            "jobs": jobs.iter().map(|job| serde_json::json!({
                "job": job.job,
                "host": job.host,
                "site": job.site,
                "policy_version": job.policy_version,
                "enqueued": rfc3339(job.enqueued),
                "worker": job.worker.as_ref().map(|(worker, _)| worker),
                "lease_until": job.worker.as_ref().map(|(_, until)| rfc3339(*until)),
                "attempt": job.attempt,
            })).collect::<Vec<_>>(),
        }))?,
        Output::Csv => csv::lines(
            [
                "job",
                "host",
                "site",
                "enqueued",
                "worker",
                "lease_until",
                "attempt",
            ],
            jobs.iter().map(|job| cells(job, rfc3339)),
        ),
        Output::Table if jobs.is_empty() => "no job waits or runs\n".to_owned(),
        Output::Table => table::rows(
            [
                "JOB",
                "HOST",
                "SITE",
                "ENQUEUED",
                "WORKER",
                "LEASE UNTIL",
                "ATTEMPT",
            ],
            jobs.iter().map(|job| cells(job, local)),
        ),
    })
}

fn print_counters(counters: &Counters, output: Output) -> Result<String, Refusal> {
    let of = |tick: &Tick| {
        [
            ("due", tick.due),
            ("dispatched", tick.dispatched),
            ("skipped_maintenance", tick.skipped_maintenance),
            ("skipped_backoff", tick.skipped_backoff),
            ("skipped_unfinished", tick.skipped_unfinished),
            ("left", tick.left),
        ]
    };
    let alone = [
        ("refused", counters.refused),
        ("hmac_rejected", counters.hmac_rejected),
        ("clamped", counters.clamped),
        ("reaped", counters.reaped),
        ("ticks", counters.ticks),
    ];
    Ok(match output {
        Output::Json => super::json(&serde_json::json!({
            "last_tick": counters.last_tick.map(rfc3339),
            "last": counters.last,
            "total": counters.total,
            "ticks": counters.ticks,
            "refused": counters.refused,
            "hmac_rejected": counters.hmac_rejected,
            "clamped": counters.clamped,
            "reaped": counters.reaped,
        }))?,
        Output::Csv | Output::Table => {
            let both = of(&counters.total).into_iter().zip(of(&counters.last));
            let rows = both
                .map(|((name, total), (_, last))| {
                    [name.to_owned(), total.to_string(), last.to_string()]
                })
                .chain(
                    alone.map(|(name, total)| [name.to_owned(), total.to_string(), String::new()]),
                );
            if output == Output::Csv {
                csv::lines(["counter", "total", "last_tick"], rows)
            } else {
                let when = counters.last_tick.map_or_else(|| "never".to_owned(), local);
                let counted = table::rows(["COUNTER", "TOTAL", "LAST TICK"], rows);
                format!("{counted}\nlast tick: {when}\n")
            }
        }
    })
}

pub(super) fn rfc3339(nanos: u64) -> String {
    moment::rfc3339(Timestamp::from_nanos(nanos))
}

pub(super) fn local(nanos: u64) -> String {
    moment::local(Timestamp::from_nanos(nanos))
}
