//! A request handed on as it came, and the answer as whoever sent it has to take it.
//!
//! Always holds: the sender hears of success only what the receiver said, and hears that it must not
//! send again only when the receiver said so about the body. What is wrong between us and the
//! receiver is none of the sender's doing, and is answered with a status that lets it try again.

use std::{sync::Arc, time::Duration};

use world::Clock;

use super::{
    Header,
    http::{Post, with_path},
};
use crate::Error;

/// How long a sender is asked to wait when the receiver did not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Hands requests of OTLP/HTTP on. Shared between threads.
#[derive(Debug)]
pub struct Forward {
    post: Post,
}

/// What the sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// What the receiver answered about the body, to be passed on as it is.
    Answered {
        status: u16,
        content_type: Option<String>,
        retry_after: Option<Duration>,
        body: Vec<u8>,
    },
    /// The receiver did not take it for now; the sender keeps it.
    Unavailable { retry_after: Duration, why: String },
}

impl Forward {
    /// To `url`, which gets `/v1/logs` when it has no path.
    pub fn new(
        url: &str,
        headers: &[Header],
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let url = with_path(url, "/v1/logs")?;
        let post = Post::new(&url, headers, timeout, clock)?;
        Ok(Self { post })
    }

    /// Hands a body on as it is. Blocks until the receiver answered or did not in time.
    pub fn send(&self, content_type: &str, encoding: Option<&str>, body: &[u8]) -> Forwarded {
        let answer = match self.post.send_folded(content_type, encoding, body) {
            Ok(answer) => answer,
            Err(error) => {
                return Forwarded::Unavailable {
                    retry_after: RETRY_AFTER,
                    why: error.why().to_owned(),
                };
            }
        };
        match answer.status {
            // A redirect or a wrong password is ours to mend. So is 500: OTLP would have the sender
            // drop the body, and it is not the body that failed.
            200..=299 | 400 | 413 | 415 | 422 | 429 => Forwarded::Answered {
                status: answer.status,
                content_type: answer.content_type,
                retry_after: answer.retry_after,
                body: answer.body,
            },
            _ => Forwarded::Unavailable {
                retry_after: answer.retry_after.unwrap_or(RETRY_AFTER),
                why: self.post.failure(&answer, &answer.said()).why().to_owned(),
            },
        }
    }
}
