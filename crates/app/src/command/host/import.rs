//! `holdfast host import`.

use std::{
    io,
    path::{Path, PathBuf},
};

use ::scan::inventory::{
    Host,
    import::{self, Outcome, Remark},
};
use serde_json::json;

use crate::{
    cli::{
        Output,
        host::{Format, Import},
    },
    config::Config,
    exit::{Exit, Refusal},
    named_file,
    present::{counted, csv, safe},
    remote::carried,
    screen::Screen,
    site::{Site, fleet_refused},
};

use super::trust::text_of;

/// Why nothing was imported.
enum Undone {
    /// It was only tried, or some of it is refused; whether all of it is good.
    Left(Outcome, bool),
    Refused(Refusal),
}

impl From<store::Error> for Undone {
    fn from(error: store::Error) -> Self {
        Self::Refused(Site::store_refused(error))
    }
}

pub(super) fn run(asked: &Import, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let text = text_of(&asked.file, import::FILE_LEN_MAX)?;
    let format = format(asked, &text);
    let name = asked.file.display().to_string();
    let base = asked.file.parent().unwrap_or(Path::new("."));
    let mut read = import::read(format, &name, &text, &mut |path| included(path, base));
    for draft in &mut read.drafts {
        draft.default_place(
            asked.place.site.as_deref(),
            asked.place.credential.as_deref(),
        );
        draft.add_labels(&asked.place.groups, &asked.place.tags);
    }
    if read.drafts.is_empty() && read.refused.is_empty() {
        return Err(Refusal::new(format!("{name} names no host"))
            .next("say what it is with --format, or give another file"));
    }
    let site = Site::open(config, screen)?;
    let inventory = site.inventory()?;
    let (at, actor) = (crate::command::now(), crate::command::actor());
    let tried = site.store().transact(|transaction| {
        let mut outcome = inventory
            .import_in(transaction, &read.drafts, at, &actor)
            .map_err(|error| Undone::Refused(fleet_refused(error)))?;
        outcome.refused.splice(0..0, read.refused.iter().cloned());
        let is_good = outcome.refused.is_empty() || asked.skip_bad;
        match is_good && !asked.dry_run {
            true => Ok(outcome),
            false => Err(Undone::Left(outcome, is_good)),
        }
    });
    let (outcome, is_done, is_good) = match tried {
        Ok(outcome) => (outcome, true, true),
        Err(Undone::Left(outcome, is_good)) => (outcome, false, is_good),
        Err(Undone::Refused(refusal)) => return Err(refusal),
    };
    match is_done {
        true => super::finish(site, screen),
        false => site.close(screen),
    }
    print(
        &outcome,
        &read.remarks,
        is_done,
        config.output.value,
        screen,
    )?;
    if is_good {
        return Ok(Exit::Clean);
    }
    Err(Refusal::new(format!(
        "{} of {name} refused, nothing was imported",
        counted(outcome.refused.len() as u64, "entry").replace("entrys", "entries"),
    ))
    .next("mend what is named above, or import the rest with --skip-bad"))
}

/// By what is said, the name of the file, and what stands in it.
fn format(asked: &Import, text: &str) -> import::Format {
    match asked.format {
        Some(Format::Openssh) => return import::Format::OpenSsh,
        Some(Format::AnsibleIni) => return import::Format::AnsibleIni,
        Some(Format::AnsibleYaml) => return import::Format::AnsibleYaml,
        Some(Format::Csv) => return import::Format::Csv,
        None => {}
    }
    let extension = asked
        .file
        .extension()
        .and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => return import::Format::Csv,
        Some("yml" | "yaml") => return import::Format::AnsibleYaml,
        Some("ini") => return import::Format::AnsibleIni,
        _ => {}
    }
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines
        .clone()
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_ssh = lines.any(|line| {
        let word = line.split([' ', '\t', '=']).next().unwrap_or_default();
        ["host", "match", "include"].contains(&word.to_ascii_lowercase().as_str())
    });
    if first.split(',').any(|column| column.trim() == "name") {
        import::Format::Csv
    } else if is_ssh {
        import::Format::OpenSsh
    } else if first == "---" || first.ends_with(':') {
        import::Format::AnsibleYaml
    } else {
        import::Format::AnsibleIni
    }
}

