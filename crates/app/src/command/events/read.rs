//! `holdfast events tail` and `query`: from the log itself, or from the server that has it open.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, BufRead, Read as _},
    net::Shutdown,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use events::{Event, lines};
use serde_json::Value;
use wal::Lsn;
use world::{Clock, RealClock};

use crate::{
    cli::{
        Output,
        events::{Filter, Query, Tail},
    },
    command::moment,
    config::Config,
    events::{Access, Events, client, refused},
    exit::{Exit, Refusal},
    present::{csv, event},
    screen::Screen,
    site,
};

/// How often a log that no server has open is looked at for what came; each look opens it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the stop flag is looked at while a server is listened to.
const STOP_POLL: Duration = Duration::from_millis(100);

pub(crate) fn tail(tail: &Tail, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let filter = Wanted::of(&tail.filter)?;
    let stop = site::stop_flag()?;
    let count = usize::try_from(tail.lines).unwrap_or(usize::MAX);
    let mut newest: VecDeque<Event> = VecDeque::new();
    let access = Events::reach_existing(config, screen)?;
    let wanted = filter.last(count);
    let mut next = each(&access, &wanted, &stop, |event| {
        if newest.len() == count {
            newest.pop_front();
        }
        if count > 0 {
            newest.push_back(event);
        }
        Ok(true)
    })?;
    drop(access);
    let mut printer = Printer::new(config, screen)?;
    for event in &newest {
        printer.print(event)?;
    }
    if tail.follow {
        if let Some(last) = newest.back() {
            next = next.max(last.id.lsn.next());
        }
        follow(&filter.from(next), config, screen, &stop, &mut printer)?;
    }
    Ok(Exit::Clean)
}

pub(crate) fn query(query: &Query, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let mut filter = Wanted::of(&query.filter)?;
    filter.limit = query.limit;
    let stop = site::stop_flag()?;
    let mut printer = Printer::new(config, screen)?;
    let mut left = query.limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(Exit::Clean);
    }
    let access = Events::reach_existing(config, screen)?;
    let next = each(&access, &filter, &stop, |event| {
        printer.print(&event)?;
        left -= 1;
        Ok(left > 0 && printer.has_reader)
    })?;
    drop(access);
    if query.follow && left > 0 && printer.has_reader {
        filter.limit = query.limit.map(|_| left);
        follow(&filter.from(next), config, screen, &stop, &mut printer)?;
    }
    Ok(Exit::Clean)
}

/// Prints what comes until stopped. A server tells by itself; a log without one is opened again and
/// again, so that whoever appends meanwhile finds it free.
fn follow(
    filter: &Wanted,
    config: &Config,
    screen: Screen,
    stop: &AtomicBool,
    printer: &mut Printer,
) -> Result<(), Refusal> {
    let mut filter = filter.clone();
    let mut left = filter.limit.unwrap_or(u64::MAX);
    let clock = RealClock::new();
    while !stop.load(Ordering::Relaxed) && left > 0 && printer.has_reader {
        let access = Events::reach_existing(config, screen)?;
        filter.is_following = matches!(access, Access::Served(_));
        let next = each(&access, &filter, stop, |event| {
            printer.print(&event)?;
            left -= 1;
            Ok(left > 0 && printer.has_reader)
        })?;
        drop(access);
        filter = filter.from(next);
        if !stop.load(Ordering::Relaxed) && left > 0 {
            clock.sleep(LOOK_AGAIN);
        }
    }
    Ok(())
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    filter: events::Filter,
    from: Option<Lsn>,
    last: Option<usize>,
    limit: Option<u64>,
    is_following: bool,
}

impl Wanted {
    pub(super) fn of(filter: &Filter) -> Result<Self, Refusal> {
        let time = |text: &Option<String>| text.as_deref().map(moment).transpose();
        Ok(Self {
            filter: events::Filter {
                classes: filter.classes.clone(),
                source: filter.source.clone(),
                since: time(&filter.since)?,
                until: time(&filter.until)?,
                trace: filter.trace,
                producer_id: None,
            },
            from: filter.from.map(Lsn::new),
            ..Self::default()
        })
    }

