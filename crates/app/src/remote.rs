//! `--server URL`: a command of this command line, carried out by a server elsewhere.
//!
//! The words are parsed here first, so that wrong usage is told without asking anybody. What is sent is
//! the command as it was understood, files that it reads included; what comes back is what it printed,
//! the files that it wrote, and its exit code.

pub(crate) mod carried;
pub(crate) mod carry;
pub(crate) mod standing;

use std::{
    any::TypeId,
    collections::BTreeMap,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use serde::{Deserialize, Serialize};
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};
use utoipa::ToSchema;
use world::{Clock, Disk, RealClock, RealDisk};
use zeroize::Zeroizing;

use self::standing::Standing;
use crate::{
    cli::Global,
    exit::{Exit, Refusal},
    named_file,
    screen::Screen,
};

/// Files of one command. The most that one takes is five: a credential with everything.
pub(crate) const FILES_MAX: usize = 16;
/// Longest file that goes along with a command. A month of XCCDF results has 15 MB.
pub(crate) const FILE_LEN_MAX: usize = 64 << 20;
/// Longest answer that is taken: an export of a fleet.
const ANSWER_LEN_MAX: u64 = 1 << 30;
/// How long a command may take elsewhere: a scan has ten minutes.
const TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest file that holds a token, and longest certificate.
const SMALL_FILE_LEN_MAX: u64 = 64 << 10;

/// Arguments that name what is written; the others name what is read.
const WRITTEN: [&str; 3] = ["facts_out", "out", "to"];

/// Where files of a command stand in its words: `@0`, `@1` and so on.
pub(crate) const MARK: char = '@';

/// A command to carry out.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// What would stand on the command line after `holdfast`; a file is written as `@` and its number.
    pub(crate) words: Vec<String>,
    /// Contents of files by their number, in Base64. Files to be written are not in it.
    #[serde(default)]
    pub(crate) files: BTreeMap<u8, String>,
    /// Standard input, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<String>,
    /// The zone that local times are in, by its name in the time zone database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
}

/// What came of it.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Done {
    /// 0 clean, 1 findings, 2 not carried out, 3 incomplete.
    pub(crate) exit: u8,
    /// Standard output, in Base64.
    pub(crate) stdout: String,
    /// Standard error, in Base64.
    pub(crate) stderr: String,
    /// Contents of the files that were written by their number, in Base64.
    #[serde(default)]
    pub(crate) files: BTreeMap<u8, String>,
}

/// Whether an argument takes the path of a file or directory.
pub(crate) fn is_path(arg: &Arg) -> bool {
    takes_value(arg) && arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
}

