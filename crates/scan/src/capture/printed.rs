//! The printed collector: a shell script for a host where no program may be brought, and what it
//! brought.
//!
//! It asks the same questions with the same pieces of shell, in one go: since it cannot be asked
//! again, it also takes what a collector might ask for after the first answers. It makes no walk. What
//! it prints is a file that somebody carries: password hashes are cut to their kind on the host, and
//! files with private keys are left out.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use world::{Clock, Timestamp};

use super::{
    Exchange, Limits,
    answer::{self, Parts},
    captured::Captured,
    declared,
    frame::{Session, sections},
    question::{BATCHED_BYTES_MAX, Batch, Program, Wanted},
    shell,
};
use crate::{
    collect::{self, Collector, Needs, collect_only},
    facts::Facts,
    failure::{Failure, Reason},
    target::{OUTPUT_BYTES_MAX, Target},
};

/// How a capture begins; the mark follows.
const HEADER: &str = "holdfast.capture/1 ";

/// Files whose lines have password hashes in them, and how the host cuts those.
const CUT: &[(&str, &str)] = &[
    (
        "/etc/shadow",
        "awk -F: -v OFS=: '{h=$2;l=\"\";while(substr(h,1,1)==\"!\"){l=l \"!\";h=substr(h,2)}\
         if(match(h,/^\\$[^$]*\\$/))$2=l substr(h,1,RLENGTH) \"cut\";\
         else if(length(h)==13)$2=l \"cutcutcutcutc\";else if(length(h)==20)$2=l \"_cutcutcutcutcutcutc\";\
         else if(length(h)>2)$2=l \"*\";print}'",
    ),
    ("/boot/grub/grub.cfg", CUT_GRUB),
    ("/boot/grub/custom.cfg", CUT_GRUB),
    ("/boot/grub2/grub.cfg", CUT_GRUB),
    ("/boot/grub2/custom.cfg", CUT_GRUB),
    ("/boot/grub2/user.cfg", CUT_GRUB),
];

const CUT_GRUB: &str = "sed 's/\\(grub\\.pbkdf2\\.[a-z0-9]*\\.[0-9]*\\.\\)[0-9A-Fa-f.]*/\\1cut/'";

