//! A server with users of its own, none of which is the machine's: accounts, sudo's rules, its records
//! and the directories it writes to are private to a mount namespace that ends with the server.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use libtest_mimic::{Failed, Trial};
use scan::{
    capture::Exchange,
    collect::Progress,
    credential::{Secret, Sudo},
    failure::Failure,
    known_hosts::Known,
    policy::HostKeyPolicy,
    ssh::{self, Connection, Endpoint, Limits, Patience, Privilege, PublicKey, Session, Trust},
};
use tempfile::TempDir;
use world::RealClock;
use zeroize::Zeroizing;

use crate::Peer;

/// What these tests need: the server, and the right to give it a namespace.
pub(super) struct Needed(Peer);

pub(super) static SERVER: Needed =
    Needed(Peer::new("sshd", "HOLDFAST_PEER_SSHD", "/usr/sbin/sshd"));

/// Of every user here. Easily found wherever it does not belong.
pub(super) const PASSWORD: &str = "correct-horse-Recognisable";
/// `openssl passwd -6 -salt holdfast`.
const PASSWORD_HASH: &str = "$6$holdfast$ilj4RppkelTc5Otc7RB3qQjeFyAfhJ3.N9dC2mqMUjSCdF9753ME5fZEAulF7FSmtQKaiVf/b89dMvjPhPkTs1";

/// Name, id, login shell, rule of sudo.
const USERS: [(&str, u32, &str, &str); 6] = [
    ("alice", 60001, "/bin/sh", "NOPASSWD: ALL"),
    ("bob", 60002, "/bin/bash", "ALL"),
    ("carol", 60003, "/bin/sh", ""),
    ("dave", 60004, "/usr/sbin/nologin", ""),
    ("noisy", 60005, "/bin/bash", "NOPASSWD: ALL"),
    ("endless", 60006, "/bin/bash", ""),
];

pub(super) const HOST_KEY_TYPES: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

/// A scan's own deadline, far beyond what a step takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(100);

impl Needed {
    pub(super) fn test(&'static self, name: &'static str, run: fn(&Peer)) -> Trial {
        let has_namespaces = Command::new("unshare")
            .args(["-m", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if has_namespaces {
            return self.0.test(name, run);
        }
        let is_required = std::env::var("HOLDFAST_PEERS").is_ok_and(|peers| peers == "required");
        let why = "no right to a mount namespace";
        Trial::test(name, move || Err(Failed::from(why))).with_ignored_flag(!is_required)
    }
}

pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    directory: TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// One whose /etc is a copy of its own, `etc` in its directory, and whose sync(1) never ends
    /// while there is a file /etc/stall.
    pub(super) fn start_apart() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        let sync = directory.path().join("sync");
        let text = "#!/bin/sh\nwhile [ -e /etc/stall ]; do sleep 0.1; done\n";
        fs::write(&sync, text).unwrap();
        fs::set_permissions(&sync, fs::Permissions::from_mode(0o755)).unwrap();
        Self::start_in(directory, "")
    }

    /// `more` are lines of its configuration, which win.
    pub(super) fn start_with(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    fn start_in(directory: TempDir, more: &str) -> Self {
        // Users reach their homes through it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path();
        let port = free_port();
        fs::create_dir(path.join("keys")).unwrap();
        for kind in HOST_KEY_TYPES {
            generate(path, &format!("host_{kind}"), &["-t", kind]);
        }
        accounts(path);
        let config = format!(
            "{more}\nPort {port}\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nAuthorizedKeysFile {0}/keys/%u\nMaxStartups 500\nMaxSessions 10\n\
             PasswordAuthentication yes\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n\
             HostKey {0}/host_rsa\nHostKey {0}/host_ecdsa\nHostKey {0}/host_ed25519\n",
            path.display()
        );
        fs::write(path.join("sshd_config"), config).unwrap();
        let script = "set -e; cd \"$1\"; \
            if [ -d etc ]; then cp -a /etc/. etc; mount --bind etc /etc; fi; \
            if [ -f sync ]; then mount --bind sync \"$(command -v sync)\"; fi; \
            for f in passwd shadow group sudoers; do mount --bind $f /etc/$f; done; \
            for d in /run /var/log /var/lib/sudo; do [ -d $d ] && mount -t tmpfs -o mode=0755 none $d; done; \
            mkdir /run/sshd; \
            exec /usr/sbin/sshd -D -E \"$1/log\" -f \"$1/sshd_config\"";
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            port,
            directory,
        };
        server.await_ready();
        server
    }

