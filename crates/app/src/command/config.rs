//! `holdfast config show`.

use std::{fmt::Write, path::Path};

use serde::Serialize;

use crate::{
    alerts,
    cli::{ConfigAction, Output},
    config::{Config, KEYS, events::size_text},
    exit::{Exit, Refusal},
    present::{csv, table},
    screen::Screen,
};

#[derive(Serialize)]
struct Row {
    key: &'static str,
    value: String,
    origin: String,
}

pub(crate) fn run(action: &ConfigAction, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let ConfigAction::Show { default } = action;
    if *default {
        screen.result(&default_file())?;
        return Ok(Exit::Clean);
    }
    let rows = rows(config);
    let text = match config.output.value {
        Output::Json => super::json(&rows)?,
        Output::Csv => csv::lines(["key", "value", "origin"], rows.into_iter().map(cells)),
        Output::Table => table::rows(["KEY", "VALUE", "FROM"], rows.into_iter().map(cells)),
    };
    screen.result(&text)?;
    match &config.file {
        Some(file) => screen.remark(format_args!("read from {}", file.display())),
        None => screen.remark("no configuration file; `--default` prints one to start from"),
    }
    Ok(Exit::Clean)
}

fn cells(row: Row) -> [String; 3] {
    [row.key.to_owned(), row.value, row.origin]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn rows(config: &Config) -> Vec<Row> {
    let output = match config.output.value {
        Output::Table => "table",
        Output::Json => "json",
        Output::Csv => "csv",
    };
    let rules_dir = &config.scan_rules_dir;
    let retention = &config.events_retention;
    let server = &config.server;
    let none = || "none".to_owned();
    let values = [
        (
            path(config.data_dir.value.as_deref()),
            config.data_dir.origin,
        ),
        (output.to_owned(), config.output.origin),
        (config.scan_walk.value.to_string(), config.scan_walk.origin),
        (path(rules_dir.value.as_deref()), rules_dir.origin),
        (
            config.journal_strict.value.to_string(),
            config.journal_strict.origin,
        ),
        (
            // Shown without its password.
            config
                .store
                .postgres
                .value
                .as_ref()
                .map_or_else(none, ToString::to_string),
            config.store.postgres.origin,
        ),
        (
            path(config.store.password_file.value.as_deref()),
            config.store.password_file.origin,
        ),
        (
            config
                .node
                .coordinator
                .value
                .as_ref()
                .map_or_else(none, ToString::to_string),
            config.node.coordinator.origin,
        ),
        (
            path(config.node.password_file.value.as_deref()),
            config.node.password_file.origin,
        ),
        (
            path(config.node.ca_file.value.as_deref()),
            config.node.ca_file.origin,
        ),
        (
            config.events_enabled.value.to_string(),
            config.events_enabled.origin,
        ),
        (
            config.events_listen.value.to_string(),
            config.events_listen.origin,
        ),
        (size_text(retention.bytes.value), retention.bytes.origin),
        (
            retention
                .age
                .value
                .map_or_else(none, |age| format!("{}s", age.as_secs())),
            retention.age.origin,
        ),
        (
            retention.ceiling.value.map_or_else(none, size_text),
            retention.ceiling.origin,
        ),
        (
            retention.on_full.value.name().to_owned(),
            retention.on_full.origin,
        ),
        (server.enabled.value.to_string(), server.enabled.origin),
        (server.listen.value.to_string(), server.listen.origin),
        (server.tls.value.name().to_owned(), server.tls.origin),
        (
            path(server.tls_cert.value.as_deref()),
            server.tls_cert.origin,
        ),
        (path(server.tls_key.value.as_deref()), server.tls_key.origin),
        (
            server.url.value.clone().unwrap_or_else(none),
            server.url.origin,
        ),
    ];
    KEYS.iter()
        .zip(values)
        .map(|(key, (value, origin))| Row {
            key: key.name,
            value,
            origin: origin.to_string(),
        })
        .collect()
}

fn path(value: Option<&Path>) -> String {
    value.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

/// A file with every key commented out, each under what it means.
fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of Holdfast. Every key with its default; unknown keys are refused.\n\
         # The environment overrides this file, flags override both.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (in_section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if in_section != section {
            write!(text, "\n[{in_section}]\n").expect("writing to a string cannot fail");
            section = in_section;
        }
        write!(
            text,
            "\n# {} ({})\n# {name} = {}\n",
            key.about, key.environment, key.example
        )
        .expect("writing to a string cannot fail");
    }
    text + alerts::setting::EXAMPLE
}
