//! `holdfast events append`.
//!
//! Lines are kept in batches, as many as have arrived: a slow producer gets each acknowledgement at
//! once, a fast one shares the disk's syncs. A line that is refused is told and passed over.

use std::{
    io::{self, BufRead, Read as _},
    path::Path,
};

use events::{Log, NewEvent, event::Unfit, lines};
use world::{Clock, RealClock};

use crate::{
    cli::events::Append,
    command::{moment, now, this_host},
    config::Config,
    events::{Access, Events, client, refused},
    exit::{Exit, Refusal},
    screen::{self, Screen},
};

/// Lines of a batch: far into the range where a sync costs each next to nothing.
const BATCH_LEN_MAX: usize = 512;
/// Bytes of a batch, so that a few long lines make one too.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a server is asked again that said it has too much to do. With its one second each time,
/// a stall of half a minute is waited for.
const ATTEMPTS_MAX: u32 = 30;
/// Most of an error's text that is read.
const ERROR_LEN_MAX: u64 = 64 * 1024;

pub(crate) fn run(append: &Append, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let source = append.source.clone().unwrap_or_else(this_host);
    let access = Events::reach(config, screen)?;
    match append.body.as_deref() {
        Some(body) if body != "-" => {
            let event = NewEvent {
                producer_id: append.id.clone(),
                time: match &append.time {
                    Some(text) => moment(text)?,
                    None => now(),
                },
                source,
                class: append.class,
                trace: None,
                span: None,
                body: body.to_owned(),
            };
            event.check().map_err(|unfit| {
                Refusal::new(format!("the event's {unfit}")).next(match unfit.field {
                    "body" => "write the body as JSON: '{\"disk\":\"sdb\"}', or '\"some text\"'",
                    _ => "see `holdfast events append --help`",
                })
            })?;
            screen.result(&keep(&access, vec![event], screen)?)?;
        }
        _ => {
            if append.id.is_some() || append.time.is_some() {
                return Err(Refusal::new("--id and --time are of one event")
                    .next("write producer_id and time into the lines"));
            }
            read_lines(append, &source, &access, screen)?;
        }
    }
    close(access)?;
    Ok(Exit::Clean)
}

fn close(access: Access) -> Result<(), Refusal> {
    match access {
        Access::Open(events) => events.log.close().map_err(|error| refused(&error)),
        Access::Served(_) => Ok(()),
    }
}

/// Lines read so far and those refused.
#[derive(Default)]
struct Tally {
    read: u64,
    refused: u64,
    first_refused: Option<u64>,
}

fn read_lines(
    append: &Append,
    source: &str,
    access: &Access,
    screen: Screen,
) -> Result<(), Refusal> {
    let mut input = io::BufReader::new(io::stdin().lock());
    let mut tally = Tally::default();
    loop {
        let begun = tally.read + 1;
        let (batch, is_end) = gather(&mut input, append, source, &mut tally)?;
        if !batch.is_empty() {
            let acks = keep(access, batch, screen).map_err(|refusal| {
                let (what, next) = refusal.into_parts();
                Refusal::new(format!("lines {begun} to {}: {what}", tally.read))
                    .next(next.unwrap_or_else(|| "send them again".to_owned()))
            })?;
            screen.result(&acks)?;
        }
        if is_end {
            break;
        }
    }
    match tally.first_refused {
        None => Ok(()),
        Some(line) => Err(Refusal::new(format!(
            "{} of {} lines were refused, the first of them line {line}; all others are kept",
            tally.refused, tally.read
        ))
        .next("correct them and send them again")),
    }
}

