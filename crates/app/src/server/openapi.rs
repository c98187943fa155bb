//! The OpenAPI document, made from the table of operations.

use std::{collections::BTreeMap, sync::OnceLock};

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, path::HttpMethod, schema::Schema},
};

use super::{
    api,
    operation::{Does, Operation, Reach, SchemaOf},
};

/// How every refusal is told (RFC 9457).
#[derive(Serialize, ToSchema)]
struct Problem {
    r#type: String,
    title: String,
    status: u16,
    /// Stable: programs go by it.
    code: String,
    /// For people; may change.
    detail: String,
    /// With `NOT_PRIMARY`: where the node that writes is found, if that is known.
    primary: Option<String>,
    /// With `NOT_APPLIED`: the record that can be read here.
    applied: Option<u64>,
}

/// The document, indented.
pub(crate) fn document() -> String {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT
        .get_or_init(|| {
            let mut text = serde_json::to_string_pretty(&made()).expect("a plain document");
            text.push('\n');
            text
        })
        .clone()
}

fn made() -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths: Map<String, Value> = Map::new();
    refer(
        &mut schemas,
        (
            <Problem as utoipa::PartialSchema>::schema,
            <Problem as ToSchema>::schemas,
            <Problem as ToSchema>::name,
        ),
    );
    for operation in api::operations() {
        let described = describe(&operation, &mut schemas);
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[method(&operation.method)] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": "1",
            "description": "Hosts, their verdicts, and what changed. Every request carries a token: \
                `Authorization: Bearer hf_...`. Every refusal is a problem with a stable code. \
                Mutations take an `Idempotency-Key`: sent again within a day, they are answered \
                again and change nothing. They answer in `Holdfast-Lsn` which record they are, and a read \
                with `Holdfast-Wait-For` shows that record or later. On a site of several nodes every answer \
                says in `Holdfast-Role` whether the node is `primary` or `standby`, in `Holdfast-Applied` up \
                to which record it shows, in `Holdfast-Lag-Records`, `-Bytes` and `-Seconds` how far it is \
                behind, and in `Holdfast-Primary` where the node that writes is found. A standby answers \
                what would change something, and what is asked of events, with 503 `NOT_PRIMARY`; between \
                two roles everything is answered with 503 `ROLE_CHANGING`. Both may be tried again.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "hf_ and 43 characters" },
            },
        },
    })
}

pub(super) fn method(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "get",
        HttpMethod::Post => "post",
        HttpMethod::Put => "put",
        _ => "delete",
    }
}

/// Puts a schema and those that it is made of into the document, and refers to it.
fn refer(schemas: &mut BTreeMap<String, Value>, (schema, others, name): SchemaOf) -> Value {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![(name().into_owned(), schema())];
    others(&mut found);
    for (name, schema) in found {
        let schema = serde_json::to_value(schema).expect("a schema is plain JSON");
        schemas.insert(name, schema);
    }
    json!({ "$ref": format!("#/components/schemas/{}", name()) })
}

fn describe(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Value {
    let mut about = json!({
        "operationId": operation.id,
        "summary": operation.about,
        "tags": [tag(operation)],
        "parameters": parameters(operation),
        "responses": responses(operation, schemas),
        // The least role that may do it; the router checks by the same entry.
        "x-role": operation.role,
        "x-reach": if operation.reach == Reach::Site { "site" } else { "hosts" },
    });
    if let Some(takes) = operation.takes {
        let schema = refer(schemas, takes);
        about["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    } else if matches!(operation.does, Does::Events) && operation.changes_something() {
        about["requestBody"] = json!({
            "required": true,
            "content": {
                "application/x-ndjson": { "schema": { "type": "string" } },
                "application/json": { "schema": {} },
            },
        });
    }
    about
}

fn tag(operation: &Operation) -> &'static str {
    let rest = operation.path.trim_start_matches("/api/v1/");
    rest.split('/').next().unwrap_or(rest)
}

fn parameters(operation: &Operation) -> Value {
    let mut all: Vec<Value> = operation
        .params()
        .map(|name| {
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": { "type": "string", "minLength": 1 },
            })
        })
        .collect();
    let asks = (operation.asks)();
    all.extend(
        asks.iter()
            .map(|one| serde_json::to_value(one).expect("a parameter is plain JSON")),
    );
    let mut header = |name: &str, about: &str| {
        all.push(json!({
            "name": name,
            "in": "header",
            "required": false,
            "description": about,
            "schema": { "type": "string", "maxLength": 200 },
        }));
    };
    if matches!(operation.does, Does::Change(_)) {
        header(
            "Idempotency-Key",
            "asked again with it, the answer is the same and nothing is done",
        );
    }
    if operation.has_version && operation.changes_something() {
        header(
            "If-Match",
            "the ETag of what was read; refused with 412 when it is another",
        );
    }
    if matches!(operation.does, Does::Read(_)) {
        header(
            "If-None-Match",
            "the ETag of what is known; 304 when it is the same",
        );
    }
    header(
        "Holdfast-Wait-For",
        "the number of a record: waits until it can be read here, 10 s at most",
    );
    if matches!(operation.does, Does::Follow) {
        header("Last-Event-ID", "goes on after this change");
    }
    Value::Array(all)
}

/// Refusals that an operation may be answered with.
fn refusals(operation: &Operation) -> Vec<(u16, &'static str)> {
    let mut all = vec![
        (400, "What was sent is no request that can be read"),
        (401, "No valid token"),
        (
            403,
            "The role or the scope of the token is not enough, or another site asks",
        ),
        (404, "Nothing of that name"),
        (429, "Too many failed attempts, or too much in flight"),
        (
            503,
            "Not now: too busy, stopping, the disk is full, or another node writes",
        ),
        (504, "The record that was waited for is not here yet"),
    ];
    if operation.changes_something() {
        all.extend([
            (408, "The body did not come in time"),
            (
                409,
                "It is there already, in use, retired, or was changed meanwhile",
            ),
            (413, "The body is too large"),
            (415, "Another media type"),
        ]);
    }
    if operation.has_version && operation.changes_something() {
        all.push((412, "It is not as it was when it was read"));
    }
    all.extend([
        (410, "The moment is not kept any more"),
        (422, "What is asked cannot be"),
    ]);
    all.sort_unstable();
    all
}

fn responses(operation: &Operation, schemas: &mut BTreeMap<String, Value>) -> Value {
    let problem = json!({ "application/problem+json": {
        "schema": { "$ref": "#/components/schemas/Problem" },
    } });
    let mut all = Map::new();
    let mut success = json!({ "description": "Done" });
    match (operation.gives, operation.does) {
        (Some(gives), _) => {
            let schema = refer(schemas, gives);
            success["content"] = json!({ "application/json": { "schema": schema } });
        }
        (None, Does::Export) => {
            let mut content = Map::new();
            for format in scan::export::Format::ALL {
                content.insert(format.media_type().to_owned(), json!({}));
            }
            success["content"] = Value::Object(content);
        }
        (None, Does::Follow) => {
            success["content"] = json!({ "text/event-stream": { "schema": { "type": "string" } } });
        }
        _ => {}
    }
    all.insert(operation.status.to_string(), success);
    if matches!(operation.does, Does::Read(_)) {
        all.insert("304".to_owned(), json!({ "description": "As it is known" }));
    }
    for (status, about) in refusals(operation) {
        all.insert(
            status.to_string(),
            json!({ "description": about, "content": problem }),
        );
    }
    Value::Object(all)
}