pub(crate) fn is_written(arg: &Arg) -> bool {
    WRITTEN.contains(&arg.get_id().as_str())
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// Flags of this end: they are not sent.
const OWN: [&str; 6] = [
    "server",
    "server_cert",
    "token_file",
    "data_dir",
    "config",
    "wait_for",
];

/// A command as words, and the files in it.
#[derive(Default)]
struct Understood {
    words: Vec<String>,
    read: BTreeMap<u8, PathBuf>,
    written: BTreeMap<u8, PathBuf>,
    wants_input: bool,
}

impl Understood {
    /// Follows the commands that were given down to the last.
    fn of(command: &Command, matches: &ArgMatches) -> Result<Self, Refusal> {
        let mut understood = Self::default();
        let (mut command, mut matches) = (command, matches);
        let mut behind = Vec::new();
        loop {
            understood.take(command, matches, &mut behind)?;
            let Some((name, below)) = matches.subcommand() else {
                break;
            };
            understood.words.push(name.to_owned());
            command = command
                .find_subcommand(name)
                .expect("clap found it by this name");
            matches = below;
        }
        if !behind.is_empty() {
            understood.words.push("--".to_owned());
            understood.words.append(&mut behind);
        }
        Ok(understood)
    }

    /// Positional arguments go `behind` all flags.
    fn take(
        &mut self,
        command: &Command,
        matches: &ArgMatches,
        behind: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let is_given = matches.try_contains_id(id).unwrap_or(false)
                && matches.value_source(id) == Some(ValueSource::CommandLine);
            // A flag that all commands take is seen by each of them: the last one tells it.
            let is_told_below = arg.is_global_set() && matches.subcommand().is_some();
            if !is_given || OWN.contains(&id) || is_told_below {
                continue;
            }
            self.wants_input |= id.ends_with("stdin");
            let long = arg.get_long().map(|long| format!("--{long}"));
            if !takes_value(arg) {
                self.words.extend(long);
                continue;
            }
            for raw in matches.get_raw(id).into_iter().flatten() {
                let mut value = raw.to_str().map(str::to_owned).ok_or_else(|| {
                    Refusal::new(format!("{} is not UTF-8", raw.display()))
                        .next("give it another name")
                })?;
                if is_path(arg) {
                    value = self.file(arg, value)?;
                }
                match &long {
                    Some(long) => self.words.push(format!("{long}={value}")),
                    None => behind.push(value),
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, arg: &Arg, path: String) -> Result<String, Refusal> {
        if path == "-" {
            self.wants_input = true;
            return Ok(path);
        }
        let number = self.read.len() + self.written.len();
        let number = u8::try_from(number)
            .ok()
            .filter(|number| usize::from(*number) < FILES_MAX)
            .ok_or_else(|| Refusal::new(format!("more than {FILES_MAX} files")))?;
        let files = if is_written(arg) {
            &mut self.written
        } else {
            &mut self.read
        };
        files.insert(number, path.into());
        Ok(format!("{MARK}{number}"))
    }
}

/// The server that the command is for. One that runs here whatever the environment says is not sent, and
/// refused where the server stands on the command line.
pub(crate) fn server<'a>(
    matches: &ArgMatches,
    global: &'a Global,
) -> Result<Option<&'a str>, Refusal> {
    let Some(url) = &global.server else {
        return Ok(None);
    };
    let (name, standing) = standing::of(matches);
    if standing != Standing::Here {
        return Ok(Some(url));
    }
    if matches.value_source("server") == Some(ValueSource::CommandLine) {
        return Err(
            Refusal::new(format!("`holdfast {name}` runs where it is typed"))
                .next("leave out --server, or run it on the server itself"),
        );
    }
    Ok(None)
}

/// Carries the command out at the server `url`.
pub(crate) fn run(
    command: &Command,
    matches: &ArgMatches,
    global: &Global,
    url: &str,
) -> Result<Exit, Refusal> {
    let screen = Screen::new(global);
    let given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    if given("data_dir") || given("config") {
        return Err(
            Refusal::new("a server has its own data directory and configuration")
                .next("leave out --data-dir and --config, or --server"),
        );
    }
    let understood = Understood::of(command, matches)?;
    let mut files = BTreeMap::new();
    for (number, path) in &understood.read {
        let content = read(path)?;
        files.insert(*number, BASE64.encode(content.as_slice()));
    }
    let input = understood.wants_input.then(read_input).transpose()?;
    let asked = Asked {
        words: understood.words.clone(),
        files,
        input,
        zone: jiff::tz::TimeZone::system().iana_name().map(str::to_owned),
    };
    let done = carried_out(&asked, global, url, screen)?;
    for (number, path) in &understood.written {
        let Some(content) = done.files.get(number) else {
            continue;
        };
        let content = decode(content)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        RealDisk.replace(&path, &content).map_err(|error| {
            Refusal::new(format!("{}: {error}", path.display()))
                .next("name a file that you may write")
        })?;
    }
    show(&done, &understood, screen)?;
    Ok(Exit::Elsewhere(done.exit))
}

fn show(done: &Done, understood: &Understood, screen: Screen) -> Result<(), Refusal> {
    let (stdout, stderr) = (decode(&done.stdout)?, decode(&done.stderr)?);
    let files: Vec<_> = understood.read.iter().chain(&understood.written).collect();
    let named = |text: &str| {
        files.iter().fold(text.to_owned(), |text, (number, path)| {
            text.replace(&format!("{MARK}{number}"), &path.display().to_string())
        })
    };
    let stderr = named(&String::from_utf8_lossy(&stderr));
    let stdout = match std::str::from_utf8(&stdout) {
        Ok(text) if !files.is_empty() => named(text).into_bytes(),
        _ => stdout,
    };
    let mut err = io::stderr().lock();
    // Nobody can be told that nobody reads it.
    drop(err.write_all(stderr.as_bytes()));
    screen.bytes(&stdout)
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64
        .decode(text)
        .map_err(|error| Refusal::new("the server's answer is not understood").source(error))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let max = u64::try_from(FILE_LEN_MAX).expect("a bound of megabytes");
    named_file::read(path, max)
        .map(Zeroizing::new)
        .map_err(|error| {
            Refusal::new(format!("{}: {error}", path.display()))
                .next("name a file of this machine that you may read; a directory cannot be sent")
        })
}

fn read_input() -> Result<String, Refusal> {
    if io::stdin().is_terminal() {
        return Err(Refusal::new("standard input is a terminal")
            .next("pipe what the command is to read into it"));
    }
    let mut input = Zeroizing::new(Vec::new());
    let max = u64::try_from(FILE_LEN_MAX).expect("a bound of megabytes");
    io::stdin()
        .lock()
        .take(max + 1)
        .read_to_end(&mut input)
        .map_err(|error| Refusal::new("standard input").source(error))?;
    if input.len() > FILE_LEN_MAX {
        return Err(Refusal::new(format!(
            "standard input has more than {FILE_LEN_MAX} bytes"
        )));
    }
    Ok(BASE64.encode(input.as_slice()))
}

/// What a server answers.
enum Answered {
    Done(Done),
    /// It stands by; the node that writes is to be asked, here.
    StandsBy {
        primary: Option<String>,
    },
    /// Nothing was done: its roles change at the moment.
    Changing(Refusal),
}

/// How long a server that changes its role is asked again: as commands beside it wait.
const ROLE_CHANGE_MAX: Duration = Duration::from_secs(30);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks `url`, and where that stands by the node that writes, once: with the same token, and under the
/// same certificates, or not at all.
fn carried_out(asked: &Asked, global: &Global, url: &str, screen: Screen) -> Result<Done, Refusal> {
    let url = url.trim_end_matches('/');
    let primary = match ask_in_role(asked, global, url)? {
        Answered::Done(done) => return Ok(done),
        Answered::Changing(refusal) => return Err(refusal),
        Answered::StandsBy { primary } => primary,
    };
    let Some(primary) = primary else {
        return Err(Refusal::new(format!(
            "{url} stands by, and does not know where the node that writes is found"
        ))
        .next("name that node with --server; `holdfast group status` on a node shows which one writes"));
    };
    screen.remark(format_args!(
        "{url} stands by; {primary} writes, and is asked instead"
    ));
    match ask_in_role(asked, global, &primary)? {
        Answered::Done(done) => Ok(done),
        Answered::Changing(refusal) => Err(refusal),
        Answered::StandsBy { .. } => Err(Refusal::new(format!(
            "{url} names {primary} as the node that writes, and that one stands by as well"
        ))
        .next("try again in a moment; `holdfast group status` on a node shows which one writes")),
    }
}

/// Asks again while the server changes its role: nothing was done then.
fn ask_in_role(asked: &Asked, global: &Global, url: &str) -> Result<Answered, Refusal> {
    let clock = RealClock::new();
    loop {
        match ask(asked, global, url)? {
            Answered::Changing(_) if clock.monotonic() < ROLE_CHANGE_MAX => {
                clock.sleep(ASK_AGAIN_AFTER);
            }
            answered => return Ok(answered),
        }
    }
}

fn ask(asked: &Asked, global: &Global, url: &str) -> Result<Answered, Refusal> {
    let parsed: ureq::http::Uri = url.parse().map_err(|error| {
        Refusal::new(format!("`{url}` is no URL: {error}")).next("write it as https://HOST:PORT")
    })?;
    if parsed
        .authority()
        .is_none_or(|authority| authority.as_str().contains('@'))
    {
        return Err(Refusal::new(
            "the URL of a server is https://HOST:PORT and nothing else",
        ));
    }
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|host| host.is_loopback());
    if !url.starts_with("https://") && !is_loopback {
        return Err(
            Refusal::new(format!("`{url}` would send the token in the clear"))
                .next("name the server as https://HOST:PORT; http:// is for this machine only"),
        );
    }
    let token = token(global)?;
    let unreachable = |error: ureq::Error| {
        Refusal::new(format!("{url}: {error}")).next(
            "is `holdfast up` running there, and listening at that address (server.listen)? A \
             certificate of its own is named with --server-cert",
        )
    };
    let body = Zeroizing::new(serde_json::to_vec(asked).expect("a plain struct with string keys"));
    let mut request = agent(global)?
        .post(format!("{url}/api/v1/commands"))
        .header("Authorization", format!("Bearer {}", token.as_str()));
    if let Some(lsn) = global.wait_for {
        request = request.header("Holdfast-Wait-For", lsn.to_string());
    }
    let mut answer = request
        .content_type("application/json")
        .send(&body[..])
        .map_err(unreachable)?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(ANSWER_LEN_MAX);
    let body = body.read_to_vec().map_err(unreachable)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map(Answered::Done)
            .map_err(|error| {
                Refusal::new(format!("{url} answers what is not understood")).source(error)
            });
    }
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("no reason was given");
    let refusal = Refusal::new(format!("{url} refuses: {detail} ({status})"));
    match problem["code"].as_str() {
        Some("NOT_PRIMARY") => {
            let primary = problem["primary"].as_str().map(ToOwned::to_owned);
            return Ok(Answered::StandsBy { primary });
        }
        Some("ROLE_CHANGING") => {
            return Ok(Answered::Changing(refusal.next("try again in a moment")));
        }
        _ => {}
    }
    Err(match status.as_u16() {
        401 => refusal.next("name the file of a token that is valid there with --token-file"),
        403 => refusal.next("ask for a token of a role that may do this"),
        429 | 503 | 504 => refusal.next("try again in a moment"),
        _ => refusal,
    })
}