/// The events of the lines that have arrived, of one at least; and whether they were the last.
fn gather<R: io::Read>(
    input: &mut io::BufReader<R>,
    append: &Append,
    source: &str,
    tally: &mut Tally,
) -> Result<(Vec<NewEvent>, bool), Refusal> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_LEN_MAX && bytes < BATCH_BYTES_MAX {
        let Some(line) = read_line(input)? else {
            return Ok((batch, true));
        };
        tally.read += 1;
        let defaults = lines::Defaults {
            source: Some(source),
            class: append.class,
            now: now(),
            is_relay: false,
        };
        let event = line.and_then(|line| {
            bytes += line.len();
            match line.trim_ascii() {
                [] => Ok(None),
                line => lines::parse(line, &defaults).map(Some),
            }
        });
        match event {
            Ok(event) => batch.extend(event),
            Err(unfit) => {
                screen::complain(&format_args!("line {}: {unfit}", tally.read));
                tally.refused += 1;
                tally.first_refused.get_or_insert(tally.read);
            }
        }
        // Reading on would wait for the producer, who may wait for an acknowledgement.
        if !input.buffer().contains(&b'\n') {
            break;
        }
    }
    Ok((batch, false))
}

/// The next line; none at the end. One that is too long is passed over and refused.
fn read_line(input: &mut impl BufRead) -> Result<Option<Result<Vec<u8>, Unfit>>, Refusal> {
    let unreadable = |error| Refusal::new("standard input cannot be read").source(error);
    let mut line = Vec::new();
    let bound = lines::LINE_LEN_MAX as u64 + 1;
    let read = input
        .by_ref()
        .take(bound)
        .read_until(b'\n', &mut line)
        .map_err(unreadable)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() > lines::LINE_LEN_MAX {
        pass_line(input).map_err(unreadable)?;
        return Ok(Some(Err(Unfit {
            field: "line",
            why: format!("has more than {} bytes", lines::LINE_LEN_MAX),
        })));
    }
    Ok(Some(Ok(line)))
}

fn pass_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let passed = end.map_or(buffer.len(), |end| end + 1);
        let is_over = end.is_some() || passed == 0;
        input.consume(passed);
        if is_over {
            return Ok(());
        }
    }
}

/// The lines that acknowledge a batch.
fn keep(access: &Access, batch: Vec<NewEvent>, screen: Screen) -> Result<String, Refusal> {
    match access {
        Access::Open(events) => keep_here(&events.log, batch),
        Access::Served(socket) => send(socket, &batch, screen),
    }
}

fn keep_here(log: &Log, batch: Vec<NewEvent>) -> Result<String, Refusal> {
    let acks = log.append(batch).map_err(|error| refused(&error))?;
    let mut told = String::new();
    for ack in &acks {
        lines::push_ack(&mut told, ack);
    }
    Ok(told)
}

/// Sends a batch to the server, again while it is busy; the lines that acknowledge it.
pub(super) fn send(socket: &Path, batch: &[NewEvent], screen: Screen) -> Result<String, Refusal> {
    let mut body = String::new();
    for event in batch {
        lines::push_new(&mut body, event);
    }
    let unreachable = |error: io::Error| {
        Refusal::new(format!("the server at {}", socket.display()))
            .source(error)
            .next("see whether it runs; what it did not acknowledge may be sent again")
    };
    for attempt in 1.. {
        let content = Some(("application/x-ndjson", body.as_bytes()));
        let answer =
            client::request(socket, "POST", "/api/v1/events", content).map_err(unreachable)?;
        let is_busy = matches!(answer.status, 429 | 503) && attempt < ATTEMPTS_MAX;
        if is_busy {
            let wait = std::time::Duration::from_secs(answer.retry_after.unwrap_or(1).clamp(1, 60));
            screen.step(format_args!("the server is busy; again in {wait:?}"));
            RealClock::new().sleep(wait);
            continue;
        }
        let mut text = String::new();
        let len_max = if answer.status == 200 {
            u64::MAX
        } else {
            ERROR_LEN_MAX
        };
        answer
            .body
            .take(len_max)
            .read_to_string(&mut text)
            .map_err(unreachable)?;
        if answer.status == 200 {
            return Ok(text);
        }
        return Err(Refusal::new(format!(
            "the server at {} answered {}: {}",
            socket.display(),
            answer.status,
            text.trim()
        ))
        .next("nothing of this was kept; try again later"));
    }
    unreachable!("the last attempt returns")
}
