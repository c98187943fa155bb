//! Receivers of drains as users name them: where to, and headers whose values are never written
//! down where they are named.

use std::{path::Path, sync::Arc};

use events::drain::{Header, Receivers, Target};
use world::{RealClock, RealDisk};

use crate::{events::refused, exit::Refusal, named_file};

/// Longest file that holds the value of a header, in bytes: tokens have up to a few thousand.
const SECRET_LEN_MAX: u64 = 16 * 1024;

/// What `to` and `headers` name.
pub(crate) fn receivers(to: &str, headers: &[String]) -> Result<Receivers, Refusal> {
    let target: Target = to.parse().map_err(|error: events::Error| {
        Refusal::new(error.to_string()).next("for example --to otlp=http://127.0.0.1:4318")
    })?;
    let mut receivers = Receivers::new(target, Arc::new(RealDisk), Arc::new(RealClock::new()));
    receivers.headers = self::headers(headers)?;
    Ok(receivers)
}

/// Reads `NAME=env:VARIABLE` and `NAME=file:PATH`.
pub(crate) fn headers(named: &[String]) -> Result<Vec<Header>, Refusal> {
    named.iter().map(|named| header(named)).collect()
}

fn header(named: &str) -> Result<Header, Refusal> {
    let (name, source) = named.split_once('=').unwrap_or((named, ""));
    let value = match source.split_once(':') {
        Some(("env", variable)) => std::env::var(variable).map_err(|error| {
            Refusal::new(format!("header {name}: variable {variable}"))
                .source(error)
                .next("set the variable, or name a file with file:PATH")
        })?,
        Some(("file", path)) => secret(name, Path::new(path))?,
        // What was given is not repeated: it may be the secret itself.
        _ => {
            return Err(Refusal::new(format!(
                "header {name}: a value is not given where others can read it"
            ))
            .next(format!("write {name}=env:VARIABLE or {name}=file:PATH")));
        }
    };
    Ok(Header {
        name: name.to_owned(),
        value,
    })
}

fn secret(name: &str, path: &Path) -> Result<String, Refusal> {
    let refuse = || Refusal::new(format!("header {name}: file {}", path.display()));
    let bytes = named_file::read(path, SECRET_LEN_MAX)
        .map_err(|error| refuse().source(error).next("name a file you may read"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse().next("write the value as text, on one line"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A drain's error as the user sees it.
pub(crate) fn drain_refused(error: &events::Error) -> Refusal {
    match error.kind() {
        // It says the way out itself.
        events::Kind::OutOfRange => Refusal::new(error.to_string()),
        events::Kind::Invalid => {
            Refusal::new(error.to_string()).next("correct the receiver or its headers")
        }
        _ => refused(error),
    }
}
