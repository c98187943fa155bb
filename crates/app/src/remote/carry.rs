//! The server's part: a command that was asked for is checked, and carried out by a process of its own.
//!
//! The process is this program, started with the words and files on its standard input (see
//! [`super::carried`]). It reaches the data directory as every command beside a running `up` does. What a
//! command may be given is decided here by its definition: no word names a file of this machine.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use clap::{ArgMatches, Command, CommandFactory, parser::ValueSource};
use tokio::sync::watch;
use world::{Clock, Disk, Random, RealClock, RealDisk, RealRandom};
use zeroize::Zeroizing;

use super::{
    Asked, Done, FILE_LEN_MAX, FILES_MAX, MARK,
    carried::{self, Carried},
    is_path,
    standing::{self, Standing},
};
use crate::cli::Cli;

/// Words of one command. The longest that people write name a few dozen hosts.
const WORDS_MAX: usize = 1024;
/// Longest output of a command, standard output and error each; more ends the command.
const OUTPUT_LEN_MAX: u64 = 256 << 20;
/// How long a command may take. A scan of a host has ten minutes.
const TIME_MAX: Duration = Duration::from_secs(14 * 60);
/// How soon a stop of the server ends a command.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Directories of files that commands write begin with this.
const SCRATCH: &str = "carried-";
/// Longest name of a time zone.
const ZONE_LEN_MAX: usize = 64;

/// Who asks, and where it is carried out.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Named where a change is recorded.
    pub(crate) actor: String,
    pub(crate) standing: Standing,
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
    /// True once the server stops: the command is ended then.
    pub(crate) stop: watch::Receiver<bool>,
    /// Commands that change something are carried out too.
    pub(crate) is_writer: bool,
}

/// Why a command is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// What was sent is not a command that can be carried out here.
    Invalid(String),
    /// The asker's role does not reach.
    Denied(String),
    /// It records something, and this node does not.
    Changes,
    /// This machine could not.
    Failed(String),
}

/// Carries a command out. Takes as long as the command.
pub(crate) fn carry_out(asked: Asked, around: &Surroundings) -> Result<Done, Refused> {
    if let Some(told) = check(&asked, around)? {
        return Ok(told);
    }
    // Of a name that nobody had or guesses: what a killed server left is never taken for this one's.
    let mut name = [0; 16];
    RealRandom
        .fill(&mut name)
        .map_err(|error| Refused::Failed(format!("no random bytes: {error}")))?;
    let name = uuid::Builder::from_random_bytes(name).into_uuid();
    let scratch = around.data_dir.join(format!("{SCRATCH}{name}"));
    RealDisk
        .create_dir_all_synced(&scratch)
        .map_err(|error| Refused::Failed(format!("no room for files that are written: {error}")))?;
    let done = run(asked, around, &scratch);
    // What could not be removed is a few files in a directory that says what it is.
    drop(std::fs::remove_dir_all(&scratch));
    done
}

