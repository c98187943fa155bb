//! What runs on the host: one POSIX shell script a verb, of fixed text; what differs is put before it
//! as variables in single quotes, or written as octal escapes.
//!
//! Exit codes: 0 done, [`CHANGED`], [`UNSAFE`], anything else refused; why is on standard error.

/// The object is not as it was captured.
pub(super) const CHANGED: u8 = 71;
/// It is of a kind, or in a place, that cannot be changed exactly.
pub(super) const UNSAFE: u8 = 72;

/// Before every script. `way` admits a path whose directories are no links and closed to others:
/// whoever may write one may swap what a name in it stands for. `T` is the temporary file beside it.
pub(super) const BEGIN: &str = r#"
umask 077
unsafe() { printf '%s' "$1" >&2; exit 72; }
changed() { exit 71; }
gone() { [ ! -e "$P" ] && [ ! -L "$P" ]; }
way() {
    D=${P%/*}; [ -n "$D" ] || D=/
    T=${P%/*}/.holdfast-$G.tmp
    d=$D
    while :; do
        [ -L "$d" ] && unsafe 'has a symbolic link in its path'
        a=$(stat -c '%f %u %g' -- "$d") || exit 1
        set -- $a
        [ "$((0x$1 & 0170000))" -eq "$((0040000))" ] || unsafe 'a part of its path is no directory'
        [ "$2" -eq 0 ] && [ "$((0x$1 & 2))" -eq 0 ] &&
            { [ "$((0x$1 & 020))" -eq 0 ] || [ "$3" -eq 0 ]; } ||
            unsafe 'lies below a directory that others may write'
        [ "$d" = / ] && break
        d=${d%/*}; [ -n "$d" ] || d=/
    done
}
plain() {
    [ ! -L "$P" ] || unsafe 'is a symbolic link'
    case $(ls -ld -- "$P") in ??????????+*) unsafe 'has an access control list';; esac
    if [ -f "$P" ] && [ -x "$P" ]; then
        command -v getcap >/dev/null || unsafe 'is a program, and without getcap its capabilities are not seen'
        [ -z "$(getcap "$P" 2>&1)" ] || unsafe 'has capabilities'
    fi
}
access() { stat -c '%f %u %g' -- "$P"; }
hash() { h=$(sha256sum < "$1") || exit 1; printf '%s' "${h%% *}"; }
flush() { sync -- "$1" 2>/dev/null || sync; }
"#;

/// `P`: `absent`, or a line of mode, owner and group, then the content. `M` bytes at most.
pub(super) const LOOK_FILE: &str = r#"
way
gone && { echo absent; exit 0; }
plain
[ -f "$P" ] || unsafe 'is not a regular file'
[ "$(stat -c %h -- "$P")" -eq 1 ] || unsafe 'has another name (a hard link)'
[ "$(stat -c %s -- "$P")" -le "$M" ] || unsafe 'is larger than is captured'
access && cat -- "$P"
"#;

pub(super) const LOOK_ACCESS: &str = r#"
way
gone && { echo absent; exit 0; }
plain
[ -f "$P" ] || [ -d "$P" ] || unsafe 'is neither file nor directory'
access
"#;

pub(super) const LOOK_SYSCTL: &str = r#"
gone && { echo absent; exit 0; }
echo present
cat -- "$P"
"#;

/// `U`: its state, then the links in `S` that make it start or name it.
pub(super) const LOOK_UNIT: &str = r#"
systemctl show --property=LoadState,UnitFileState,ActiveState -- "$U" || exit 1
for l in "$S"/* "$S"/*.wants/* "$S"/*.requires/* "$S"/*.upholds/*; do
    [ -L "$l" ] || continue
    t=$(readlink -- "$l") || exit 1
    [ "${l##*/}" = "$U" ] || [ "${t##*/}" = "$U" ] || continue
    case $l$t in *[[:cntrl:]]*) unsafe 'has a link with a control character';; esac
    printf 'link=%s=%s\n' "$l" "$t"
done
"#;

/// `W` is what [`LOOK_ACCESS`] said, `I` what both modes allow: at no moment is the file open to
/// somebody whom neither state lets in.
pub(super) const SET_ACCESS: &str = r#"
way
gone && changed
plain
[ "$(access)" = "$W" ] || changed
chmod -- "$I" "$P" && chown -h -- "$O" "$P" && chmod -- "$A" "$P" && flush "$P"
"#;

/// Before each change of a file: `W` is `absent`, or what `access` said, and then `H` its hash.
pub(super) const STILL: &str = r#"
way
if [ "$W" = absent ]; then gone || changed
else
    gone && changed
    plain
    [ "$(access)" = "$W" ] && [ "$(hash "$P")" = "$H" ] || changed
fi
"#;

pub(super) const REMOVE_FILE: &str = r#"
rm -f -- "$P" && flush "$D"
"#;

/// A copy of the file takes its attributes along.
pub(super) const BEGIN_REPLACE: &str = r#"
rm -f -- "$T" || exit 1
if [ "$W" = absent ]; then (set -C; : > "$T") || exit 1
else cp --preserve=all -- "$P" "$T" || { rm -f -- "$T"; unsafe 'cannot be copied with its attributes'; }
fi
"#;

/// `N` is the hash that the content must have. A name that was free is taken by a link, which does
/// not overwrite what somebody else put there since.
pub(super) const END_REPLACE: &str = r#"
{ chown -- "$O" "$T" && chmod -- "$A" "$T" && [ "$(hash "$T")" = "$N" ] && flush "$T"; } ||
    { rm -f -- "$T"; exit 1; }
if [ "$W" = absent ]; then
    ln -- "$T" "$P" || { rm -f -- "$T"; exit 1; }
    rm -f -- "$T"
else
    mv -fT -- "$T" "$P" || { rm -f -- "$T"; exit 1; }
fi
flush "$D"
"#;

/// `W` is the value that it has, in single blanks.
pub(super) const STILL_SYSCTL: &str = r#"
set -f
set -- $(cat -- "$P")
[ "$*" = "$W" ] || changed
"#;

pub(super) const SWEEP: &str = r#"
way
rm -f -- "$T"
"#;

/// `O` is the directory of the timed rollback below `B`.
pub(super) const BEGIN_ARM: &str = r#"
P=$B/.; G=; way
mkdir -m 0700 -- "$O" || exit 1
"#;

/// Prints `in_time` or `fired`; [`super::super::timer`] says how both sides decide who was first.
pub(super) const DISARM: &str = r#"
[ -d "$O" ] || { echo in_time; exit 0; }
set -- "$O"
if mv "$O/armed" "$O/off" 2>/dev/null; then STOP
    echo in_time; exit 0
fi
if [ -e "$O/off" ] || { [ ! -e "$O/fired" ] && [ ! -e "$O/done" ]; }; then echo in_time; exit 0; fi
WAIT
echo fired
"#;
