//! What the fields of a host may hold.
//!
//! Names are what an operator types and are only ever compared and shown: shell metacharacters and
//! markup in them are text. What cannot be shown or typed back is refused: control characters, what is
//! not seen, white space at the ends. An address goes to the resolver and is therefore held to what one can be.

use std::net::IpAddr;

use super::{Error, Kind};

/// Bytes of a name of a host or a user: DNS's limit for the one, beyond any system's for the other.
pub const NAME_LEN_MAX: usize = 255;
/// Bytes of a site, a group, a tag or a credential's name.
pub const LABEL_LEN_MAX: usize = 64;
/// Groups of one host, and tags of one host. Inventories seen in the field have below ten.
pub const LABELS_MAX: usize = 64;

/// RFC 1035: a name of 253 characters, of labels of 63.
const DNS_NAME_LEN_MAX: usize = 253;
const DNS_LABEL_LEN_MAX: usize = 63;

/// A name: of a host, or of a user on one.
pub(crate) fn name(what: &str, text: &str) -> Result<(), Error> {
    typed(what, text, NAME_LEN_MAX)
}

/// A site, a group, a tag, a credential's name. Lists of them are written with commas.
pub fn label(what: &str, text: &str) -> Result<(), Error> {
    typed(what, text, LABEL_LEN_MAX)?;
    if text.contains(',') {
        return Err(refused(what, text, "commas separate several"));
    }
    Ok(())
}

/// Format characters of Unicode that set the direction of text or have no width, and fillers that look
/// like nothing: a name with one passes for another name, or turns around what stands beside it.
pub const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn typed(what: &str, text: &str, len_max: usize) -> Result<(), Error> {
    let fault = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > len_max {
        format!("it has {} bytes, more than {len_max}", text.len())
    } else if text.chars().any(char::is_control) {
        "it has control characters".to_owned()
    } else if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
        let code = u32::from(c);
        format!("it has the character U+{code:04X}, which is not seen, or reorders what is")
    } else if text.trim() != text {
        "it begins or ends with white space".to_owned()
    } else {
        return Ok(());
    };
    Err(refused(what, text, &fault))
}

/// The address in the one form that is compared: IP addresses as their canonical text, DNS names in
/// lower case without the dot of the root.
pub fn address(text: &str) -> Result<String, Error> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .filter(|inside| inside.contains(':'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let name = bare.strip_suffix('.').unwrap_or(bare);
    let fault = if name.is_empty() {
        "it is empty"
    } else if name.len() > DNS_NAME_LEN_MAX {
        "a DNS name has 253 characters at most"
    } else if name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        "digits and dots, but no IPv4 address"
    } else if !name.split('.').all(is_dns_label) {
        "neither a DNS name nor an IPv4 or IPv6 address"
    } else {
        return Ok(name.to_ascii_lowercase());
    };
    Err(refused("address", text, fault))
}

/// Underscores are not of a host's name by the letter, and are in use.
fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= DNS_LABEL_LEN_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What is quoted is cut: a message is one line, whatever was given.
fn refused(what: &str, text: &str, fault: &str) -> Error {
    const QUOTED_MAX: usize = 80;
    let mut quoted: String = text.escape_debug().take(QUOTED_MAX).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    Error::new(Kind::Invalid, format!("{what} `{quoted}`: {fault}"))
}
