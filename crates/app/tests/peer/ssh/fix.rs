//! Fixes of a host over SSH: kept, undone, refused, interrupted, and undone by the host itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use scan::{
    credential::Sudo,
    executor::Ssh,
    fix::{
        self, Access, Disarmed, Effect, Fault, Fix, Hands, Journal, Line, Object, Phase,
        RemoteHands, State,
    },
    policy::HostKeyPolicy,
    rule::{Pack, Rule},
    ssh::Trust,
};
use world::{Clock, RealClock, RealRandom};

use crate::{
    Peer,
    holdfast::{Run, Sandbox, repository},
};

use super::server::{SERVER, Server, known};

const RULE: &str = "crontab-mode";

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn tests() -> Vec<Trial> {
    vec![
        SERVER.test("ssh_a_fix_is_kept_and_its_rollback_puts_it_back", kept),
        SERVER.test("ssh_a_fix_that_does_not_hold_is_undone", undone),
        SERVER.test("ssh_a_fix_without_the_rights_of_root_is_refused", refused),
        SERVER.test("ssh_a_fix_that_is_cut_off_is_undone_by_recover", cut),
        SERVER.test(
            "ssh_the_host_undoes_by_itself_what_nobody_called_off",
            timed,
        ),
        SERVER.test("ssh_files_are_replaced_whole_or_not_at_all", files),
    ]
}

/// A host with a crontab that everybody reads, and a site that watches it as `web1`.
struct Bench {
    server: Server,
    site: Sandbox,
}

impl Bench {
    fn new(user: &str, sudo: &str) -> Self {
        let server = Server::start_apart();
        let site = Sandbox::new();
        server.key_of(user, "fixer", &["-t", "ed25519"]);
        let key = server.path("fixer").display().to_string();
        let vouched = server.path("host_ed25519.pub").display().to_string();
        let port = server.port.to_string();
        for args in [
            [
                "credential",
                "add",
                "default",
                "--user",
                user,
                "--key",
                &key,
                "--sudo",
                sudo,
            ],
            [
                "host",
                "add",
                "web1",
                "127.0.0.1",
                "--port",
                &port,
                "--key-file",
                &vouched,
                "--tag=x",
            ],
        ] {
            let run = site.run(args);
            assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
        }
        let bench = Self { server, site };
        bench.put("crontab", 0o644);
        bench
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.server.path("etc").join(name)
    }