/// Removes what commands of a server that was killed have left.
pub(crate) fn clear(data_dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(data_dir)? {
        let entry = entry?;
        let is_left = entry.file_name().to_string_lossy().starts_with(SCRATCH);
        if is_left && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// `Some` is an answer that needs no process: a help text, or wrong usage.
fn check(asked: &Asked, around: &Surroundings) -> Result<Option<Done>, Refused> {
    if asked.words.len() > WORDS_MAX || asked.files.len() > FILES_MAX {
        return Err(Refused::Invalid(format!(
            "a command has at most {WORDS_MAX} words and {FILES_MAX} files"
        )));
    }
    if let Some(zone) = &asked.zone {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
        if zone.len() > ZONE_LEN_MAX || zone.starts_with('/') || !zone.chars().all(is_plain) {
            return Err(Refused::Invalid(
                "the name of the time zone is none".to_owned(),
            ));
        }
    }
    let mut command = Cli::command();
    let words = std::iter::once("holdfast").chain(asked.words.iter().map(String::as_str));
    let matches = match command.try_get_matches_from_mut(words) {
        Ok(matches) => matches,
        Err(error) => {
            let text = BASE64.encode(error.render().to_string());
            let exit = u8::try_from(error.exit_code()).unwrap_or(crate::exit::REFUSED);
            let (stdout, stderr) = if error.use_stderr() {
                (String::new(), text)
            } else {
                (text, String::new())
            };
            return Ok(Some(Done {
                exit,
                stdout,
                stderr,
                files: BTreeMap::new(),
            }));
        }
    };
    let (name, wanted) = standing::of(&matches);
    if wanted == Standing::Here {
        return Err(Refused::Invalid(format!(
            "`holdfast {name}` runs where it is typed"
        )));
    }
    if around.standing < wanted {
        let wanted = format!("{wanted:?}").to_lowercase();
        return Err(Refused::Denied(format!(
            "`holdfast {name}` is for the role {wanted}"
        )));
    }
    check_arguments(&command, &matches, asked)?;
    if !around.is_writer && !standing::only_reads(&name) {
        return Err(Refused::Changes);
    }
    Ok(None)
}

/// Every path must be a file that came along, or one that is to be sent back.
fn check_arguments(command: &Command, matches: &ArgMatches, asked: &Asked) -> Result<(), Refused> {
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let is_given = matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id) == Some(ValueSource::CommandLine);
        if !is_given {
            continue;
        }
        if super::OWN.contains(&id) {
            return Err(Refused::Invalid(format!(
                "--{} is this server's own",
                id.replace('_', "-")
            )));
        }
        if !is_path(arg) {
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let is_input = value == "-" && asked.input.is_some();
            let came_along = carried::number(Path::new(value))
                .is_some_and(|number| super::is_written(arg) || asked.files.contains_key(&number));
            if !is_input && !came_along {
                return Err(Refused::Invalid(format!(
                    "`{}` names a file that did not come along",
                    value.to_string_lossy().escape_debug()
                )));
            }
        }
    }
    match matches.subcommand() {
        Some((name, below)) => {
            let command = command
                .find_subcommand(name)
                .expect("clap found it by this name");
            check_arguments(command, below, asked)
        }
        None => Ok(()),
    }
}

fn run(asked: Asked, around: &Surroundings, scratch: &Path) -> Result<Done, Refused> {
    let failed = |what: &str, error: std::io::Error| Refused::Failed(format!("{what}: {error}"));
    let input = match asked.input {
        Some(text) => BASE64
            .decode(Zeroizing::new(text).as_str())
            .map(Zeroizing::new)
            .map_err(|error| Refused::Invalid(format!("the input is not Base64: {error}")))?,
        None => Zeroizing::default(),
    };
    if input.len() > FILE_LEN_MAX {
        return Err(Refused::Invalid(format!(
            "the input has more than {FILE_LEN_MAX} bytes"
        )));
    }
    let carried = Carried {
        words: asked.words,
        files: asked.files,
        scratch: scratch.to_owned(),
        actor: around.actor.clone(),
    };
    let mut line =
        Zeroizing::new(serde_json::to_vec(&carried).expect("a plain struct with string keys"));
    line.push(b'\n');
    let mut child = start(around, asked.zone.as_deref())
        .map_err(|error| failed("the command could not be started", error))?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let feeder = thread::spawn(move || {
        // A command that ends before it has read all has what it needs.
        drop(
            stdin
                .write_all(&line)
                .and_then(|()| stdin.write_all(&input)),
        );
    });
    let (exit, stdout, stderr) = end_of(child, &around.stop)?;
    drop(feeder.join());
    let (stdout, stderr) = (named(stdout, scratch), named(stderr, scratch));
    let mut files = BTreeMap::new();
    for number in 0..u8::try_from(FILES_MAX).expect("a few") {
        let path = scratch.join(number.to_string());
        match RealDisk.read(&path, OUTPUT_LEN_MAX) {
            Ok(content) => {
                files.insert(number, BASE64.encode(content));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("a file that was written", error)),
        }
    }
    Ok(Done {
        exit,
        stdout: BASE64.encode(stdout),
        stderr: BASE64.encode(stderr),
        files,
    })
}

