//! Alerts as receivers get them: each test has a receiver of its own on loopback, which speaks the
//! protocol as its standard says and reads strictly.

use std::{
    io::Write,
    net::{TcpListener, UdpSocket},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{facts::bundle, holdfast::Sandbox, schema};

mod peers;
mod settings;
mod told;

use peers::{Certified, HttpRequest, http_sink, smtp_sink, syslog_messages};

const SECRET: &str = "s3cret-of-the-receiver";

/// A sandbox whose configuration has this receiver, named `r`.
fn with_receiver(table: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("secret", format!("{SECRET}\n"));
    let secret = sandbox.path("secret");
    let ca = sandbox.path("ca.pem");
    let table = table
        .replace("SECRET", &format!("file:{}", secret.display()))
        .replace("CA_FILE", &ca.display().to_string());
    let text = format!("[[alerts.receiver]]\nname = \"r\"\ntimeout = \"2s\"\n{table}\n");
    sandbox.file("holdfast.toml", text);
    sandbox
}

fn test_of(sandbox: &Sandbox) -> crate::holdfast::Run {
    let config = sandbox.path("holdfast.toml");
    let args = ["alert", "test", "r", "--config"].map(std::ffi::OsString::from);
    sandbox.run(args.into_iter().chain([config.into_os_string()]))
}

/// Proves: LED-12
#[test]
fn a_webhook_is_told_in_json_signed_and_by_an_id_of_its_own() {
    let (address, sink) = http_sink(vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()], None);
    let sandbox = with_receiver(&format!(
        "kind = \"webhook\"\nurl = \"http://{address}/hook?token=of-the-url\"\nsecret = \"SECRET\"\nheaders = {{ x-token = \"SECRET\" }}"
    ));
    let run = test_of(&sandbox);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let request = sink.join().unwrap().remove(0);
    let document: Value = serde_json::from_slice(&request.body).unwrap();
    schema::check("alert-notice", &document);
    assert_eq!(document["events"][0]["event"], "test");
    assert_eq!(
        request.header("idempotency-key"),
        document["notice"].as_str()
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-token"), Some(SECRET));
    signed(&request);
}

/// By another implementation of HMAC than ours.
fn signed(request: &HttpRequest) {
    let header = request.header("holdfast-signature").unwrap();
    let (time, signature) = header.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    assert!(time.parse::<u64>().unwrap() > 1_700_000_000);
    let mut openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = openssl.stdin.take().unwrap();
    write!(input, "{time}.").unwrap();
    input.write_all(&request.body).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    let expected = String::from_utf8(output.stdout).unwrap();
    assert!(
        expected.trim().ends_with(signature),
        "{expected} {signature}"
    );
}

/// Whatever a receiver does, the command ends, says what happened, and holds no secret.
#[test]
fn a_receiver_that_misbehaves_is_told_of_in_a_line_without_secrets() {
    let cases: [(&str, Option<&str>, &str); 8] = [
        (
            "HTTP 500",
            Some("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
            "HTTP 500",
        ),
        (
            "HTTP 429",
            Some("HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n"),
            "HTTP 429",
        ),
        (
            "a redirect",
            Some(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            ),
            "HTTP 302",
        ),
        (
            "refuses it",
            Some("HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n"),
            "HTTP 422",
        ),
        (
            "closes midway",
            Some("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nhalf"),
            "broke off",
        ),
        ("closes at once", Some(""), "connection"),
        ("garbage", Some("\u{1b}[2J\u{0}garbage\r\n\r\n"), "not HTTP"),
        ("hangs", None, "timeout"),
    ];
    for (case, answer, expected) in cases {
        let (answers, hang) = match answer {
            Some(answer) => (vec![answer.as_bytes().to_vec()], None),
            None => (Vec::new(), Some(Duration::from_secs(20))),
        };
        let (address, sink) = http_sink(answers, hang);
        let sandbox = with_receiver(&format!(
            "kind = \"webhook\"\nurl = \"http://{address}/hook?token=of-the-url\"\nsecret = \"SECRET\""
        ));
        let run = test_of(&sandbox);
        assert_eq!(run.code, 2, "{case}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{case}: {}", run.stderr);
        assert!(run.stderr.contains("next:"), "{case}: {}", run.stderr);
        for secret in [SECRET, "of-the-url"] {
            assert!(
                !run.stderr.contains(secret) && !run.stdout.contains(secret),
                "{case}"
            );
        }
        assert!(!run.stderr.contains('\u{1b}'), "{case}");
        drop(sink);
    }
}

/// Proves: LED-12
#[test]
fn a_webhook_over_tls_is_told_only_where_its_certificate_is_trusted() {
    let certified = Certified::new();
    let (address, sink) = certified.http_sink(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let table = format!(
        "kind = \"webhook\"\nurl = \"https://localhost:{}/\"",
        address.port()
    );
    let sandbox = with_receiver(&table);
    let run = test_of(&sandbox);
    assert_eq!(run.code, 2, "a certificate that nobody vouches for");
    assert!(
        run.stderr.contains("TLS") || run.stderr.contains("certificate"),
        "{}",
        run.stderr
    );
    let sandbox = with_receiver(&format!("{table}\nca_file = \"CA_FILE\""));
    sandbox.file("ca.pem", &certified.pem);
    let run = test_of(&sandbox);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(sink.join().unwrap().method, "POST");
}

const MAIL: &str = "kind = \"email\"\nfrom = \"Holdfast <holdfast@example.org>\"\nto = [\"duty@example.org\", \"Chief <chief@example.org>\"]";

/// Proves: LED-12
#[test]
fn a_mail_has_its_headers_and_no_others() {
    let (address, sink) = smtp_sink("250 OK", None);
    let sandbox = with_receiver(&format!(
        "{MAIL}\nserver = \"{address}\"\nsecurity = \"none\"\nuser = \"holdfast\"\npassword = \"SECRET\""
    ));
    let run = test_of(&sandbox);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let session = sink.join().unwrap();
    assert_eq!(session.from, "<holdfast@example.org>");
    assert_eq!(session.to, ["<duty@example.org>", "<chief@example.org>"]);
    assert_eq!(
        session.login.as_deref(),
        Some(format!("\0holdfast\0{SECRET}").as_str())
    );
    let mut names: Vec<String> = session
        .headers()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "Content-Transfer-Encoding",
            "Content-Type",
            "Date",
            "From",
            "Message-ID",
            "Subject",
            "To"
        ],
        "{}",
        session.message
    );
    assert!(
        session
            .message
            .contains("Subject: [info] the site: this is a test of receiver r")
    );
}

#[test]
fn a_mail_server_that_refuses_is_told_of_with_its_words() {
    for (answer, expected) in [
        ("550 no such user here", "no such user here"),
        ("451 try later", "try later"),
        ("garbage", ""),
    ] {
        let (address, sink) = smtp_sink(answer, None);
        let sandbox = with_receiver(&format!(
            "{MAIL}\nserver = \"{address}\"\nsecurity = \"none\""
        ));
        let run = test_of(&sandbox);
        assert_eq!(run.code, 2, "{answer}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{answer}: {}", run.stderr);
        drop(sink);
    }
}

/// Proves: LED-12
#[test]
fn a_mail_goes_over_tls_from_the_start_or_by_starttls() {
    for security in ["tls", "starttls"] {
        let certified = Certified::new();
        let (address, sink) = smtp_sink("250 OK", Some((certified.server(), security == "tls")));
        let table = format!(
            "{MAIL}\nserver = \"localhost:{}\"\nsecurity = \"{security}\"\nuser = \"holdfast\"\npassword = \"SECRET\"\nca_file = \"CA_FILE\"",
            address.port()
        );
        let sandbox = with_receiver(&table);
        sandbox.file("ca.pem", &certified.pem);
        let run = test_of(&sandbox);
        assert_eq!(run.code, 0, "{security}: {}", run.stderr);
        let session = sink.join().unwrap();
        assert!(
            session.is_login_secret,
            "{security}: the password went over TLS"
        );
    }
}

#[test]
fn no_password_goes_to_a_mail_server_that_offers_no_tls() {
    let (address, sink) = smtp_sink("250 OK", None);
    let sandbox = with_receiver(&format!(
        "{MAIL}\nserver = \"{address}\"\nsecurity = \"starttls\"\nuser = \"holdfast\"\npassword = \"SECRET\""
    ));
    let run = test_of(&sandbox);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert_eq!(sink.join().unwrap().login, None);
}

/// Proves: LED-12
#[test]
fn syslog_is_told_as_rfc_5424_says_over_each_carrier() {
    for carrier in ["udp", "tcp", "tls"] {
        for format in ["structured", "cef"] {
            let certified = Certified::new();
            let (port, received) = syslog_receiver(carrier, &certified);
            let sandbox = with_receiver(&format!(
                "kind = \"syslog\"\naddress = \"localhost:{port}\"\ntransport = \"{carrier}\"\nformat = \"{format}\"\nfacility = 13\nca_file = \"CA_FILE\""
            ));
            sandbox.file("ca.pem", &certified.pem);
            let run = test_of(&sandbox);
            assert_eq!(run.code, 0, "{carrier} {format}: {}", run.stderr);
            let messages = received.join().unwrap();
            assert_eq!(messages.len(), 1, "{carrier} {format}");
            let message = &messages[0];
            assert_eq!(message.priority, 13 * 8 + 6);
            assert_eq!(message.id, "receiver_failing");
            if format == "cef" {
                assert!(message.structure.is_empty());
                assert!(
                    message.text.starts_with("CEF:0|Holdfast|Holdfast|"),
                    "{}",
                    message.text
                );
            } else {
                let event = message.structure.iter().find(|(name, _)| name == "event");
                assert_eq!(event.map(|(_, value)| value.as_str()), Some("test"));
            }
        }
    }
}

fn syslog_receiver(
    carrier: &str,
    certified: &Certified,
) -> (u16, JoinHandle<Vec<peers::SyslogMessage>>) {
    if carrier == "udp" {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut datagram = [0; 4096];
            let len = socket.recv(&mut datagram).unwrap();
            vec![peers::SyslogMessage::parse(
                std::str::from_utf8(&datagram[..len]).unwrap(),
            )]
        });
        return (port, thread);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = (carrier == "tls").then(|| certified.server());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        syslog_messages(&peers::read_all(stream, tls))
    });
    (port, thread)
}
