//! The intake of another Holdfast.
//!
//! An event that its producer did not name gets the id it has here as its name: the receiver knows
//! either again, so an event that is sent twice is kept once.

use serde::Deserialize;

use super::{Accepted, Refused, SendError, http::Post, quoted};
use crate::{Event, lines};

const CONTENT_TYPE: &str = "application/x-ndjson";

#[derive(Debug)]
pub(super) struct Receiver {
    post: Post,
}

/// A line of the answer: an acknowledgement, or why there is none.
#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    error: Option<String>,
}

impl Receiver {
    pub(super) fn new(post: Post) -> Self {
        Self { post }
    }
}

impl super::Receiver for Receiver {
    fn send(&mut self, batch: &[Event]) -> Result<Accepted, SendError> {
        let mut body = String::new();
        for event in batch {
            let mut event = event.clone();
            let id = event.id;
            event
                .event
                .producer_id
                .get_or_insert_with(|| id.to_string());
            lines::push(&mut body, &event);
        }
        let answer = self.post.send(CONTENT_TYPE, body.as_bytes())?;
        if !answer.is_success() {
            return Err(self.post.failure(&answer, &answer.said()));
        }
        read(&answer.body, batch.len())
    }
}

/// Whoever answers 200 without a line for each event is no Holdfast, or not one that took them all.
fn read(body: &[u8], sent: usize) -> Result<Accepted, SendError> {
    let lines: Vec<Line> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map_while(|line| serde_json::from_slice(line).ok())
        .collect();
    if lines.len() != sent {
        return Err(SendError::Misconfigured {
            why: format!(
                "receiver acknowledged {} of {sent} events; is it a Holdfast? it said: {}",
                lines.len(),
                quoted(body)
            ),
        });
    }
    let mut accepted = Accepted::default();
    for (index, line) in lines.into_iter().enumerate() {
        match (line.id, line.error) {
            (Some(_), None) => {}
            (_, Some(why)) => accepted.refused.push(Refused {
                index,
                why: quoted(why.as_bytes()),
            }),
            (None, None) => {
                return Err(SendError::Misconfigured {
                    why: format!("receiver neither took nor refused event {index} of {sent}"),
                });
            }
        }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_for_each_event_is_an_acceptance() {
        let ack = r#"{"id":"00:1:1","journal":"00","generation":1,"lsn":1,"duplicate":false}"#;
        let check = |body: &str, wanted: Option<&[usize]>| {
            let refused: Option<Vec<usize>> = read(body.as_bytes(), 2)
                .ok()
                .map(|accepted| accepted.refused.iter().map(|one| one.index).collect());
            assert_eq!(refused.as_deref(), wanted, "{body}");
        };
        check(&format!("{ack}\n{ack}\n"), Some(&[]));
        check(
            &format!("{ack}\n{{\"error\":\"body is missing\"}}\n"),
            Some(&[1]),
        );
        check(&format!("{ack}\n"), None);
        check(&format!("{ack}\n{ack}\n{ack}\n"), None);
        check(&format!("{ack}\n{{}}\n"), None);
        check("<html>welcome</html>", None);
        check("", None);
    }
}