fn token(global: &Global) -> Result<Zeroizing<String>, Refusal> {
    let text = match &global.token_file {
        Some(path) => {
            let bytes = named_file::read(path, SMALL_FILE_LEN_MAX).map_err(|error| {
                Refusal::new(format!("{}: {error}", path.display()))
                    .next("name a file that holds a token of the server")
            })?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        None => std::env::var("HOLDFAST_TOKEN").map_err(|_| {
            Refusal::new("a server wants a token").next(
                "name its file with --token-file, or put it into HOLDFAST_TOKEN; `holdfast token \
                 add` on the server makes one",
            )
        })?,
    };
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn agent(global: &Global) -> Result<Agent, Refusal> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIME_MAX))
        .max_redirects(0)
        .proxy(None);
    if let Some(path) = &global.server_cert {
        let refuse = |why: String| {
            Refusal::new(format!("{}: {why}", path.display()))
                .next("name the server's certificate as PEM; the server has it in keys/server.crt")
        };
        let pem = named_file::read(path, SMALL_FILE_LEN_MAX)
            .map_err(|error| refuse(error.to_string()))?;
        let roots = certificates(&pem).map_err(refuse)?;
        let roots = RootCerts::from(roots);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}

/// All of them: nodes of one site may each have their own.
fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err("no certificate is in it".to_owned()),
        false => Ok(found),
    }
}