    fn await_ready(&mut self) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "sshd ended: {}", self.log());
            assert!(std::time::Instant::now() < end, "{}", self.log());
            std::thread::yield_now();
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(super) fn host_key(&self, kind: &str) -> PublicKey {
        public_key(&self.path(&format!("host_{kind}.pub")))
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        endpoint(self.port)
    }

    /// A key that may log in as `user`, as its file.
    pub(super) fn key_of(&self, user: &str, name: &str, how: &[&str]) -> Zeroizing<String> {
        let pem = generate(self.directory.path(), name, how);
        let line = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        self.authorize(user, &line);
        pem
    }

    pub(super) fn authorize(&self, user: &str, line: &str) {
        let path = self.path(&format!("keys/{user}"));
        let mut lines = fs::read_to_string(&path).unwrap_or_default();
        lines.push_str(line);
        fs::write(path, lines).unwrap();
    }

    /// A usual login: one key, known host.
    pub(super) fn login(&self, user: &str) -> Login {
        let name = format!("login_{user}");
        let pem = if self.path(&name).exists() {
            Zeroizing::new(fs::read_to_string(self.path(&name)).unwrap())
        } else {
            self.key_of(user, &name, &["-t", "ed25519"])
        };
        let mut secret = Secret::of_user(user, Sudo::Never);
        secret.private_key = Some(pem);
        Login {
            endpoint: self.endpoint(),
            known: HOST_KEY_TYPES
                .iter()
                .map(|kind| self.host_key(kind))
                .collect(),
            secret,
            limits: Limits::default(),
            deadline: DEADLINE,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its connections end with their clients.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Everything that a connection takes.
pub(super) struct Login {
    pub(super) endpoint: Endpoint,
    pub(super) known: Vec<PublicKey>,
    pub(super) secret: Secret,
    pub(super) limits: Limits,
    pub(super) deadline: Duration,
}

impl Login {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        struct Quiet;
        impl Progress for Quiet {}
        self.connect_while(Arc::new(Quiet))
    }

    pub(super) fn connect_while(&self, progress: Arc<dyn Progress>) -> Result<Connection, Failure> {
        let trust = Trust {
            known: known(&self.endpoint, &self.known),
            policy: HostKeyPolicy::RequireKnown,
            first_sight: Arc::new(|_| panic!("nothing is taken on sight")),
        };
        let patience = Patience::new(Arc::new(RealClock::new()), self.deadline, progress);
        ssh::connect(
            &self.endpoint,
            &trust,
            || Ok(self.secret.clone()),
            self.limits,
            &patience,
        )
    }

    /// Up to a running shell that reads what is sent.
    pub(super) fn start(&self) -> Result<(Session, Privilege), Failure> {
        self.connect()?.start("/bin/sh", 1)
    }
}

/// What `script` prints, up to its last line, which is `end`.
pub(super) fn ask(session: &mut Session, script: &str) -> Result<String, Failure> {
    session.send(format!("{script}\necho end\n").as_bytes())?;
    let mut answer = String::new();
    while !answer.ends_with("end\n") {
        match session.receive()? {
            Some(bytes) => answer.push_str(&String::from_utf8_lossy(&bytes)),
            None => panic!("it closed after {answer:?}"),
        }
    }
    Ok(answer.trim_end_matches("end\n").trim_end().to_owned())
}

/// As a file of known hosts says it.
pub(super) fn known(endpoint: &Endpoint, keys: &[PublicKey]) -> Known {
    let lines: String = keys
        .iter()
        .map(|key| format!("{endpoint} {}\n", key.to_openssh().unwrap()))
        .collect();
    Known::in_file(
        &lines.replace("127.0.0.1:", "[127.0.0.1]:"),
        &endpoint.address,
        endpoint.port,
    )
    .unwrap()
}

pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: "127.0.0.1".to_owned(),
        port,
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Makes a key file and its public half; gives the text of the key file.
pub(super) fn generate(directory: &Path, name: &str, how: &[&str]) -> Zeroizing<String> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "test", "-f"]);
    command.arg(directory.join(name)).args(how);
    if !how.contains(&"-N") {
        command.args(["-N", ""]);
    }
    assert!(command.status().unwrap().success());
    Zeroizing::new(fs::read_to_string(directory.join(name)).unwrap())
}

pub(super) fn public_key(path: &Path) -> PublicKey {
    PublicKey::from_openssh(fs::read_to_string(path).unwrap().trim()).unwrap()
}

/// The machine's own accounts, and ours; root has our password too.
fn accounts(path: &Path) {
    let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
    let mut group = fs::read_to_string("/etc/group").unwrap();
    let mut shadow =
        format!("root:{PASSWORD_HASH}:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n");
    // As Debian has it, and no mail to anybody.
    let mut sudoers =
        "Defaults env_reset, use_pty, !mail_no_user, !mail_badpass\nroot ALL=(ALL) ALL\n"
            .to_owned();
    for (name, id, shell, rule) in USERS {
        let home = path.join("home").join(name);
        fs::create_dir_all(&home).unwrap();
        passwd.push_str(&format!("{name}:x:{id}:{id}::{}:{shell}\n", home.display()));
        group.push_str(&format!("{name}:x:{id}:\n"));
        shadow.push_str(&format!("{name}:{PASSWORD_HASH}:19000:0:99999:7:::\n"));
        if !rule.is_empty() {
            sudoers.push_str(&format!("{name} ALL=(ALL) {rule}\n"));
        }
    }
    let noise = "echo welcome; printf 'no line end'; echo grumble >&2\n";
    fs::write(path.join("home/noisy/.bashrc"), noise).unwrap();
    fs::write(
        path.join("home/endless/.bashrc"),
        "while :; do echo on and on; done\n",
    )
    .unwrap();
    for (name, text, mode) in [
        ("passwd", passwd, 0o644),
        ("group", group, 0o644),
        ("shadow", shadow, 0o600),
        ("sudoers", sudoers, 0o440),
    ] {
        fs::write(path.join(name), text).unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}