/// Files of one pattern of an `Include`.
const INCLUDED_MAX: usize = 256;

/// What an `Include` names: relative to the file's directory, with wildcards in its last part, as in
/// `config.d/*`.
fn included(path: &str, base: &Path) -> Result<Vec<(String, String)>, String> {
    let path = match path.strip_prefix("~/") {
        Some(rest) => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(rest),
            None => return Err("HOME is not set".to_owned()),
        },
        None => base.join(path),
    };
    carried::may_touch(&path).map_err(|error| error.to_string())?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let files = if name.contains(['*', '?']) {
        let dir = path.parent().unwrap_or(base);
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            // As ssh does: a pattern that matches nothing is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.to_string()),
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| {
                let shown = file.file_name().and_then(|name| name.to_str());
                shown.is_some_and(|shown| {
                    !shown.starts_with('.') && ::scan::inventory::import::globbed(name, shown)
                }) && file.is_file()
            })
            .take(INCLUDED_MAX)
            .collect();
        files.sort();
        files
    } else if path.exists() {
        vec![path]
    } else {
        Vec::new()
    };
    files
        .into_iter()
        .map(|file| {
            let bytes = named_file::read(&file, import::FILE_LEN_MAX)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let text =
                String::from_utf8(bytes).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok((file.display().to_string(), text))
        })
        .collect()
}

/// Remarks of each kind that are printed; the number of the rest follows.
const SHOWN_MAX: usize = 50;

fn print(
    outcome: &Outcome,
    remarks: &[Remark],
    is_done: bool,
    output: Output,
    screen: Screen,
) -> Result<(), Refusal> {
    match output {
        Output::Json => return screen.result(&document(outcome, remarks, is_done)?),
        Output::Csv => {
            let row = |done: &str, name: &str| [done, name, "", "", ""].map(str::to_owned);
            let refused = outcome.refused.iter().map(|remark| {
                [
                    "refused",
                    "",
                    &remark.file,
                    &remark.line.to_string(),
                    &remark.what,
                ]
                .map(str::to_owned)
            });
            let rows = outcome.added.iter().map(|host| row("added", &host.name));
            let rows = rows.chain(
                outcome
                    .changed
                    .iter()
                    .map(|host| row("changed", &host.name)),
            );
            let rows = rows.chain(outcome.unchanged.iter().map(|name| row("unchanged", name)));
            let header = ["done", "host", "file", "line", "what"];
            return screen.result(&csv::lines(header, rows.chain(refused)));
        }
        Output::Table => {}
    }
    for host in &outcome.added {
        screen.result(&safe(&format!("+ {}  {}", host.name, super::reach(host))))?;
    }
    for host in &outcome.changed {
        screen.result(&safe(&format!("~ {}  {}", host.name, super::reach(host))))?;
    }
    for (word, remarks) in [("refused: ", outcome.refused.as_slice()), ("", remarks)] {
        for remark in remarks.iter().take(SHOWN_MAX) {
            screen.remark(format_args!("{word}{remark}"));
        }
        if remarks.len() > SHOWN_MAX {
            screen.remark(format_args!(
                "and {} more; -o json has them all",
                remarks.len() - SHOWN_MAX
            ));
        }
    }
    screen.result(&format!(
        "{}{} added, {} changed, {} left alone, {} refused",
        if is_done { "" } else { "nothing was written: " },
        outcome.added.len(),
        outcome.changed.len(),
        outcome.unchanged.len(),
        outcome.refused.len(),
    ))
}

fn document(outcome: &Outcome, remarks: &[Remark], is_done: bool) -> Result<String, Refusal> {
    let names =
        |hosts: &[Host]| -> Vec<String> { hosts.iter().map(|host| host.name.clone()).collect() };
    let told = |remarks: &[Remark]| -> Vec<serde_json::Value> {
        remarks
            .iter()
            .map(|remark| {
                json!({
                    "file": remark.file,
                    "line": remark.line,
                    "what": remark.what,
                    "next": remark.next,
                })
            })
            .collect()
    };
    crate::command::json(&json!({
        "imported": is_done,
        "added": names(&outcome.added),
        "changed": names(&outcome.changed),
        "unchanged": outcome.unchanged,
        "refused": told(&outcome.refused),
        "remarks": told(remarks),
    }))
}
