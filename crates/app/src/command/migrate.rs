//! `holdfast migrate`: the record of this data directory into a PostgreSQL database, its past included.

use std::{fmt::Write, sync::atomic::Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use postgres::{Address, Move, Reached};
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::{Commit, Keys, Lineage, Store};
use wal::Lsn;
use world::{Disk, RealDisk};

use crate::{
    cli::{Output, migrate::Migrate},
    config::{self, Config},
    exit::{Exit, Refusal},
    present::{csv, table},
    screen::Screen,
    site::{Site, shared, stop_flag},
};

/// Keys and bytes of one batch, whichever is reached first: some ten milliseconds of work, and what a kill
/// costs.
const BATCH_KEYS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;

/// What of one table is on either side, or of the list of commits.
#[derive(Debug, Serialize)]
struct Row {
    table: String,
    keys: u64,
    /// Values, those of the past included.
    versions: u64,
    /// SHA-256 over all of them, the same on both sides.
    sha256: String,
}

#[derive(Serialize)]
struct Document {
    to: String,
    rows: Vec<Row>,
}

pub(crate) fn run(asked: &Migrate, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let address = address(asked)?;
    if shared::is_used(config) {
        return Err(
            Refusal::new("the tables of this site are in PostgreSQL already")
                .next("unset store.postgres and HOLDFAST_STORE_POSTGRES to move a data directory"),
        );
    }
    let site = Site::open_existing(config, screen)?;
    let from = site.store().clone();
    let not_here = |error: store::Error| {
        Refusal::new("the data directory is in use")
            .source(error)
            .next("stop `holdfast up` first: what it records meanwhile would be left behind")
    };
    let identity = from.identity().map_err(not_here)?;
    let retained = from.retained().map_err(Site::store_refused)?;
    let moved = postgres::Site {
        id: format!("{} {}", identity.journal, identity.generation.0),
        newest: retained.to,
        created: retained.from.time,
    };
    let to = Move::begin(address.clone(), scan::tables(), moved)
        .map_err(|error| shared::refused(&error))?;
    let moving = Moving {
        from: &from,
        to: &to,
        bar: bar(screen),
        stop: stop_flag()?,
    };
    let rows = if to.is_here() {
        Vec::new()
    } else {
        moving.carry()?;
        let rows = moving.verify()?;
        to.end().map_err(|error| shared::refused(&error))?;
        rows
    };
    moving.bar.finish_and_clear();
    let dir = config.data_dir()?;
    RealDisk
        .replace(&dir.join(shared::MOVED), format!("{address}\n").as_bytes())
        .map_err(|error| crate::site::cannot_use(dir, &error))?;
    site.close(screen);
    show(rows, &address, config, screen)?;
    screen.remark(format_args!(
        "everything is in {address}; set store.postgres to it, and keep {} for its keys and events",
        dir.display()
    ));
    Ok(Exit::Clean)
}

fn address(asked: &Migrate) -> Result<Address, Refusal> {
    if Address::has_password(&asked.to) {
        return Err(
            Refusal::new("the URL has a password in it, which `ps` shows to everybody")
                .next("leave it out; put it into PGPASSWORD or a file named with --password-file"),
        );
    }
    config::store::address(&asked.to, asked.password_file.as_deref())
}

fn show(rows: Vec<Row>, address: &Address, config: &Config, screen: Screen) -> Result<(), Refusal> {
    let cells = |row: Row| {
        let Row {
            table,
            keys,
            versions,
            sha256,
        } = row;
        [table, keys.to_string(), versions.to_string(), sha256]
    };
    let text = match config.output.value {
        Output::Json => super::json(&Document {
            to: address.to_string(),
            rows,
        })?,
        Output::Csv => csv::lines(
            ["table", "keys", "versions", "sha256"],
            rows.into_iter().map(cells),
        ),
        Output::Table if rows.is_empty() => "was moved there before\n".to_owned(),
        Output::Table => table::rows(
            ["TABLE", "KEYS", "VERSIONS", "SHA-256 ON BOTH SIDES"],
            rows.into_iter().map(cells),
        ),
    };
    screen.result(&text)
}

fn bar(screen: Screen) -> ProgressBar {
    if !screen.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {human_pos} keys");
    bar.set_style(style.expect("the template is valid"));
    bar
}

struct Moving<'a> {
    from: &'a Store,
    to: &'a Move,
    bar: ProgressBar,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Moving<'_> {
    fn carry(&self) -> Result<(), Refusal> {
        for table in scan::tables() {
            self.carry_table(&table.name)?;
        }
        self.carry_commits()
    }

    fn carry_table(&self, name: &str) -> Result<(), Refusal> {
        let Reached { last, is_done } = self.to.reached(name).map_err(there)?;
        if is_done {
            return Ok(());
        }
        self.bar.set_message(format!("moving {name}"));
        let keys = if last.is_empty() {
            Keys::all()
        } else {
            Keys::after(&last)
        };
        let table = self.from.table(name).map_err(Site::store_refused)?;
        let lineages = self
            .from
            .lineages(table, &keys)
            .map_err(Site::store_refused)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for lineage in lineages {
            let lineage = lineage.map_err(Site::store_refused)?;
            bytes += lineage
                .spans
                .iter()
                .map(|span| span.value.len())
                .sum::<usize>();
            batch.push(lineage);
            if batch.len() >= BATCH_KEYS || bytes >= BATCH_BYTES {
                self.to.put(name, &batch, false).map_err(there)?;
                self.went_on(batch.len())?;
                (batch, bytes) = (Vec::new(), 0);
            }
        }
        self.to.put(name, &batch, true).map_err(there)?;
        self.went_on(batch.len())
    }

    fn carry_commits(&self) -> Result<(), Refusal> {
        let Reached { last, is_done } = self.to.commits_reached().map_err(there)?;
        if is_done {
            return Ok(());
        }
        self.bar.set_message("moving commits");
        let last = last
            .try_into()
            .map_or(Lsn::ZERO, |last| Lsn::new(u64::from_be_bytes(last)));
        let mut batch: Vec<Commit> = Vec::new();
        for commit in self.from.commits(last).map_err(Site::store_refused)? {
            batch.push(commit.map_err(Site::store_refused)?);
            if batch.len() >= BATCH_KEYS {
                self.to.put_commits(&batch, false).map_err(there)?;
                self.went_on(batch.len())?;
                batch.clear();
            }
        }
        self.to.put_commits(&batch, true).map_err(there)
    }

    /// Ctrl-C ends it between two batches: the next one goes on there.
    fn went_on(&self, keys: usize) -> Result<(), Refusal> {
        self.bar.inc(keys as u64);
        if self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::new("the move was stopped; nothing is lost")
                .next("run the same command again: it goes on where it stopped"));
        }
        Ok(())
    }

    /// Reads both sides completely.
    fn verify(&self) -> Result<Vec<Row>, Refusal> {
        self.bar.set_position(0);
        let mut rows = Vec::new();
        for table in scan::tables() {
            self.bar.set_message(format!("verifying {}", table.name));
            let here = self.digest_here(&table.name)?;
            let elsewhere = self.digest_there(&table.name)?;
            rows.push(same(&table.name, here, elsewhere)?);
        }
        self.bar.set_message("verifying commits");
        let mut here = Seen::default();
        for commit in self.from.commits(Lsn::ZERO).map_err(Site::store_refused)? {
            here.commit(commit.map_err(Site::store_refused)?);
        }
        let mut elsewhere = Seen::default();
        let mut after = Lsn::ZERO;
        loop {
            let page = self.to.commits(after).map_err(there)?;
            let Some(last) = page.last() else { break };
            after = last.lsn;
            page.iter().for_each(|commit| elsewhere.commit(*commit));
        }
        rows.push(same("commits", here, elsewhere)?);
        Ok(rows)
    }

    fn digest_here(&self, name: &str) -> Result<Seen, Refusal> {
        let table = self.from.table(name).map_err(Site::store_refused)?;
        let mut seen = Seen::default();
        for lineage in self
            .from
            .lineages(table, &Keys::all())
            .map_err(Site::store_refused)?
        {
            seen.lineage(&lineage.map_err(Site::store_refused)?);
        }
        Ok(seen)
    }

    fn digest_there(&self, name: &str) -> Result<Seen, Refusal> {
        let mut seen = Seen::default();
        let mut after = Vec::new();
        loop {
            let page = self.to.page(name, &after).map_err(there)?;
            let Some(last) = page.last() else { break };
            after = last.key.to_vec();
            page.iter().for_each(|lineage| seen.lineage(lineage));
            self.went_on(page.len())?;
        }
        Ok(seen)
    }
}

