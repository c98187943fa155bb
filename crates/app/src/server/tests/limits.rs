//! What a client may hold, and what a browser may be made to send.

use super::*;

/// Proves: SVC-5
#[test]
fn a_gigabyte_is_refused_before_it_is_sent() {
    let place = Place::new();
    let mut stream = place.connect();
    let head = format!(
        "POST /api/v1/hosts HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n{{",
        place.of(Role::Admin)
    );
    stream.write_all(head.as_bytes()).unwrap();
    let heard = Heard::read(&mut stream);
    assert_eq!(heard.must_be(413).code(), "TOO_LARGE");
}

#[test]
fn a_body_without_a_length_ends_at_the_bound() {
    let place = Place::new();
    let mut stream = place.connect();
    let head = format!(
        "POST /api/v1/hosts HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        place.of(Role::Admin)
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    // The server stops reading where the bound is; what is written after that may fail.
    for _ in 0..64 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let heard = Heard::read(&mut stream);
    assert_eq!(heard.status, 413);
}

/// What one token does in a loop leaves room for the others.
/// Proves: SVC-5
#[test]
fn one_token_has_half_of_the_followers_and_another_gets_in() {
    let place = Place::new();
    let follow = |role: Role| {
        let mut stream = place.connect();
        let sent = Sent::new("GET", "/api/v1/changes/stream").token(place.of(role));
        stream.write_all(&sent.bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    let mut held = Vec::new();
    for _ in 0..stream::FOLLOWERS_MAX / 2 {
        let (stream, head) = follow(Role::Viewer);
        assert_eq!(head, "HTTP/1.1 200");
        held.push(stream);
    }
    let refused = place.ask(Role::Viewer, "GET", "/api/v1/changes/stream");
    assert_eq!(refused.must_be(503).code(), "BUSY");
    let (_stream, head) = follow(Role::Auditor);
    assert_eq!(head, "HTTP/1.1 200");
}

/// A rule or a key is all that a viewer's commands read: four bodies of 64 MiB were a gigabyte here.
#[test]
fn a_viewer_sends_a_command_of_a_mebibyte_at_most() {
    let place = Place::new();
    let file = "A".repeat(1 << 20);
    let body = serde_json::json!({ "words": ["rules", "list"], "files": { "0": file } });
    let sent = Sent::new("POST", "/api/v1/commands").token(place.of(Role::Viewer));
    let mut stream = place.connect();
    // The server may be gone before all of it is written.
    drop(stream.write_all(&sent.json(&body).bytes()));
    assert_eq!(Heard::read(&mut stream).must_be(413).code(), "TOO_LARGE");
}

#[test]
fn what_libraries_refuse_in_plain_words_is_told_as_every_refusal_is() {
    let place = Place::new();
    let viewer = place.of(Role::Viewer);
    let not_utf8 = Sent::new("GET", "/api/v1/hosts/%FF").token(viewer);
    assert_eq!(place.send(&not_utf8).must_be(400).code(), "MALFORMED");
    let form = "application/x-www-form-urlencoded";
    let long = [b"token=".as_slice(), &[b'x'; 70_000]].concat();
    let mut stream = place.connect();
    let sent = Sent::new("POST", "/sign-in").body(form, &long);
    drop(stream.write_all(&sent.bytes()));
    assert_eq!(Heard::read(&mut stream).must_be(413).code(), "TOO_LARGE");
    let other = Sent::new("POST", "/sign-in").body("text/xml", b"<a/>");
    assert_eq!(place.send(&other).must_be(415).code(), "UNSUPPORTED");
}

/// Without a token nothing of a body is read.
#[test]
fn who_has_no_token_sends_no_body() {
    let place = Place::new();
    let mut stream = place.connect();
    let head = "POST /api/v1/hosts HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Heard::read(&mut stream).status, 401);
}

#[test]
fn heads_that_are_too_large_or_no_heads_are_refused() {
    let place = Place::new();
    for bytes in [
        format!(
            "GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "x".repeat(200_000)
        ),
        "GET /health\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET /health HTTP/9.9\r\n\r\n".to_owned(),
    ] {
        let mut stream = place.connect();
        // The server may be gone before all of it is written.
        drop(stream.write_all(bytes.as_bytes()));
        let mut heard = Vec::new();
        drop(stream.read_to_end(&mut heard));
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(!heard.contains(" 200 "), "{heard}");
    }
    place.send(&Sent::new("GET", "/health")).must_be(200);
}

/// Proves: SVC-5
#[test]
fn pages_of_other_sites_are_refused_and_told_nothing_by_headers() {
    let place = Place::new();
    let ask = |name: &str, value: &str| {
        let sent = Sent::new("GET", "/api/v1/whoami").token(place.of(Role::Viewer));
        place.send(&sent.header(name, value))
    };
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Host", "evil.example"),
        ("Host", "127.0.0.1.evil.example:8420"),
    ] {
        assert_eq!(
            ask(name, value).must_be(403).code(),
            "CROSS_SITE",
            "{name}: {value}"
        );
    }
    let heard = ask("Origin", "http://localhost:8420").must_be(200);
    assert_eq!(heard.header("access-control-allow-origin"), None);
    assert_eq!(heard.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(heard.header("x-frame-options"), Some("DENY"));
    assert_eq!(heard.header("cache-control"), Some("no-store"));
    assert!(
        heard
            .header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    let preflight = Sent::new("OPTIONS", "/api/v1/hosts")
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "POST");
    place.send(&preflight).must_be(403);
}

/// Whoever watches this server asks from where its clients are, and is told that it lives; everybody else
/// is told that it is full.
/// Proves: SVC-3, SVC-5
#[test]
fn health_is_answered_when_an_address_has_all_of_its_connections_and_nothing_else_is() {
    let place = Place::new();
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut stream = place.connect();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let refused = place.ask(Role::Admin, "GET", "/api/v1/whoami");
    assert_eq!(refused.must_be(503).code(), "BUSY");
    place.send(&Sent::new("GET", "/health")).must_be(200);
    place.send(&Sent::new("GET", "/ready")).must_be(200);
}

/// A change that was acknowledged is there, and a stop under load ends in time.
///
/// Proves: SVC-10
#[test]
fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    let place = Place::new();
    let (store, address) = (place.store.clone(), place.address);
    let token = place.of(Role::Operator).to_owned();
    let acknowledged = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let token = token.clone();
                scope.spawn(move || add_until_refused(address, &token, client))
            })
            .collect();
        // Stopped in the midst of it: once the first are there.
        while inventory::Inventory::new(store.clone())
            .unwrap()
            .list(None)
            .unwrap()
            .len()
            < 20
        {
            std::thread::yield_now();
        }
        let finished = place.server.stop(Some(place.shown));
        assert!(finished, "requests were cut off");
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect::<Vec<_>>()
    });
    let hosts = inventory::Inventory::new(store)
        .unwrap()
        .list(None)
        .unwrap();
    let known: std::collections::BTreeSet<_> = hosts.into_iter().map(|host| host.name).collect();
    assert!(acknowledged.len() >= 12);
    for name in acknowledged {
        assert!(known.contains(&name), "{name}");
    }
}

