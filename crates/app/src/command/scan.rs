//! `holdfast scan`: collect, judge, record, print.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use scan::{
    collect,
    facts::Facts,
    judge::{self, Verdict},
    ledger::{Applied, Finding, LogSink},
    rule::Rule,
};
use uuid::Uuid;
use world::{Clock, Disk, RealClock, RealDisk, Timestamp};

use crate::{
    cli::{self, Output, Scope},
    config::Config,
    document::{ChangeRow, Report, VerdictRow},
    exit::{Exit, Refusal},
    moment, named_file,
    present::{ChangesSince, Summary, change_line, csv, table, verdicts},
    progress::Watch,
    ruleset::Ruleset,
    screen::{self, Screen},
    site::{self, Site},
    waived::Waived,
};

/// Largest fact bundle read back, in bytes. One of a usual host has a quarter of a MiB; JSON in memory
/// takes up to 25 times its text, so this bounds memory below a gigabyte.
const FACTS_LEN_MAX: u64 = 32 << 20;

/// Where the facts of a scan come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    ThisMachine { walk: bool },
    Replay(&'a Path),
}

/// A scan that was judged and recorded.
pub(super) struct Done {
    pub(super) recorded: scan::ledger::Scan,
    pub(super) applied: Applied,
    waived: Waived,
    facts: Facts,
}

pub(crate) fn run(asked: &cli::Scan, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if asked.show_collectors {
        return show_collectors(config.output.value, screen);
    }
    let rules = Ruleset::load(config, asked.scope.rules_dir.as_deref())?;
    let source = match &asked.replay {
        Some(file) => Source::Replay(file),
        None => this_machine(&asked.scope, config),
    };
    if let Some(file) = &asked.facts_out {
        // Before the work; where it leads is looked at again when it is written.
        facts_file(file)?;
    }
    let stop = site::stop_flag()?;
    let done = scan_once(
        source,
        &rules,
        config,
        screen,
        &stop,
        asked.facts_out.as_deref(),
    )?
    .ok_or_else(|| {
        Refusal::new("stopped before the scan was complete; nothing was recorded")
            .next("scan again; what was recorded before is as it was")
    })?;
    print(&done, &rules, config.output.value, screen)
}

pub(super) fn this_machine(scope: &Scope, config: &Config) -> Source<'static> {
    Source::ThisMachine {
        walk: config.scan_walk.value && !scope.no_walk,
    }
}

