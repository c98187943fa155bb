//! Files whose content no rule may ask for: evidence is kept for ever and shown to many.

use super::selector::Selector;

/// Password files and their backups.
const PASSWORD_FILES: [&str; 5] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
];

/// Names of files with passwords or keys of programs, wherever they lie.
const PASSWORD_NAMES: [&str; 6] = [
    ".pgpass",
    ".netrc",
    ".my.cnf",
    "sasldb2",
    "krb5.keytab",
    "secrets.tdb",
];

/// What is wrong with asking for this, or `None`. Owner, mode and existence (`files`, `globs`) may
/// be asked of anything; content and hashes (a hash of a short secret is the secret) may not.
pub(super) fn forbidden(selector: &Selector) -> Option<String> {
    let collector = selector
        .collector()
        .filter(|name| ["text", "hashes"].contains(name))?;
    let path = selector.steps().first()?;
    holds_secrets(path).then(|| format!("`{collector}` of {path}: its content is secret"))
}

/// By name: what tools of the distribution put private keys and passwords in.
pub fn holds_secrets(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let private_key = (name.starts_with("ssh_host_") && name.ends_with("_key"))
        || (name.starts_with("id_") && !name.ends_with(".pub"))
        || name.ends_with(".key")
        || path.contains("/private/")
        || name.contains("privkey");
    PASSWORD_FILES.contains(&path) || PASSWORD_NAMES.contains(&name) || private_key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_secret_files_cannot_be_asked_for() {
        for (text, refused) in [
            ("text[/etc/shadow].lines", true),
            ("hashes[/etc/gshadow-].sha256", true),
            ("hashes[/etc/ssh/ssh_host_rsa_key].sha256", true),
            ("text[/root/.ssh/id_ed25519].lines", true),
            ("text[/etc/ssl/private/site.pem].lines", true),
            ("files[/etc/shadow].mode", false),
            ("text[/etc/ssh/ssh_host_rsa_key.pub].lines", false),
            ("text[/etc/issue].lines", false),
        ] {
            let selector = Selector::parse(text).expect("valid");
            assert_eq!(forbidden(&selector).is_some(), refused, "{text}");
        }
    }
}
