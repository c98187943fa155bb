//! What runs on the host: the loop that reads scripts, and the words scripts are made of.
//!
//! POSIX shell, GNU find and stat, xargs, awk, cat, head. Nothing is written on the host: no file,
//! no here-document (bash keeps those in `/tmp`), no history. The environment is empty but for
//! `LC_ALL` and `PATH`. Paths travel through pipes, so their number is not limited by the host, and
//! no process is started for a single path. The mark that tells answers apart is in no argument of
//! a program, where every user of the host could read it and put it into a file of theirs.

/// The only places where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Reads scripts from descriptor 3, one a line, and starts each in a session of its own while it
/// goes on reading: at end of input whatever runs is killed, so a scan that is cancelled at home
/// stops here. A line that begins with `W` is the walk: it runs beside the others, and they find its
/// output on descriptor 5. Its first line is its process id.
///
/// `D` is the parameter with the id of the last process, whose name is what csh takes for a word of
/// its history. A script comes to its shell through a pipe, never as an argument: arguments are seen by everybody
/// on the host and are limited to 128 KiB.
const LOOP: &str = r#"L(){ p=;while IFS= read -r s<&3;do case $s in W*)printf "%s\n" "${s#W}"|$G /bin/sh 3<&-|{ read -r w;exec 5<&0 </dev/null;L;};exit;;*)printf "%s\n" "$s"|$G /bin/sh 3<&- & eval "p=$D";;esac;done;for p in $p $w;do kill -9 -$p||kill -9 $p;done 2>/dev/null;};D=$(printf "\044\041");G=;w=;command -v setsid >/dev/null&&G=setsid;umask 077;cd /;exec 3<&0 </dev/null;L"#;

/// `M` below, and the complaints that [`PIECES`] keeps: a section of this length was cut.
pub(super) const SECTION_BYTES_MAX: usize = 10 << 20;
pub(super) const COMPLAINTS_BYTES_MAX: usize = 64 << 10;

/// What scripts are made of. The answer to question `i` is a few sections, each behind a line of
/// mark, name and question ([`P`]):
///
/// - `A` writes paths, each with a NUL. A word that begins with `:` is the directory of those after it.
/// - `E` runs something: its output, cut at `M` bytes, then section `e` with what it complained of.
/// - `s` attributes, `f` attributes, names and link targets below directories, `x` one file.
/// - `R` contents of many files by one `cat`: `l` says which are regular and at most `K` bytes, `c`
///   has them with the environment of `cat` between them, as `/proc/self/environ` shows it. The mark
///   is in it, and nobody else may read it: so contents may hold whatever they like. It stands twice
///   at the beginning, so that its length is known.
/// - `H` hashes of many files.
/// - `G` one list of apt, reduced to packages that dpkg knows, and behind `#` the length of the whole.
/// - `C` a program: `x` its output and `s` its status and complaints, or `m` not there, `d` not ours.
/// - `w` the output of the walk so far awaited; `W` one filesystem of the walk: section `o`, then `s`
///   with status, directories, entries, and the first complaint by name.
///
/// [`P`]: PIECES
pub(super) const PIECES: &str = r##"
n=$(printf '\nx');n=${n%x};M=10485760;K=1048576;T=;command -v timeout >/dev/null&&T='timeout -k 2 ';
P(){ printf '\n%s %s %s\n' "$N" "$1" "$i";};
A(){ d=;for a do case $a in :*)d=${a#:};;*)printf '%s\0' "$d$a";;esac;done;};
E(){ P "$1";shift;{ e=$({ "$@" 2>&9|head -c $M >&6;} 9>&1|{ head -c 65536;cat >/dev/null;});} 6>&1;P e;printf '%s' "$e";};
s(){ f=$1;shift;A "$@"|xargs -0 -r stat $f -c '%f %u %g %s %Y %t %T %n' --;};
f(){ f=$1 m=$2;shift 2;A "$@"|xargs -0 -r sh -c 'f=$1 m=$2;shift 2;exec find $f "$@" -xdev -maxdepth $m -printf "%d %y %m %U %G %s %T@ %p\0%l\0"' sh $f $m;};
l(){ l=$(A "$@"|xargs -0 -r stat -L -c '%f %s %n' -- 2>/dev/null|awk -v m=$K 'length($1)==4&&substr($1,1,1)=="8"&&$2<=m{sub(/^[^ ]* [^ ]* /,"");print}');P l;printf '%s' "$l";};
c(){ { printf '%s\n' /proc/self/environ /proc/self/environ;printf '%s\n' "$l"|awk '{print;print "/proc/self/environ"}';}|tr '\n' '\0'|(export N;exec xargs -0 cat);};
R(){ E o s -L "$@";l "$@";[ -z "$l" ]||E c c;};
x(){ if [ -f "$1" ];then cat -- "$1";else echo "x: no regular file any more" >&2;fi;};
X(){ E o s -L "$1";E x x "$1";};
h(){ printf '%s\n' "$l"|tr '\n' '\0'|xargs -0 sha256sum --;};
H(){ E o s -L "$@";l "$@";[ -z "$l" ]||E h h;};
C(){ t=$1 k=$2 q=;shift 2;while [ $k -gt 0 ];do [ -z "$q" ]&&[ -e "$1" ]&&q=$1;shift;k=$((k-1));done;
if [ -z "$q" ];then P m;elif [ ! -x "$q" ];then P d;printf '%s' "$q";else P x;
{ r=$({ e=$({ { ${T:+$T$t} env -i LC_ALL=C "$q" "$@" 2>&9 9>&- 7>&- 6>&- </dev/null;echo $? >&7;}|head -c $M >&6;} 9>&1|{ head -c 4096;cat >/dev/null;});printf '%s' "$e";} 7>&1);} 6>&1;P s;printf '%s' "$r";fi;};
g(){ [ -f "$1" ]&&{ if [ -x /usr/lib/apt/apt-helper ];then /usr/lib/apt/apt-helper cat-file "$1";else case $1 in *_Packages)cat -- "$1";;*)echo "no program decompresses it" >&2;;esac;fi;}|awk -v s=/var/lib/dpkg/status 'BEGIN{while((getline l<s)>0)if(l~/^Package: /)k[substr(l,10)]=1}{b+=length($0)+1}/^Package: /{p=(substr($0,10) in k)}p&&/^(Package|Version|Architecture): /{print}p&&/^$/{print}END{printf "# %d\n",b}';};
G(){ E o s -L "$1";E g g "$1";};
w(){ head -c $M <&5;};
a='!/: (No such file or directory|Not a directory|Too many levels of symbolic links|Stale file handle)$/{sub(/^find: \047/,"");if(match($0,/.*\047: /))$0=substr($0,1,RLENGTH-3) ": " substr($0,RLENGTH+1);if(m==""||$0<m)m=$0}END{printf "%s",m}';
W(){ P o;{ r=$({ e=$({ { ${T:+$T$t} find "$@" 2>&9 8>&6 9>&- 7>&-;echo $? >&7;}|wc -lc >&7;} 9>&1|awk "$a");printf '%s' "$e";} 7>&1);} 6>&1;P s;printf '%s' "$r";};
"##;