fn there(error: store::Error) -> Refusal {
    shared::refused(&error)
}

fn same(name: &str, here: Seen, elsewhere: Seen) -> Result<Row, Refusal> {
    let (here, elsewhere) = (here.row(name), elsewhere.row(name));
    if here.sha256 == elsewhere.sha256 && here.versions == elsewhere.versions {
        return Ok(here);
    }
    Err(Refusal::new(format!(
        "{name}: {} keys and {} versions here, {} and {} in the database, and they are not the same",
        here.keys, here.versions, elsewhere.keys, elsewhere.versions
    ))
    .next("nothing was changed here; drop schema holdfast in that database and move again"))
}

/// What was read of one side.
#[derive(Default)]
struct Seen {
    keys: u64,
    versions: u64,
    digest: Sha256,
}

impl Seen {
    /// Lengths come before what they are of, so that no two lineages read the same.
    fn lineage(&mut self, lineage: &Lineage) {
        self.keys += 1;
        self.bytes(&lineage.key);
        self.number(lineage.spans.len() as u64);
        for span in &lineage.spans {
            self.versions += 1;
            self.number(span.from.get());
            self.number(span.until.map_or(0, Lsn::get));
            self.bytes(&span.value);
        }
    }

    fn commit(&mut self, commit: Commit) {
        self.keys += 1;
        self.versions += 1;
        self.number(commit.lsn.get());
        self.number(commit.time.nanos());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.digest.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.digest.update(number.to_be_bytes());
    }

    fn row(self, name: &str) -> Row {
        let mut sha256 = String::new();
        for byte in self.digest.finalize() {
            write!(sha256, "{byte:02x}").expect("a string takes all");
        }
        Row {
            table: name.to_owned(),
            keys: self.keys,
            versions: self.versions,
            sha256,
        }
    }
}
