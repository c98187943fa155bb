//! The record in formats of others, as it is written: nothing of it is held but a few chunks.

use std::{
    io::{self, Write},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use scan::export::{self, Asked, Chosen, Format, Request, Subject};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::IntoParams;

use super::{Shared, call::Problem};
use crate::{console, http::answer, view};

/// Exports at a time: each holds a thread for as long as its reader takes.
pub(super) const EXPORTS_MAX: usize = 4;
/// Chunks that wait for a reader, of 64 KiB each; a reader that takes none is dropped after 30 s.
const WAITING_MAX: usize = 8;

/// What is taken away: the state at a moment, or the changes between two.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportAsked {
    /// As it was at this moment: RFC 3339. Not for formats of changes.
    at: Option<String>,
    /// Changes from this moment on. Only for formats of changes.
    since: Option<String>,
    /// Changes before this moment.
    until: Option<String>,
    /// Only this host.
    host: Option<String>,
    /// Only the hosts of this group.
    group: Option<String>,
    /// Only the hosts of this site.
    site: Option<String>,
}

type Chunk = Result<Bytes, export::Error>;

/// What a thread that writes hands to a connection. Ends the writing when nobody reads.
struct Pipe(mpsc::Sender<Chunk>);

/// Has whoever reads told that there is more to come, unless the end was reached: a panic ends a thread
/// without a word, and what is there then would be taken for the whole.
struct Unfinished(Option<mpsc::Sender<Chunk>>);

impl Unfinished {
    /// Everything was sent, or why it was not.
    fn end(mut self, written: Result<(), export::Error>) {
        if let (Err(error), Some(sender)) = (written, self.0.take()) {
            // One that reads no more needs no telling.
            drop(sender.blocking_send(Err(error)));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let lost = io::Error::other("the writing was lost; the log of the server tells more");
            drop(sender.blocking_send(Err(lost.into())));
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(chunk)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is recorded, in a format. What cannot be exported at all is refused; an error after the first
/// byte breaks the answer off: what is there of it is not taken for the whole.
pub(super) async fn write(
    shared: Arc<Shared>,
    token: &str,
    format: &str,
    query: Option<&str>,
) -> Result<Response, Problem> {
    let format = Format::named(format).ok_or_else(|| view::Error::missing("format", format))?;
    let request = request(&shared, format, query)?;
    let called = called(format, &request);
    let place = shared.exports.take(token);
    let place =
        place.ok_or_else(|| Problem::busy("too many exports at a time; ask again later"))?;
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let unfinished = Unfinished(Some(sender.clone()));
        let stop = || !*shared.stop.borrow();
        let rules = shared.rules.all();
        let written = export::write(
            format,
            &shared.store,
            rules,
            &request,
            &mut Pipe(sender),
            &mut |_, _| stop(),
        );
        unfinished.end(written.map(drop));
        drop(place);
    });
    let first = receiver
        .recv()
        .await
        .transpose()
        .map_err(view::Error::from)?;
    let rest = ReceiverStream::new(receiver).map(|chunk| {
        chunk.map_err(|error| {
            tracing::warn!(%error, "an export broke off");
            io::Error::other("the export broke off")
        })
    });
    let body = Body::from_stream(tokio_stream::iter(first.map(Ok)).chain(rest));
    let mut response = answer::response(StatusCode::OK, format.media_type(), body);
    let name = format!("attachment; filename=\"{called}\"");
    let name = HeaderValue::try_from(name).expect("a name of letters and dots");
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// What a browser is to call it: by what it holds, and the moment that it is of.
fn called(format: Format, request: &Request) -> String {
    let Chosen {
        hosts,
        groups,
        sites,
    } = &request.chosen;
    let of = hosts.iter().chain(groups).chain(sites);
    let of: Vec<String> = of.map(|name| plain(name)).collect();
    let of = match of.is_empty() {
        true => "all".to_owned(),
        false => of.join("-"),
    };
    let at = match &request.asked {
        Asked::State { at } => *at,
        Asked::Changes { until, .. } => *until,
    };
    let at = console::file_part(at.unwrap_or(request.now));
    format!("holdfast-{of}-{at}.{}", format.extension())
}

/// A name as every file system takes one.
fn plain(name: &str) -> String {
    const CHARS_MAX: usize = 60;
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    name.chars()
        .take(CHARS_MAX)
        .map(|c| if is_plain(&c) { c } else { '-' })
        .collect()
}

fn request(shared: &Shared, format: Format, query: Option<&str>) -> Result<Request, Problem> {
    let uri = format!("/?{}", query.unwrap_or_default())
        .parse()
        .map_err(|_| Problem::malformed("the query is not one"))?;
    let asked = axum::extract::Query::<ExportAsked>::try_from_uri(&uri)
        .map_err(|error| Problem::invalid(format!("query: {}", error.body_text())))?
        .0;
    let now = shared.now();
    let past = |text: &Option<String>| -> Result<_, Problem> {
        let read = text
            .as_deref()
            .map(|text| view::past(text, now))
            .transpose();
        Ok(read?)
    };
    let (at, since, until) = (past(&asked.at)?, past(&asked.since)?, past(&asked.until)?);
    let of_changes = since.is_some() || until.is_some() || format.subject() == Subject::Changes;
    let is_possible = match (format.subject(), of_changes) {
        (Subject::State, of_changes) => !of_changes,
        (Subject::Changes, _) | (Subject::Both, true) => at.is_none(),
        (Subject::Both, false) => true,
    };
    if !is_possible {
        return Err(Problem::invalid(
            "a state is of one moment, `at`; changes are between two, `since` and `until`",
        ));
    }
    let one = |name: Option<String>| name.into_iter().collect();
    if let Some(host) = &asked.host {
        known(shared, host)?;
    }
    Ok(Request {
        chosen: Chosen {
            hosts: one(asked.host),
            groups: one(asked.group),
            sites: one(asked.site),
        },
        asked: match of_changes {
            true => Asked::Changes { since, until },
            false => Asked::State { at },
        },
        now,
    })
}

/// A name that is unknown is refused now, rather than by an answer that breaks off.
fn known(shared: &Shared, host: &str) -> Result<(), Problem> {
    let is_known = !host.is_empty()
        && (scan::inventory::Inventory::new(shared.store.clone())?
            .get(host)?
            .is_some()
            || scan::ledger::Ledger::new(shared.store.clone())?
                .status(host, None)?
                .is_some());
    match is_known {
        true => Ok(()),
        false => Err(view::Error::no_host(host).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writing_that_is_lost_does_not_end_as_if_it_were_whole() {
        let check = |wanted: usize, work: fn(Unfinished)| {
            let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
            let unfinished = Unfinished(Some(sender));
            drop(std::thread::spawn(move || work(unfinished)).join());
            let heard = std::iter::from_fn(|| receiver.blocking_recv());
            let faults: Vec<_> = heard.filter_map(Result::err).collect();
            assert_eq!(faults.len(), wanted, "{faults:?}");
        };
        check(0, |unfinished| unfinished.end(Ok(())));
        check(1, |unfinished| {
            unfinished.end(Err(io::Error::other("a fault").into()));
        });
        check(1, |_unfinished| panic!("a panic of the test"));
    }
}
