//! What a receiver of OTLP answers, in the encoding of the request.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use prost::Message;
use serde_json::json;

/// How a request is encoded, and therefore its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The codes of gRPC that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unavailable = 14,
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// An `ExportLogsServiceResponse`; `why` says which records were refused and what about them.
pub fn success(encoding: Encoding, refused_count: usize, why: &str) -> Vec<u8> {
    let rejected_log_records = i64::try_from(refused_count).unwrap_or(i64::MAX);
    match encoding {
        Encoding::Json if refused_count == 0 => b"{}".to_vec(),
        Encoding::Json => json!({"partialSuccess": {
            "rejectedLogRecords": rejected_log_records.to_string(), "errorMessage": why,
        }})
        .to_string()
        .into_bytes(),
        Encoding::Protobuf => {
            let partial_success = (refused_count > 0).then(|| ExportLogsPartialSuccess {
                rejected_log_records,
                error_message: why.to_owned(),
            });
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        }
    }
}

/// The body of an answer that is no success.
pub fn failure(encoding: Encoding, code: Code, message: &str) -> Vec<u8> {
    let code = code as i32;
    match encoding {
        Encoding::Json => json!({"code": code, "message": message})
            .to_string()
            .into_bytes(),
        Encoding::Protobuf => Status {
            code,
            message: message.to_owned(),
        }
        .encode_to_vec(),
    }
}