    fn put(&self, name: &str, mode: u32) {
        fs::write(self.etc(name), "# every night\n").unwrap();
        fs::set_permissions(self.etc(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.etc(name)).unwrap().permissions().mode() & 0o7777
    }

    fn fix(&self, args: &[&str]) -> Run {
        self.site.run([&["fix"], args].concat())
    }

    fn states(&self) -> Vec<String> {
        let (_, fixes) = self.site.json(["fix", "list"]);
        let fixes = fixes.as_array().unwrap().iter();
        fixes
            .map(|fix| fix["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The way to the host as a user of its own.
    fn line(&self, user: &str) -> Arc<Line> {
        let login = self.server.login(user);
        let mut secret = login.secret.clone();
        secret.sudo = Sudo::NoPassword;
        let ssh = Ssh {
            trust: Trust {
                known: known(&login.endpoint, &login.known),
                policy: HostKeyPolicy::RequireKnown,
                first_sight: Arc::new(|_| panic!("nothing is taken on sight")),
            },
            endpoint: login.endpoint,
            resolve: Arc::new(move || Ok(secret.clone())),
            random: Arc::new(RealRandom),
        };
        Arc::new(Line::new(
            "web1",
            ssh,
            Arc::new(RealClock::new()),
            Arc::new(()),
        ))
    }
}

/// Until `holds`, or the test fails with `what`.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Proves: RUL-9
fn kept(_: &Peer) {
    let bench = Bench::new("alice", "nopassword");
    let plan = bench.fix(&[RULE, "--host", "web1"]);
    assert_eq!(plan.code, 0, "{}{}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains("/etc/crontab"), "{}", plan.stdout);
    assert_eq!(bench.mode("crontab"), 0o644);
    let run = bench.fix(&[RULE, "--host", "web1", "--apply", "--yes"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(bench.mode("crontab"), 0o600);
    assert_eq!(bench.states(), ["kept"]);
    let again = bench.fix(&[RULE, "--host", "web1"]);
    again.is_refused_naming("is pass here");
    let (_, fixes) = bench.site.json(["fix", "list"]);
    let back = bench.fix(&["rollback", fixes[0]["id"].as_str().unwrap()]);
    assert_eq!(back.code, 0, "{}{}", back.stdout, back.stderr);
    assert_eq!(bench.mode("crontab"), 0o644);
    assert_eq!(bench.states(), ["rolled_back"]);

    // What logins depend on is kept only after a login that did not exist before.
    let rules = bench.site.path("rules");
    let text = fs::read_to_string(repository("crates/scan/rules/cron/crontab-mode.yaml")).unwrap();
    let text = text
        .replace("/etc/crontab", "/etc/ssh/site.conf")
        .replace("id: crontab-mode", "id: site-conf-mode");
    bench.site.file("rules/site-conf-mode.yaml", text);
    bench.put("ssh/site.conf", 0o644);
    let args = [
        "site-conf-mode",
        "--host",
        "web1",
        "--apply",
        "--yes",
        "--rules-dir",
    ];
    let run = bench.fix(&[&args[..], &[rules.to_str().unwrap()]].concat());
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("120 s"), "{}", run.stdout);
    assert_eq!(bench.mode("ssh/site.conf"), 0o600);
    assert_eq!(bench.states(), ["kept", "rolled_back"]);
    let logins = bench.server.log().matches("Accepted publickey").count();
    assert!(logins >= 10, "{logins} logins");
}

/// A record in memory.
#[derive(Default)]
struct Noted(Vec<Phase>);

impl Journal for Noted {
    fn begin(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.record(fix)
    }

    fn record(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.0.push(fix.progress.phase);
        Ok(())
    }
}

fn rule() -> Rule {
    let rules = Pack::embedded().pack.rules;
    rules.into_iter().find(|rule| rule.id == RULE).unwrap()
}

/// Proves: RUL-9
fn undone(_: &Peer) {
    let bench = Bench::new("alice", "nopassword");
    let line = bench.line("alice");
    let rule = rule();
    let mut hands = RemoteHands::new(Arc::clone(&line));
    let plan = fix::plan(&rule, &line.facts(&rule).unwrap(), &mut hands).unwrap();
    let mut journal = Noted::default();
    let clock = RealClock::new();
    let fix = Fix::begin(&rule, "web1", "/", "test", clock.now(), 7);
    // Somebody takes it back before the rule is judged again.
    let mut facts = || {
        assert_eq!(bench.mode("crontab"), 0o600);
        bench.put("crontab", 0o644);
        line.facts(&rule)
    };
    let mut site = fix::Site {
        hands: &mut hands,
        journal: &mut journal,
        facts: &mut facts,
        clock: &clock,
    };
    let (_, ended) = fix::apply(&plan, &rule, fix, &mut site).unwrap();
    assert_eq!(ended.phase, Phase::RolledBack, "{}", ended.note);
    assert!(ended.note.contains("judged again: fail"), "{}", ended.note);
    assert_eq!(bench.mode("crontab"), 0o644);
    let steps = [
        Phase::Planned,
        Phase::Captured,
        Phase::Applying(0),
        Phase::Applied,
    ];
    assert_eq!(journal.0[..4], steps);
}

fn refused(_: &Peer) {
    for (user, sudo) in [("alice", "never"), ("carol", "nopassword")] {
        let bench = Bench::new(user, sudo);
        let run = bench.fix(&[RULE, "--host", "web1", "--apply", "--yes"]);
        run.is_refused_naming("rights of root");
        run.tells_next_step();
        assert_eq!(bench.mode("crontab"), 0o644);
        assert_eq!(bench.states(), [""; 0]);
        bench
            .fix(&[RULE, "--host", "web2"])
            .is_refused_naming("web2");
    }
}

/// Proves: RUL-9
fn cut(_: &Peer) {
    let bench = Bench::new("alice", "nopassword");
    bench.put("stall", 0o644);
    let args = ["fix", RULE, "--host", "web1", "--apply", "--yes"];
    let mut child = bench.site.start(args);
    wait("it was not applied", || bench.mode("crontab") == 0o600);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(bench.states(), ["applying(1)"]);
    fs::remove_file(bench.etc("stall")).unwrap();
    bench
        .fix(&[RULE, "--host", "web1", "--apply", "--yes"])
        .is_refused_naming("fix recover");
    let run = bench.fix(&["recover"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(bench.mode("crontab"), 0o644);
    assert_eq!(bench.states(), ["recovered"]);
}

fn access(mode: u32) -> State {
    State::Access(Access {
        mode,
        uid: 0,
        gid: 0,
    })
}

/// Proves: RUL-9
fn timed(_: &Peer) {
    let bench = Bench::new("alice", "nopassword");
    let mut hands = RemoteHands::new(bench.line("alice"));
    let object = Object::Access {
        path: "/etc/crontab".to_owned(),
    };
    let effects = [Effect::Set {
        object: object.clone(),
        before: access(0o644),
        after: access(0o600),
    }];
    hands.arm("a1", &effects, 1000).unwrap();
    hands
        .set("a1-0", &object, &access(0o644), &access(0o600))
        .unwrap();
    hands.knock().unwrap();
    assert_eq!(hands.disarm("a1").unwrap(), Disarmed::InTime);
    assert_eq!(hands.look(&object).unwrap(), access(0o600));

    // Our session ends; the host goes on by itself.
    hands.arm("a2", &effects, 1).unwrap();
    hands.hang_up();
    wait("it did not fire", || bench.mode("crontab") == 0o644);
    assert_eq!(hands.disarm("a2").unwrap(), Disarmed::Fired);
    assert_eq!(hands.disarm("never").unwrap(), Disarmed::InTime);
}

fn content(text: &str, mode: u32) -> State {
    State::File {
        content: text.as_bytes().to_vec(),
        access: Access {
            mode,
            uid: 0,
            gid: 0,
        },
        attributes: None,
    }
}

fn files(_: &Peer) {
    let bench = Bench::new("root", "never");
    let mut hands = RemoteHands::new(bench.line("root"));
    let file = |path: &str| Object::File {
        path: path.to_owned(),
    };
    let odd = file("/etc/it's $(touch x); a\"b");
    let (none, first, second) = (
        State::Absent,
        content("a'b\\101%s\u{e9}\n\n`$(x)`\0end", 0o640),
        content("", 0o600),
    );
    for (from, to) in [(&none, &first), (&first, &second), (&second, &none)] {
        hands.set("t-0", &odd, from, to).unwrap();
        assert!(hands.look(&odd).unwrap().same(to), "{to:?}");
    }
    // Not from a state that it is not in.
    for (from, to) in [(&first, &second), (&none, &first), (&none, &second)] {
        let set = hands.set("t-0", &odd, from, to);
        assert_eq!(set.is_err(), *from != none || *to == second, "{set:?}");
    }
    // The same mode and owner, other content.
    let other = content("other", 0o640);
    let fault = hands.set("t-0", &odd, &other, &none).unwrap_err();
    assert!(fault.what.contains("somebody else"), "{fault}");
    hands.set("t-0", &odd, &first, &none).unwrap();
    std::os::unix::fs::symlink("crontab", bench.etc("link")).unwrap();
    fs::hard_link(bench.etc("crontab"), bench.etc("twin")).unwrap();
    fs::create_dir(bench.etc("open")).unwrap();
    bench.put("open/file", 0o644);
    fs::set_permissions(bench.etc("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(bench.etc("large"), vec![b'x'; 300_000]).unwrap();
    for (path, why) in [
        ("/etc/link", "is a symbolic link"),
        ("/etc/twin", "hard link"),
        ("/etc/open/file", "others may write"),
        ("/etc/large", "larger than is captured"),
        ("/etc/../etc/crontab", "is not a plain absolute path"),
        ("/etc/ssh", "is not a regular file"),
    ] {
        let fault = hands.look(&file(path)).unwrap_err();
        assert!(fault.what.contains(why), "{path}: {fault}");
    }
    let left = fs::read_dir(bench.server.path("etc")).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().contains("holdfast"));
    assert_eq!(left.count(), 0);
}
