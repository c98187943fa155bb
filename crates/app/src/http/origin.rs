//! Which requests a browser may have been made to send.
//!
//! Threat: a page of another site posts to a server on the reader's own machine. A browser names the
//! page in `Origin`, and the server as the page knows it in `Host`; a page that rebinds its own
//! name to this machine is told by the latter. No CORS header is ever sent.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::answer::problem;

/// Refuses what comes from another site. For connections over TCP; a socket file has no browser.
pub(crate) async fn check(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        None => next.run(request).await,
        Some(why) => problem(StatusCode::FORBIDDEN, "CROSS_SITE", why),
    }
}

pub(crate) fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let is_local = |name, of: fn(&str) -> Option<&str>| {
        headers.get_all(name).iter().all(|value| {
            let host = value.to_str().ok().and_then(of);
            host.is_some_and(is_loopback)
        })
    };
    if !is_local(header::ORIGIN, host_of_origin) {
        Some("the request comes from a page of another site")
    } else if !is_local(header::HOST, host_of) {
        Some("the Host header names another machine; ask for localhost or 127.0.0.1")
    } else {
        None
    }
}

/// For a server that other machines reach by whatever name: a page may ask the site that it is from,
/// and no other.
pub(crate) fn other_site(headers: &HeaderMap) -> Option<&'static str> {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let is_own = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok();
        let named = origin.and_then(|origin| origin.split_once("://"));
        named.is_some_and(|(_, named)| host.is_some_and(|host| host.eq_ignore_ascii_case(named)))
    });
    (!is_own).then_some("the request comes from a page of another site")
}

fn host_of_origin(origin: &str) -> Option<&str> {
    let rest = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))?;
    host_of(rest)
}

/// The host of `host`, `host:port` or `[address]:port`.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_another_site_sends_is_told_from_what_this_machine_sends() {
        let check = |name: header::HeaderName, value: &str, is_taken: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(&name, HeaderValue::from_str(value).unwrap());
            assert_eq!(refusal(&headers).is_none(), is_taken, "{name}: {value}");
        };
        assert_eq!(refusal(&HeaderMap::new()), None);
        for (host, is_taken) in [
            ("localhost", true),
            ("LOCALHOST:4318", true),
            ("127.0.0.1:4318", true),
            ("127.9.9.9", true),
            ("[::1]:4318", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:4318", false),
            ("127.0.0.1@evil.example", false),
            ("localhost:x@evil", false),
            ("192.168.1.7:4318", false),
            ("", false),
        ] {
            check(header::HOST, host, is_taken);
            check(header::ORIGIN, &format!("http://{host}"), is_taken);
        }
        check(header::ORIGIN, "null", false);
        check(header::ORIGIN, "file://", false);
        check(header::ORIGIN, "https://evil.example", false);
    }
}