/// What the script does beyond the pieces: `Q` asks one question and says which; `J` asks about lines.
const QUESTIONS: &str = r#"
i=0;
Q(){ i=$((i+1));q=$1;shift;P q;printf '%s\n' "$q" "$@";case $q in keep)E o s '' "$@";;follow)E o s -L "$@";;links)E o f -P 0 "$@";;lists)E o f -H 1 "$@";;trees)E o f -H 16 "$@";;contents)R "$@";;hashes)K=268435456;H "$@";K=1048576;;packages)G "$1";;esac;};
J(){ q=$1;IFS=$n;set -f;set -- $2;unset IFS;set +f;[ $# = 0 ]||Q "$q" "$@";};
O(){ i=$((i+1));P q;printf '%s\n' program "$@";C 10 1 "$@";};
"#;

/// The script, to be run as `sh SCRIPT > CAPTURE`.
pub fn printed_script(needs: &Needs, clock: &Arc<dyn Clock>) -> String {
    let collectors = collect::list();
    let mut script = String::from(
        "#!/bin/sh\n\
         # Collects what holdfast judges this host by, and changes nothing on it: no file is written, nothing\n\
         # is installed or started. Run it as root, or what only root may read stays unknown:\n\
         #   sh holdfast-collect.sh > host.capture\n\
         # and elsewhere: holdfast scan --replay host.capture\n\
         # The capture has configuration in it, no password hash and no private key.\n\
         umask 077; cd /; exec </dev/null\n\
         PATH=/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL; unset IFS ENV CDPATH N\n\
         N=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')\n\
         [ ${#N} = 32 ] || { echo 'no random numbers: /dev/urandom' >&2; exit 1; }\n",
    );
    script.push_str(shell::PIECES);
    script.push_str(QUESTIONS);
    script.push_str(
        "printf 'holdfast.capture/1 %s\\n' \"$N\"\n\
         Z=cat; z=p; command -v gzip >/dev/null && Z='gzip -1' z=z\n\
         printf '\\n%s B 1 %s\\n' \"$N\" $z\n{\nP h; date +%s; id -u; uname -s;\n",
    );
    // Writing to a string cannot fail.
    questions(&mut script, collectors, needs, clock).ok();
    script.push_str("} | $Z\nprintf '\\n%s E 1\\n' \"$N\"\n");
    script
}

fn questions(
    script: &mut String,
    collectors: &[&'static Collector],
    needs: &Needs,
    clock: &Arc<dyn Clock>,
) -> std::fmt::Result {
    let mut wanted = guessed(collectors, needs, clock);
    declared::ask(
        collectors.iter().flat_map(|one| one.reads.iter().copied()),
        &mut wanted,
    );
    declared::ask(needs.globs.iter().map(String::as_str), &mut wanted);
    let plain = |declared: &&&str| declared.starts_with('/') && !declared.contains(['*', '{', ' ']);
    for path in collectors.iter().flat_map(|one| one.reads).filter(plain) {
        wanted.contents.insert((*path).to_owned(), OUTPUT_BYTES_MAX);
        wanted.stats_follow.insert((*path).to_owned());
    }
    for (path, filter) in CUT {
        wanted.contents.remove(*path);
        writeln!(
            script,
            "y(){{ [ -f \"$1\" ]&&{filter} \"$1\";}};i=$((i+1));P q;printf '%s\\n' content '{path}';\
             E o s -L '{path}';E x y '{path}';"
        )?;
    }
    for (kind, paths) in [
        ("keep", wanted.stats_keep.iter().collect::<Vec<_>>()),
        ("follow", wanted.stats_follow.iter().collect()),
        ("links", wanted.links.iter().collect()),
        ("lists", wanted.lists.iter().collect()),
        ("contents", wanted.contents.keys().collect()),
        ("hashes", wanted.hashes.keys().collect()),
    ] {
        if !paths.is_empty() {
            let words: Vec<String> = paths.into_iter().map(|path| shell::quote(path)).collect();
            writeln!(script, "Q {kind} {};", words.join(" "))?;
        }
    }
    for tree in &wanted.trees {
        let tree = shell::quote(tree);
        writeln!(script, "Q trees {tree};")?;
        if tree == "'/proc/sys'" {
            writeln!(
                script,
                "J contents \"$(find {tree} -xdev -type f ! -name stable_secret ! -name tcp_fastopen_key \
                 ! -name stat_refresh -print 2>/dev/null)\";"
            )?;
        } else {
            writeln!(
                script,
                "t=\"$(find -H {tree} -xdev ! -type d ! -name '*\n*' -print 2>/dev/null)\";\
                 J contents \"$t\";J follow \"$t\";"
            )?;
        }
    }
    patterns(script, collectors)?;
    script.push_str(
        "J contents \"$(for a in /etc/ssl/* /etc/ssl/certs/* /etc/pki/tls/certs/* /etc/nginx/ssl/* /etc/apache2/ssl/* \
         /etc/letsencrypt/live/*/cert.pem;do [ -f \"$a\" ]&&! grep -q 'PRIVATE KEY' \"$a\" 2>/dev/null&&echo \"$a\";done)\";\n\
         for a in /var/lib/apt/lists/*_Packages /var/lib/apt/lists/*_Packages.lz4;do [ -f \"$a\" ]&&Q packages \"$a\";done;\n\
         t=\"$(ls -d /var/lib/apt/lists/*Release 2>/dev/null)\";J contents \"$t\";J follow \"$t\";\n\
         t=\"$(awk -F: '$6~/^\\//{print $6}' /etc/passwd)\";J follow \"$t\";J keep \"$t\";J lists \"$t\";\n",
    );
    for command in collectors.iter().flat_map(|one| one.runs) {
        if command.contains("...") {
            continue;
        }
        let words: Vec<String> = command.split(' ').map(shell::quote).collect();
        // It loads the kernel's module when it is run, so only where that is loaded.
        let guard = match command {
            command if command.contains("/iptables-legacy") => "[ -s /proc/net/ip_tables_names ]&&",
            command if command.contains("/ip6tables-legacy") => {
                "[ -s /proc/net/ip6_tables_names ]&&"
            }
            _ => "",
        };
        writeln!(script, "{guard}O {};", words.join(" "))?;
    }
    Ok(())
}

/// Files that a collector reads by pattern, but for those with secrets and the large ones.
fn patterns(script: &mut String, collectors: &[&'static Collector]) -> std::fmt::Result {
    let mut globs = Vec::new();
    for declared in collectors.iter().flat_map(|one| one.reads) {
        let is_taken = declared.starts_with('/')
            && declared.contains('*')
            && !declared.contains("**")
            && !declared.contains("Packages")
            && !declared.contains("/ssl/")
            && !declared.contains("/tls/")
            && !declared.contains("letsencrypt")
            && !declared.starts_with("/proc/*");
        if is_taken {
            globs.extend(declared::alternatives(declared));
        }
    }
    globs.retain(|glob| {
        glob.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-*?[]".contains(&byte))
    });
    globs.sort();
    globs.dedup();
    let globs = globs.join(" ");
    writeln!(
        script,
        "Q contents {globs};Q follow {globs};Q keep {globs};"
    )?;
    script.push_str("t=/lib/modules/$(uname -r);Q contents $t/modules.builtin $t/modules.dep;\n");
    writeln!(
        script,
        "Q links /proc/[0-9]*/exe;Q contents /proc/[0-9]*/attr/current;"
    )
}

/// What collectors ask of a host of which nothing is known.
fn guessed(collectors: &[&'static Collector], needs: &Needs, clock: &Arc<dyn Clock>) -> Wanted {
    let captured = Arc::new(Captured::default());
    captured.guess(true);
    collect_only(
        collectors,
        Arc::clone(&captured) as Arc<dyn Target>,
        Arc::new(needs.clone()),
        Arc::new(()),
        Arc::clone(clock),
    );
    std::mem::take(&mut *captured.wanted())
}

/// Whether a file is a capture, of any version.
pub fn is_capture(bytes: &[u8]) -> bool {
    bytes.starts_with(b"holdfast.capture/")
}

/// The facts in a capture, as of when it was made.
///
/// # Errors
/// Another version, cut, or not a capture.
pub fn replay(bytes: &[u8], needs: &Arc<Needs>, clock: &Arc<dyn Clock>) -> Result<Facts, Failure> {
    let refuse = |why: &str| Failure::new(Reason::Internal, why.to_owned());
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| refuse("no capture"))?;
    let mark = line
        .strip_prefix(HEADER)
        .filter(|mark| mark.len() == 32)
        .ok_or_else(|| refuse("not a capture of version 1"))?;
    let mut whole = Whole(Some(bytes.to_vec()));
    let limits = Limits::default();
    let mut session = Session::new(&mut whole, clock.as_ref(), &limits, mark.to_owned());
    let body = session
        .answer(1)
        .map_err(|_| refuse("the capture is cut or damaged: it has no end"))?;
    let sections = sections(mark, &body);
    let captured = Arc::new(Captured::default());
    for parts in sections.values() {
        let mut parts = Parts::new(parts);
        if let Some(batch) = parts.next(b'q').and_then(batch) {
            answer::take(&batch, mark, parts, &mut captured.known_mut());
        }
    }
    let hello = sections.get(&b"0"[..]).and_then(|parts| parts.first());
    let made = hello
        .and_then(|(_, text)| {
            str::from_utf8(text)
                .ok()?
                .lines()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .and_then(|seconds| seconds.checked_mul(1_000_000_000))
        .ok_or_else(|| refuse("the capture does not say when it was made"))?;
    let clock: Arc<dyn Clock> = Arc::new(Then(Timestamp::from_nanos(made), Arc::clone(clock)));
    Ok(collect_only(
        collect::list(),
        captured as Arc<dyn Target>,
        Arc::clone(needs),
        Arc::new(()),
        clock,
    ))
}

/// The question in section `q`: its kind and what it is about, a line each.
fn batch(section: &[u8]) -> Option<Batch> {
    let mut lines = str::from_utf8(section).ok()?.lines().map(str::to_owned);
    let kind = lines.next()?;
    let asked: Vec<String> = lines.collect();
    Some(match kind.as_str() {
        "keep" => Batch::StatKeep(asked),
        "follow" => Batch::StatFollow(asked),
        "links" => Batch::Links(asked),
        "lists" => Batch::Lists(asked),
        "trees" => Batch::Trees(asked),
        "contents" => Batch::Contents(asked),
        "content" => Batch::Content(asked.into_iter().next()?, OUTPUT_BYTES_MAX),
        "hashes" => Batch::Hashes(asked, BATCHED_BYTES_MAX << 8),
        "packages" => Batch::PackageList(asked.into_iter().next()?),
        "program" => {
            let (program, args) = asked.split_first()?;
            let program = Program {
                programs: vec![program.clone()],
                args: args.to_vec(),
            };
            Batch::Program(program, Duration::from_secs(10), OUTPUT_BYTES_MAX)
        }
        _ => return None,
    })
}

/// A file as the other side of a session: it says all at once and hears nothing.
struct Whole(Option<Vec<u8>>);

impl Exchange for Whole {
    fn send(&mut self, _bytes: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.take())
    }
}

/// When the capture was made: ages are counted from there.
#[derive(Debug)]
struct Then(Timestamp, Arc<dyn Clock>);

impl Clock for Then {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        self.1.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.1.sleep(duration);
    }
}