/// One scan from collection to record. `None` when it was stopped: a scan cut short is not recorded,
/// because what it did not reach would read as a change.
pub(super) fn scan_once(
    source: Source<'_>,
    rules: &Ruleset,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
    facts_out: Option<&Path>,
) -> Result<Option<Done>, Refusal> {
    let clock = RealClock::new();
    let started = clock.now();
    let facts = match source {
        Source::ThisMachine { walk } => {
            // Before the work, so that a directory that cannot be used is known at once.
            open_and_report(config, screen)?.close(screen);
            collect_here(rules, walk, screen, stop)?
        }
        Source::Replay(file) => read_facts(file)?,
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    if let Some(path) = facts_out {
        write_facts(path, &facts)?;
        screen.remark(format_args!("facts written to {}", path.display()));
    }
    let site = Site::open(config, screen)?;
    let tuned = site.tuned(rules.all(), &facts.host.hostname, screen)?;
    let verdicts = judge::judge(&tuned, &facts);
    let finished = up_to_millisecond(clock.now());
    let recorded = to_record(&facts, &verdicts, &tuned, started, finished);
    let applied = site
        .ledger()
        .apply(&recorded, &LogSink)
        .map_err(Site::refused)?;
    let waived = Waived::of(&site, &recorded.host, None, clock.now())?;
    site.close(screen);
    Ok(Some(Done {
        recorded,
        applied,
        waived,
        facts,
    }))
}

/// Rounded up to what is printed, so that the printed time is the recorded one and asks for this
/// scan and not for the one before it.
fn up_to_millisecond(at: Timestamp) -> Timestamp {
    const MILLISECOND: u64 = 1_000_000;
    Timestamp::from_nanos(at.nanos().next_multiple_of(MILLISECOND))
}

fn open_and_report(config: &Config, screen: Screen) -> Result<Site, Refusal> {
    let site = Site::open(config, screen)?;
    screen.step(format_args!(
        "{}: {}",
        site.dir().display(),
        site.recovery()
    ));
    Ok(site)
}

fn collect_here(
    rules: &Ruleset,
    walk: bool,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Facts, Refusal> {
    let watch = Arc::new(Watch::new(screen, Arc::clone(stop)));
    let collectors: Vec<&'static collect::Collector> = collect::list()
        .iter()
        .copied()
        .filter(|collector| walk || collector.name != "walk")
        .collect();
    let facts = collect::collect_only(
        &collectors,
        super::this_machine()?,
        Arc::new(rules.needs()),
        Arc::clone(&watch) as Arc<dyn collect::Progress>,
        Arc::new(RealClock::new()),
    );
    watch.clear();
    Ok(facts)
}

fn read_facts(file: &Path) -> Result<Facts, Refusal> {
    let refuse = || {
        Refusal::new(format!("facts {}", file.display()))
            .next("give a file written by `holdfast scan --facts-out FILE`")
    };
    let bytes = named_file::read(file, FACTS_LEN_MAX).map_err(|error| refuse().source(error))?;
    let facts = Facts::from_json(&bytes).map_err(|error| refuse().source(error))?;
    if facts.host.hostname.is_empty() {
        return Err(
            Refusal::new(format!("facts {} name no host", file.display()))
                .next("give a file whose `host.hostname` is filled in"),
        );
    }
    Ok(facts)
}

fn write_facts(file: &Path, facts: &Facts) -> Result<(), Refusal> {
    let path = facts_file(file)?;
    RealDisk
        .replace(&path, facts.to_json().as_bytes())
        .map_err(|error| facts_not_written(file, error))
}

fn facts_file(file: &Path) -> Result<PathBuf, Refusal> {
    named_file::replaceable(file).map_err(|error| facts_not_written(file, error))
}

fn facts_not_written(file: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(format!("facts {} cannot be written", file.display()))
        .source(error)
        .next("name a regular file in a directory that can be written")
}

fn to_record(
    facts: &Facts,
    verdicts: &[Verdict],
    rules: &[Rule],
    started: Timestamp,
    finished: Timestamp,
) -> scan::ledger::Scan {
    let findings = rules
        .iter()
        .zip(verdicts)
        .map(|(rule, verdict)| Finding::of(rule, verdict))
        .collect();
    scan::ledger::Scan {
        id: Uuid::new_v4(),
        host: facts.host.hostname.clone(),
        started,
        finished,
        summary: judge::Summary::of(verdicts.iter().map(|verdict| verdict.verdict)),
        findings,
    }
}

pub(super) fn print(
    done: &Done,
    rules: &Ruleset,
    output: Output,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let report = report(done);
    let text = match output {
        Output::Json => super::json(&report)?,
        Output::Csv => verdicts::csv(&report.verdicts),
        Output::Table => summary(done, &report, rules).render(),
    };
    screen.result(&text)?;
    Ok(Exit::of_verdicts(&report.summary))
}

fn report(done: &Done) -> Report {
    let scan = &done.recorded;
    let mut report = Report {
        scan_id: scan.id.to_string(),
        host: scan.host.clone(),
        started: moment::rfc3339(scan.started),
        finished: moment::rfc3339(scan.finished),
        summary: scan.summary.clone(),
        with_waivers: None,
        verdicts: scan
            .findings
            .iter()
            .map(|finding| VerdictRow {
                rule: finding.rule.clone(),
                severity: finding.severity,
                verdict: finding.verdict,
                reason: finding.reason.clone(),
                evidence: finding.evidence_digest.clone(),
                waiver: None,
            })
            .collect(),
        changes: Some(
            done.applied
                .changes
                .iter()
                .map(ChangeRow::of_change)
                .collect(),
        ),
    };
    done.waived.beside(&mut report);
    report
}

fn summary(done: &Done, report: &Report, rules: &Ruleset) -> Summary {
    let system = done
        .facts
        .facts
        .get("os")
        .and_then(|os| os.get("pretty_name"))
        .and_then(|name| name.as_str())
        .unwrap_or("unknown system");
    Summary {
        heading: vec![
            done.recorded.host.clone(),
            system.to_owned(),
            moment::local(done.recorded.finished),
        ],
        counts: report.summary.clone(),
        lines: verdicts::lines(&report.verdicts, rules),
        changes: changes_since(&done.applied),
        width: screen::width().map(usize::from),
    }
}

pub(super) fn changes_since(applied: &Applied) -> ChangesSince {
    applied
        .previous
        .map_or(ChangesSince::FirstScan, |previous| {
            ChangesSince::Scan(moment::local(previous), changed_rules(applied))
        })
}

pub(super) fn changed_rules(applied: &Applied) -> Vec<String> {
    applied.changes.iter().map(change_line).collect()
}

/// What the collectors touch on the machine (EXE-12).
fn show_collectors(output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let rows: Vec<[String; 5]> = collect::list()
        .iter()
        .map(|collector| {
            let privilege = match collector.privilege {
                collect::Privilege::None => "none".to_owned(),
                collect::Privilege::Partly(part) => format!("root for {part}"),
                collect::Privilege::Root => "root".to_owned(),
            };
            [
                collector.name.to_owned(),
                collector.about.to_owned(),
                collector.reads.join(" "),
                collector.runs.join("; "),
                privilege,
            ]
        })
        .collect();
    let names = ["collector", "about", "reads", "runs", "privilege"];
    let text = match output {
        Output::Table => table::rows(["COLLECTOR", "ABOUT", "READS", "RUNS", "PRIVILEGE"], rows),
        Output::Csv => csv::lines(names, rows),
        Output::Json => {
            let documents: Vec<serde_json::Value> = rows
                .into_iter()
                .map(|row| names.into_iter().zip(row).collect())
                .collect();
            super::json(&documents)?
        }
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}