fn add_until_refused(address: SocketAddr, token: &str, client: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..10_000 {
        let name = format!("host-{client}-{number}");
        let sent = Sent::new("POST", "/api/v1/hosts")
            .token(token)
            .json(&ssh_host(&name));
        let Ok(mut stream) = TcpStream::connect(address) else {
            break;
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if stream.write_all(&sent.bytes()).is_err() {
            break;
        }
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        if !bytes.starts_with(b"HTTP/1.1 201") {
            break;
        }
        acknowledged.push(name);
    }
    acknowledged
}

/// A connection that is kept: every answer of it that was begun is whole, and it ends between two.
fn read_until_the_end(mut stream: TcpStream, request: &[u8]) -> usize {
    let mut whole = 0;
    loop {
        if stream.write_all(request).is_err() {
            return whole;
        }
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = stream.read(&mut buffer).unwrap_or(0);
            if read == 0 {
                assert!(bytes.is_empty(), "cut after {} bytes", bytes.len());
                return whole;
            }
            bytes.extend_from_slice(&buffer[..read]);
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let len = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if bytes.len() == end + 4 + len.unwrap().parse::<usize>().unwrap() {
                break;
            }
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200"));
        whole += 1;
    }
}

/// Proves: SVC-10
#[test]
fn a_stop_while_many_read_cuts_no_answer() {
    let place = Place::new();
    for number in 0..40 {
        let body = ssh_host(&format!("host-{number}"));
        place
            .tell(Role::Operator, "POST", "/api/v1/hosts", &body)
            .must_be(201);
    }
    let request = |path| Sent::new("GET", path).token(place.of(Role::Viewer));
    // Large ones, that are kept and that are made each time.
    let requests = ["/api/v1/hosts", "/api/v1/rules"].map(|path| request(path).kept_bytes());
    let streams: Vec<TcpStream> = (0..12).map(|_| place.connect()).collect();
    let (begun, answers) = (std::sync::atomic::AtomicUsize::new(0), &requests);
    std::thread::scope(|scope| {
        let readers: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(number, stream)| {
                let begun = &begun;
                scope.spawn(move || {
                    begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    read_until_the_end(stream, &answers[number % 2])
                })
            })
            .collect();
        while begun.load(std::sync::atomic::Ordering::SeqCst) < readers.len() {
            std::thread::yield_now();
        }
        // In the midst of it: some more were answered since all of them began.
        for _ in 0..10 {
            drop(Heard::read(&mut {
                let mut stream = TcpStream::connect(place.address).unwrap();
                stream
                    .write_all(&Sent::new("GET", "/health").bytes())
                    .unwrap();
                stream
            }));
        }
        assert!(
            place.server.stop(Some(place.shown)),
            "requests were cut off"
        );
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Whoever sends the head of a request a byte at a time is let go, and keeps nobody else waiting.
///
/// Proves: SVC-5
#[test]
fn a_head_that_comes_too_slowly_ends_its_connection() {
    let place = Place::new();
    let mut slow = place.connect();
    slow.set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    slow.write_all(b"GET /api/v1/whoami HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        .unwrap();
    // Far more than the time that a head has, for a machine that is busy.
    let ended = (0..240).find(|_| {
        place.send(&Sent::new("GET", "/health")).must_be(200);
        let mut buffer = [0; 256];
        let is_open = match slow.read(&mut buffer) {
            Ok(read) => read > 0,
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ),
        };
        // Still a head, and never a whole one.
        !is_open || slow.write_all(b"x").is_err()
    });
    assert!(ended.is_some(), "it is still open");
}
