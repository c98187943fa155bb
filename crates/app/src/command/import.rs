//! `holdfast import`: what other tools found.

use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use scan::import::{Error, Header, Imports, Kind, RuleResult, TestResult, rules_for};
use serde_json::{Value, json};
use world::{File, Timestamp};

use crate::{
    cli::{
        Output,
        import::{Action, Import},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment, named_file,
    present::{counted, csv, safe, table},
    screen::Screen,
    site::Site,
};

/// Bytes read at once.
const BUFFER_LEN: usize = 1 << 16;
/// Characters of an id that are shown where it need only be told from others.
const SHORT_ID: usize = 12;

pub(crate) fn run(asked: &Import, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match &asked.action {
        Action::Xccdf { file, host } => {
            if file.as_os_str() == "-" {
                let input = BufReader::with_capacity(BUFFER_LEN, io::stdin().lock());
                return import(input, "standard input", host.as_deref(), config, screen);
            }
            let opened = open(file).map_err(|error| unreadable(file, error))?;
            let name = file.display().to_string();
            import(opened, &name, host.as_deref(), config, screen)
        }
        Action::List { host } => list(host.as_deref(), config, screen),
        Action::Show { id } => show(id, config, screen),
    }
}

fn unreadable(file: &Path, error: io::Error) -> Refusal {
    Refusal::new(file.display().to_string())
        .source(error)
        .next("name a file that `oscap xccdf eval --results FILE` wrote")
}

/// A file, read from its beginning.
struct Reading {
    file: Arc<dyn File>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn open(file: &Path) -> io::Result<BufReader<Reading>> {
    let file = named_file::open(file)?;
    Ok(BufReader::with_capacity(
        BUFFER_LEN,
        Reading { file, at: 0 },
    ))
}

fn import(
    input: impl BufRead,
    name: &str,
    host: Option<&str>,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let now = super::now();
    // Read whole before anything is opened or made: a file that is refused leaves no trace.
    let content = scan::import::read(input, host, now).map_err(|error| refused(name, &error))?;
    let site = Site::open(config, screen)?;
    let outcome = Imports::new(site.store().clone())
        .and_then(|imports| imports.add(&content, name, now, &super::actor()))
        .map_err(|error| refused(name, &error));
    site.close(screen);
    let outcome = outcome?;
    let text = match config.output.value {
        Output::Json => super::json(&json!({
            "added": outcome.added.iter().map(document).collect::<Vec<_>>(),
            "known": outcome.known,
        }))?,
        Output::Csv => lines(&outcome.added),
        Output::Table if outcome.added.is_empty() => format!(
            "nothing new: {} imported already",
            match outcome.known {
                1 => "the result is".to_owned(),
                known => format!("all {known} results are"),
            }
        ),
        Output::Table => rows(&outcome.added),
    };
    screen.result(&text)?;
    if !outcome.added.is_empty() && outcome.known > 0 {
        let known = counted(outcome.known as u64, "result");
        screen.remark(format_args!("{known} imported already"));
    }
    Ok(Exit::Clean)
}

fn refused(name: &str, error: &Error) -> Refusal {
    let next = match error.kind() {
        Kind::Invalid => {
            "nothing was imported; give a whole file that `oscap xccdf eval --results FILE` or \
             `--results-arf FILE` wrote"
        }
        Kind::Read => "nothing was imported; check the file and its disk",
        Kind::Conflict => "try again",
        Kind::Storage => "run `holdfast doctor` to check disk and data directory",
    };
    Refusal::new(format!("{name}: {error}")).next(next)
}

fn list(host: Option<&str>, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let found = Imports::new(site.store().clone())
        .and_then(|imports| imports.list(host))
        .map_err(|error| refused("imported results", &error))?;
    let text = match config.output.value {
        Output::Json => super::json(&json!({
            "imported": found.iter().map(document).collect::<Vec<_>>(),
        }))?,
        Output::Csv => lines(&found),
        Output::Table if found.is_empty() => "nothing is imported".to_owned(),
        Output::Table => rows(&found),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn document(header: &Header) -> Value {
    let time = |at: u64| moment::rfc3339(Timestamp::from_nanos(at));
    json!({
        "id": header.id,
        "host": header.host,
        "started": header.started.map(time),
        "finished": time(header.finished),
        "zone_assumed": header.is_zone_assumed,
        "tool": header.tool,
        "benchmark": header.benchmark,
        "profile": header.profile,
        "test_id": header.test_id,
        "counts": header.counts,
        "imported": time(header.imported),
        "by": header.by,
        "file": header.file,
    })
}

fn cells(header: &Header, time: impl Fn(Timestamp) -> String) -> [String; 9] {
    let counts = &header.counts;
    let last = |text: &str| {
        let name = text.rsplit(['_', '/']).next().unwrap_or(text);
        name.to_owned()
    };
    [
        header.host.clone(),
        time(Timestamp::from_nanos(header.finished)),
        last(&header.benchmark),
        last(&header.profile),
        counts.pass.to_string(),
        counts.fail.to_string(),
        (counts.not_assessed() + counts.error).to_string(),
        counts.notapplicable.to_string(),
        header.id.clone(),
    ]
}

fn rows(headers: &[Header]) -> String {
    let heading = [
        "HOST",
        "FINISHED",
        "BENCHMARK",
        "PROFILE",
        "PASS",
        "FAIL",
        "NOT ASSESSED",
        "NOT APPLICABLE",
        "ID",
    ];
    table::rows(
        heading,
        headers.iter().map(|header| {
            let mut cells = cells(header, moment::local);
            cells[8].truncate(SHORT_ID);
            cells
        }),
    )
}

fn lines(headers: &[Header]) -> String {
    let heading = [
        "host",
        "finished",
        "benchmark",
        "profile",
        "pass",
        "fail",
        "not_assessed",
        "not_applicable",
        "id",
    ];
    csv::lines(
        heading,
        headers.iter().map(|header| cells(header, moment::rfc3339)),
    )
}

fn show(id: &str, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let found = Imports::new(site.store().clone())
        .and_then(|imports| imports.find(id))
        .map_err(|error| refused("imported results", &error))?
        .ok_or_else(|| {
            Refusal::new(format!("no imported result `{id}`"))
                .next("`holdfast import list` prints the ids")
        })?;
    let text = match config.output.value {
        Output::Json => {
            let mut whole = document(&found.header);
            whole["rules"] = found.rules.iter().map(rule_document).collect();
            super::json(&whole)?
        }
        Output::Csv => csv::lines(
            ["rule", "result", "verdict", "severity", "ours", "title"],
            found.rules.iter().map(rule_cells),
        ),
        Output::Table => words(&found),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn rule_document(result: &RuleResult) -> Value {
    json!({
        "rule": result.rule,
        "result": result.result,
        "verdict": result.result.verdict(),
        "severity": result.severity,
        "ours": rules_for(&result.rule).collect::<Vec<_>>(),
        "title": result.title,
    })
}

fn rule_cells(result: &RuleResult) -> [String; 6] {
    [
        result.rule.clone(),
        result.result.name().to_owned(),
        result
            .result
            .verdict()
            .map_or("", scan::judge::Outcome::name)
            .to_owned(),
        result.severity.clone(),
        rules_for(&result.rule).collect::<Vec<_>>().join(" "),
        result.title.clone(),
    ]
}

fn words(found: &TestResult) -> String {
    let header = &found.header;
    let zone = if header.is_zone_assumed {
        " (the file names no zone; taken for UTC)"
    } else {
        ""
    };
    let heading = format!(
        "imported from {} on {} by {}\nhost       {}\nfinished   {}{zone}\ntool       {}\nbenchmark  {}\nprofile    {}\nid         {}\n\n",
        safe(&header.file),
        moment::local(Timestamp::from_nanos(header.imported)),
        safe(&header.by),
        safe(&header.host),
        moment::local(Timestamp::from_nanos(header.finished)),
        safe(&header.tool),
        safe(&header.benchmark),
        safe(&header.profile),
        header.id,
    );
    let rules = found.rules.iter().map(|result| {
        let [rule, said, _, severity, ours, title] = rule_cells(result);
        let short = rule.rsplit_once("_rule_").map(|(_, name)| name.to_owned());
        [said, severity, short.unwrap_or(rule), ours, title]
    });
    let mut text = heading;
    text.push_str(&table::rows(
        ["RESULT", "SEVERITY", "RULE", "OURS", "TITLE"],
        rules,
    ));
    if header.counts.notselected > 0 {
        let left = counted(header.counts.notselected, "rule");
        text.push_str(&format!(
            "\n{left} of the benchmark not selected by the profile\n"
        ));
    }
    text
}