    /// The newest so many, where whoever answers can find them without reading all.
    fn last(&self, count: usize) -> Self {
        Self {
            last: Some(count),
            ..self.clone()
        }
    }

    fn from(&self, from: Lsn) -> Self {
        Self {
            from: Some(from),
            ..self.clone()
        }
    }

    /// Path and query of the request.
    fn target(&self) -> String {
        let mut target = "/api/v1/events?".to_owned();
        let mut add = |name: &str, value: &str| {
            if !target.ends_with('?') {
                target.push('&');
            }
            target.push_str(name);
            target.push('=');
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
                    target.push(char::from(byte));
                } else {
                    write!(target, "%{byte:02X}").expect("writing to a string cannot fail");
                }
            }
        };
        for class in &self.filter.classes {
            add("class", class.as_str());
        }
        if let Some(source) = &self.filter.source {
            add("source", source);
        }
        if let Some(since) = self.filter.since {
            add("since", &lines::rfc3339(since));
        }
        if let Some(until) = self.filter.until {
            add("until", &lines::rfc3339(until));
        }
        if let Some(trace) = self.filter.trace {
            add("trace", &trace.to_string());
        }
        if let Some(from) = self.from {
            add("from", &from.to_string());
        }
        if let Some(last) = self.last {
            add("last", &last.to_string());
        }
        if let Some(limit) = self.limit {
            add("limit", &limit.to_string());
        }
        if self.is_following {
            add("follow", "1");
        }
        target
    }
}

/// Calls `take` for each event wanted until it says that it has enough; returns the position after the
/// last one that was looked at.
pub(super) fn each(
    access: &Access,
    wanted: &Wanted,
    stop: &AtomicBool,
    take: impl FnMut(Event) -> Result<bool, Refusal>,
) -> Result<Lsn, Refusal> {
    match access {
        Access::Open(events) => each_here(events, wanted, stop, take),
        Access::Served(socket) => each_served(socket, wanted, stop, take),
    }
}

fn each_here(
    events: &Events,
    wanted: &Wanted,
    stop: &AtomicBool,
    mut take: impl FnMut(Event) -> Result<bool, Refusal>,
) -> Result<Lsn, Refusal> {
    let log = &events.log;
    let mut from = wanted.from.unwrap_or(log.first_retained());
    if let (Some(last), true) = (wanted.last, wanted.filter == events::Filter::default()) {
        let last = u64::try_from(last).unwrap_or(u64::MAX);
        let start = (log.safe_point().get() + 1).saturating_sub(last);
        from = from.max(Lsn::new(start));
    }
    let mut found = log
        .read(from, &wanted.filter)
        .map_err(|error| refused(&error))?;
    let mut next = from;
    while let Some(event) = found.next() {
        next = next.max(found.looked_at().next());
        if !take(event.map_err(|error| refused(&error))?)? || stop.load(Ordering::Relaxed) {
            return Ok(next);
        }
    }
    Ok(next.max(found.looked_at().next()))
}

/// Longest line of an answer: a longest event as it goes out.
const ANSWER_LINE_LEN_MAX: u64 = lines::LINE_LEN_MAX as u64 + 4096;

