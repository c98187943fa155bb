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

/// Proves: SVC-5
#[test]
fn more_connections_of_one_address_than_it_may_have_are_turned_away() {
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
    let mut stream = place.connect();
    drop(stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"));
    assert_eq!(Heard::read(&mut stream).status, 503);
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
        let finished = place.server.stop();
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