/// Files as they were asked for, in place of where they are here.
fn named(printed: Vec<u8>, scratch: &Path) -> Vec<u8> {
    let here = format!("{}/", scratch.display());
    match String::from_utf8(printed) {
        Ok(text) => text.replace(&here, &MARK.to_string()).into_bytes(),
        Err(bytes) => bytes.into_bytes(),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a command is a process of its own"
)]
fn start(around: &Surroundings, zone: Option<&str>) -> std::io::Result<Child> {
    let mut program = Program::new("/proc/self/exe");
    program
        .env(carried::VARIABLE, "1")
        .env("HOLDFAST_DATA_DIR", &around.data_dir)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in [
        "HOLDFAST_SERVER",
        "HOLDFAST_TOKEN",
        "HOLDFAST_TOKEN_FILE",
        "HOLDFAST_OUTPUT",
    ] {
        program.env_remove(name);
    }
    match &around.config {
        Some(config) => program.env("HOLDFAST_CONFIG", config),
        None => program.env_remove("HOLDFAST_CONFIG"),
    };
    if let Some(zone) = zone {
        program.env("TZ", zone);
    }
    program.spawn()
}

/// What the command printed, and its exit code. One that takes or prints too much is ended.
fn end_of(
    mut child: Child,
    stop: &watch::Receiver<bool>,
) -> Result<(u8, Vec<u8>, Vec<u8>), Refused> {
    let (sender, printed) = mpsc::channel();
    let out = child.stdout.take().expect("it was asked for");
    let err = child.stderr.take().expect("it was asked for");
    let readers = [
        (0, Box::new(out) as Box<dyn Read + Send>),
        (1, Box::new(err)),
    ];
    for (which, stream) in readers {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stream.take(OUTPUT_LEN_MAX + 1).read_to_end(&mut bytes);
            // Nobody listens any more where the command took too long.
            drop(sender.send((which, read.map(|_| bytes))));
        });
    }
    let clock = RealClock::new();
    let end = clock.monotonic() + TIME_MAX;
    let mut outputs = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        let why = match next(&printed, stop, &clock, end) {
            Ok((which, Ok(bytes))) if bytes.len() as u64 <= OUTPUT_LEN_MAX => {
                outputs[which] = bytes;
                continue;
            }
            Ok((_, Ok(_))) => format!("it printed more than {OUTPUT_LEN_MAX} bytes"),
            Ok((_, Err(error))) => error.to_string(),
            Err(why) => why,
        };
        drop(child.kill());
        drop(child.wait());
        return Err(Refused::Failed(format!("the command was ended: {why}")));
    }
    let status = child
        .wait()
        .map_err(|error| Refused::Failed(format!("the command's end: {error}")))?;
    let exit = status.code().and_then(|code| u8::try_from(code).ok());
    let [stdout, stderr] = outputs;
    exit.map(|exit| (exit, stdout, stderr))
        .ok_or_else(|| Refused::Failed(format!("the command ended with {status}")))
}

type Printed = (usize, std::io::Result<Vec<u8>>);

/// The next of the two outputs, or why the command is to be ended.
fn next(
    printed: &mpsc::Receiver<Printed>,
    stop: &watch::Receiver<bool>,
    clock: &RealClock,
    end: Duration,
) -> Result<Printed, String> {
    loop {
        if let Ok(next) = printed.recv_timeout(LOOK_EVERY) {
            return Ok(next);
        }
        if *stop.borrow() {
            return Err("the server stops".to_owned());
        }
        if clock.monotonic() >= end {
            return Err(format!("it took more than {} s", TIME_MAX.as_secs()));
        }
    }
}