/// Every program that scripts start beside those that the collectors declare, for
/// `scan --show-collectors`.
pub const RUNS: &[&str] = &[
    "/usr/bin/env -i LC_ALL=C PATH=... /bin/sh",
    "setsid /bin/sh",
    "stat -c FORMAT PATH...",
    "stat -L -c FORMAT PATH...",
    "find PATH... -maxdepth N -printf FORMAT",
    "find MOUNT ... -printf FORMAT -fprintf /dev/fd/8 FORMAT (the walk)",
    "cat FILE...",
    "sha256sum FILE...",
    "/usr/lib/apt/apt-helper cat-file LIST",
    "timeout, xargs, sh, awk, head, tr, wc, gzip, printf, id, uname (on what those print)",
];

/// What to run on the host, whatever login shell interprets it: words in single quotes, without `!`,
/// backslash at an end, or line break. May follow `sudo -n --` and the like as it is.
pub fn command() -> String {
    format!("/usr/bin/env -i LC_ALL=C PATH={PATH} /bin/sh -c '{LOOP}'")
}

/// One script that answers `questions` in frame `number`: a line.
pub(super) fn script(mark: &str, number: u32, questions: &str) -> String {
    let pieces = PIECES.replace('\n', " ");
    format!(
        "N={mark};{pieces}Z=cat;z=p;command -v gzip >/dev/null&&Z='gzip -1' z=z;\
         printf '\\n%s B %s %s\\n' \"$N\" {number} $z;{{ {questions}}}|$Z;\
         printf '\\n%s E %s\\n' \"$N\" {number}\n"
    )
}

/// The script of the walk: a line.
pub(super) fn walk_script(mark: &str, questions: &str) -> String {
    let pieces = PIECES.replace('\n', " ");
    format!("WN={mark};{pieces}echo $$;{questions}\n")
}

/// Who answers: section `h`.
pub(super) const HELLO: &str = "i=0;P h;id -u;uname -s;\
    for a in stat find xargs awk timeout gzip sha256sum setsid sudo;do command -v $a;done;";

/// One word of a script, which is one line: a line break in `text` is the variable `n`.
pub(crate) fn quote(text: &str) -> String {
    let text = text.replace('\'', r"'\''").replace('\n', r#"'"$n"'"#);
    format!("'{text}'")
}

/// Paths as words of `A`: each directory once.
pub(super) fn paths<'a>(paths: impl IntoIterator<Item = &'a String>) -> String {
    let mut words = String::new();
    let mut current = "";
    for path in paths {
        let at = path.rfind('/').map_or(0, |at| at + 1);
        let (mut dir, mut name) = path.split_at(at);
        if name.is_empty() || name.starts_with(':') {
            (dir, name) = ("", path);
        }
        if dir != current {
            words.push(' ');
            words.push_str(&quote(&format!(":{dir}")));
            current = dir;
        }
        words.push(' ');
        words.push_str(&quote(name));
    }
    words
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
    fn the_caps_are_those_of_the_scripts() {
        for cap in [
            format!("M={SECTION_BYTES_MAX};"),
            format!("head -c {COMPLAINTS_BYTES_MAX};"),
        ] {
            assert!(PIECES.contains(&cap), "{cap}");
        }
    }

    #[test]
    fn a_script_is_one_line() {
        let script = script("mark", 1, "E o s -L '/a';");
        assert_eq!(script.find('\n'), Some(script.len() - 1));
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("a\nb"), "'a'\"$n\"'b'");
    }

    #[test]
    fn a_directory_is_named_once_for_its_files() {
        let asked = ["/a/b", "/a/c", "/d", "/", "/a/:x"].map(str::to_owned);
        assert_eq!(paths(&asked), " ':/a/' 'b' 'c' ':/' 'd' ':' '/' '/a/:x'");
    }
}
