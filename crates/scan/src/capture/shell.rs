//! What runs on the host: the loop that reads scripts, and how words are quoted in them.
//!
//! POSIX shell only. Nothing is written on the host: no file, no here-document (bash keeps those in
//! `/tmp`), no history. The environment is empty but for `LC_ALL` and `PATH`.

/// The only places where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Reads scripts from descriptor 3, one a line, and starts each in a session of its own while it
/// goes on reading: at end of input whatever runs is killed, so a scan that is cancelled at home
/// stops here. A line that begins with `W` is the walk: it runs beside the others, and they find its
/// output on descriptor 5. Its first line is its process id.
///
/// A script comes to its shell through a pipe, never as an argument: arguments are seen by everybody
/// on the host and are limited to 128 KiB.
const LOOP: &str = r#"L(){ p=;while IFS= read -r s<&3;do case $s in W*)printf "%s\n" "${s#W}"|$G /bin/sh 3<&-|{ read -r w;exec 5<&0 </dev/null;L;};exit;;*)printf "%s\n" "$s"|$G /bin/sh 3<&- & p=$!;;esac;done;for p in $p $w;do kill -9 -$p||kill -9 $p;done 2>/dev/null;};G=;w=;command -v setsid >/dev/null&&G=setsid;umask 077;cd /;exec 3<&0 </dev/null;L"#;

/// What to run on the host, whatever login shell interprets it: words in single quotes, without `!`,
/// backslash at an end, or line break. May follow `sudo -n --` and the like as it is.
pub fn command() -> String {
    format!("/usr/bin/env -i LC_ALL=C PATH={PATH} /bin/sh -c '{LOOP}'")
}

/// One word of a script, which is one line: a line break in `text` is the variable `n`.
#[allow(dead_code, reason = "scripts come with the questions")]
pub(super) fn quote(text: &str) -> String {
    let text = text.replace('\'', r"'\''").replace('\n', r#"'"$n"'"#);
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_same_to_every_login_shell() {
        let command = command();
        assert_eq!(command.matches('\'').count(), 2);
        for special in ["!", "\n", "`"] {
            assert!(!command.contains(special), "{special:?} in {command}");
        }
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("a\nb"), "'a'\"$n\"'b'");
    }
}
