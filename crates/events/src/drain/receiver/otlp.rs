//! An OTLP/HTTP receiver: protobuf, compressed.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;

use super::{Accepted, Refused, SendError, http::Post, quoted};
use crate::{
    Event,
    otlp::{self, Identity},
};

const CONTENT_TYPE: &str = "application/x-protobuf";

#[derive(Debug)]
pub(super) struct Receiver {
    post: Post,
}

impl Receiver {
    pub(super) fn new(post: Post) -> Self {
        Self { post }
    }
}

impl super::Receiver for Receiver {
    fn send(&mut self, batch: &[Event]) -> Result<Accepted, SendError> {
        let body = otlp::encode(batch, Identity::Named).encode_to_vec();
        let answer = self.post.send(CONTENT_TYPE, &body)?;
        if !answer.is_success() {
            let said = status_message(&answer.body).unwrap_or_else(|| answer.said());
            return Err(self.post.failure(&answer, &said));
        }
        // 200 is the acceptance; an answer that is JSON or empty says no more than that.
        let response = ExportLogsServiceResponse::decode(&answer.body[..]).unwrap_or_default();
        let Some(partial) = response.partial_success else {
            return Ok(Accepted::default());
        };
        Ok(partly(
            partial.rejected_log_records,
            &partial.error_message,
            batch.len(),
        ))
    }
}

/// OTLP counts what was refused and does not name it, and forbids sending the batch again. So each
/// event of the batch may be the refused one, and each is kept with that doubt.
fn partly(rejected: i64, message: &str, sent: usize) -> Accepted {
    if rejected <= 0 {
        if !message.is_empty() {
            tracing::warn!(message = quoted(message.as_bytes()), "receiver warns");
        }
        return Accepted::default();
    }
    let said = quoted(message.as_bytes());
    let is_all = usize::try_from(rejected).is_ok_and(|rejected| rejected >= sent);
    let why = if is_all {
        format!("all {sent} of the batch refused: {said}")
    } else {
        format!("{rejected} of {sent} of the batch refused, receiver did not say which: {said}")
    };
    let refused = (0..sent).map(|index| Refused {
        index,
        why: why.clone(),
    });
    Accepted {
        refused: refused.collect(),
    }
}

/// The message of a `google.rpc.Status`, which is what a failure's body is.
fn status_message(body: &[u8]) -> Option<String> {
    #[derive(prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let status = Status::decode(body).ok()?;
    (!status.message.is_empty()).then(|| quoted(status.message.as_bytes()))
}