fn each_served(
    socket: &Path,
    wanted: &Wanted,
    stop: &AtomicBool,
    mut take: impl FnMut(Event) -> Result<bool, Refusal>,
) -> Result<Lsn, Refusal> {
    let unreachable = |error: io::Error| {
        Refusal::new(format!("the server at {}", socket.display()))
            .source(error)
            .next("see whether it runs, then ask again")
    };
    let mut answer = client::request(socket, "GET", &wanted.target(), None).map_err(unreachable)?;
    if answer.status != 200 {
        let mut text = String::new();
        let read = answer
            .body
            .take(ANSWER_LINE_LEN_MAX)
            .read_to_string(&mut text);
        read.map_err(unreachable)?;
        let detail = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()))
            .unwrap_or_else(|| text.trim().to_owned());
        let what = format!("the server answered {}: {detail}", answer.status);
        return Err(Refusal::new(what).next("correct the question and ask again"));
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        if wanted.is_following {
            let stream = answer.body.get_ref().wait_for_ever().map_err(unreachable)?;
            let is_over = &is_over;
            scope.spawn(move || {
                let clock = RealClock::new();
                while !stop.load(Ordering::Relaxed) && !is_over.load(Ordering::Relaxed) {
                    clock.sleep(STOP_POLL);
                }
                // Ends the read below. A server that is gone already needs no telling.
                drop(stream.shutdown(Shutdown::Both));
            });
        }
        let mut next = wanted.from.unwrap_or(Lsn::FIRST);
        let read = read_events(&mut answer.body, stop, &mut next, &mut take);
        is_over.store(true, Ordering::Relaxed);
        match read {
            Ok(()) => Ok(next),
            Err(_) if stop.load(Ordering::Relaxed) => Ok(next),
            Err(Stopped::Read(error)) => Err(unreachable(error)),
            Err(Stopped::Refused(refusal)) => Err(refusal),
        }
    })
}

enum Stopped {
    Read(io::Error),
    Refused(Refusal),
}

fn read_events(
    body: &mut impl BufRead,
    stop: &AtomicBool,
    next: &mut Lsn,
    take: &mut impl FnMut(Event) -> Result<bool, Refusal>,
) -> Result<(), Stopped> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = body
            .by_ref()
            .take(ANSWER_LINE_LEN_MAX)
            .read_until(b'\n', &mut line)
            .map_err(Stopped::Read)?;
        if read == 0 || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let event = lines::parse_kept(&line).map_err(|unfit| {
            let message = format!("the server's answer: {unfit}");
            Stopped::Read(io::Error::new(io::ErrorKind::InvalidData, message))
        })?;
        *next = (*next).max(event.id.lsn.next());
        if !take(event).map_err(Stopped::Refused)? {
            return Ok(());
        }
    }
}

/// Prints events one by one, in the format asked for.
struct Printer {
    output: Output,
    screen: Screen,
    has_reader: bool,
}

const COLUMNS: [&str; 9] = [
    "id",
    "received",
    "time",
    "source",
    "class",
    "trace",
    "span",
    "producer_id",
    "body",
];

impl Printer {
    fn new(config: &Config, screen: Screen) -> Result<Self, Refusal> {
        let output = config.output.value;
        if output == Output::Csv {
            screen.result(&csv::lines(COLUMNS, []))?;
        }
        Ok(Self {
            output,
            screen,
            has_reader: true,
        })
    }

    fn print(&mut self, event: &Event) -> Result<(), Refusal> {
        let text = match self.output {
            Output::Json => {
                let mut line = String::new();
                lines::push(&mut line, event);
                line
            }
            Output::Csv => {
                let all = csv::lines(COLUMNS, [cells(event)]);
                all.split_once('\n')
                    .map(|(_, row)| row.to_owned())
                    .unwrap_or_default()
            }
            Output::Table => event::line(event),
        };
        self.has_reader = self.screen.offer(&text)?;
        Ok(())
    }
}

fn cells(kept: &Event) -> [String; 9] {
    let event = &kept.event;
    [
        kept.id.to_string(),
        lines::rfc3339(kept.received),
        lines::rfc3339(event.time),
        event.source.clone(),
        event.class.to_string(),
        event
            .trace
            .map(|trace| trace.to_string())
            .unwrap_or_default(),
        event.span.map(|span| span.to_string()).unwrap_or_default(),
        event.producer_id.clone().unwrap_or_default(),
        event.body.clone(),
    ]
}
