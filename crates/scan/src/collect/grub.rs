//! The boot loader: settings it is generated from, and whether its menu asks for a password.
//!
//! The password is judged by the generated `grub.cfg`, which is what boots. Hashes are never kept.

use serde_json::{Map, Value};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, rows, shell_settings};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Links},
};

const DEFAULTS: &str = "/etc/default/grub";
const DROP_INS: &str = "/etc/default/grub.d";
const GENERATORS: [&str; 2] = ["/usr/sbin/grub-mkconfig", "/usr/sbin/grub2-mkconfig"];
/// Debian's, then Red Hat's.
const CONFIGS: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];

pub(super) const COLLECTOR: Collector = Collector {
    name: "grub",
    about: "GRUB: settings and password",
    reads: &[
        DEFAULTS,
        "/etc/default/grub.d/*.cfg",
        "/usr/sbin/grub-mkconfig",
        "/usr/sbin/grub2-mkconfig",
        "/boot/grub/grub.cfg",
        "/boot/grub/custom.cfg",
        "/boot/grub2/grub.cfg",
        "/boot/grub2/custom.cfg",
        "/boot/grub2/user.cfg",
    ],
    privilege: Privilege::Partly("grub.superuser_set, grub.password_set"),
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("grub", Shape::Map, "the boot loader"),
        FactPattern::closed(
            "grub.installed",
            Shape::Bool,
            "grub.cfg or its generator exists",
        ),
        FactPattern::closed(
            "grub.settings",
            Shape::Map,
            "/etc/default/grub and its drop-ins",
        ),
        FactPattern::closed("grub.settings[*]", Shape::Text, "GRUB_CMDLINE_LINUX"),
        FactPattern::closed(
            "grub.superuser_set",
            Shape::Bool,
            "superusers names somebody",
        ),
        FactPattern::closed("grub.password_set", Shape::Bool, "a user has a password"),
        FactPattern::closed(
            "grub.password_hashed",
            Shape::Bool,
            "every password is a PBKDF2 hash",
        ),
        FactPattern::closed("grub.config_path", Shape::Text, "grub.cfg that was judged"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut grub = Map::new();
    grub.insert("settings".into(), part(settings(context)));
    let config = config_path(context);
    let path = config.as_ref().ok().copied().flatten();
    grub.insert("installed".into(), part(installed(context, path)));
    if let Some(path) = path {
        grub.insert("config_path".into(), path.into());
    }
    let menu = config.and_then(|path| match path {
        Some(path) => menu(context, path),
        None => Ok(Menu::default()),
    });
    let of = |field: fn(&Menu) -> bool| match &menu {
        Ok(menu) => field(menu).into(),
        Err(unknown) => unknown.to_value(),
    };
    grub.insert("superuser_set".into(), of(|menu| menu.superusers));
    grub.insert("password_set".into(), of(|menu| menu.hashed || menu.plain));
    grub.insert(
        "password_hashed".into(),
        of(|menu| menu.hashed && !menu.plain),
    );
    Ok(Value::Object(grub))
}

fn settings(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut settings = Map::new();
    let files = [DEFAULTS.to_owned()].into_iter();
    for file in files.chain(context.files_in(DROP_INS, ".cfg")?) {
        let text = context.text(&file).known()?.unwrap_or_default();
        shell_settings::apply(&file, &text, &mut settings)?;
    }
    Ok(Value::Object(settings))
}

fn config_path(context: &Context<'_>) -> Result<Option<&'static str>, Unknown> {
    for path in CONFIGS {
        if context.stat(path, Links::Follow).known()?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn installed(context: &Context<'_>, config: Option<&str>) -> Result<Value, Unknown> {
    let mut installed = config.is_some();
    for generator in GENERATORS {
        installed |= context.stat(generator, Links::Follow).known()?.is_some();
    }
    Ok(installed.into())
}

/// What a menu says about who may change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Menu {
    superusers: bool,
    hashed: bool,
    plain: bool,
}

fn menu(context: &Context<'_>, path: &str) -> Result<Menu, Unknown> {
    let text = context
        .text(path)
        .known()?
        .ok_or_else(|| Unknown::new(Reason::Unreadable, format!("{path}: went away")))?;
    let dir = path.trim_end_matches("/grub.cfg");
    let beside = |name: &str| match context.text(&format!("{dir}/{name}")) {
        Found::Present(text) => Ok(text),
        Found::Absent => Ok(String::new()),
        Found::Unknown(unknown) => Err(unknown),
    };
    let mut menu = Menu::default();
    let user = if text.contains("user.cfg") {
        beside("user.cfg")?
    } else {
        String::new()
    };
    judge(&text, &user, &mut menu);
    if text.contains("custom.cfg") {
        judge(&beside("custom.cfg")?, &user, &mut menu);
    }
    Ok(menu)
}

/// Red Hat's menu names a variable instead of a hash, and `user.cfg` sets it.
fn judge(text: &str, user: &str, menu: &mut Menu) {
    let user_has_password = user
        .lines()
        .filter_map(|line| line.trim().strip_prefix("GRUB2_PASSWORD="))
        .any(|hash| !hash.trim().is_empty());
    let is_set = |value: &str| {
        let value = value.trim_matches(['"', '\'']);
        !value.is_empty() && (!value.starts_with('$') || user_has_password)
    };
    let guarded = text.contains("GRUB2_PASSWORD") && !user_has_password;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["password_pbkdf2", _, hash, ..] => menu.hashed |= is_set(hash),
            ["password", _, plain, ..] => menu.plain |= is_set(plain),
            ["set", assignment, ..] => {
                if let Some(users) = assignment.strip_prefix("superusers=") {
                    menu.superusers |= is_set(users) && !guarded;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;
    use serde_json::json;

    const CONFIG: &str = "/boot/grub/grub.cfg";

    fn check(config: &str, beside: &[(&str, &str)], superuser: bool, password: bool, hashed: bool) {
        let host = Fixture::new(beside);
        host.write(CONFIG, config.as_bytes());
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["superuser_set"], superuser, "{config}");
        assert_eq!(fact["password_set"], password, "{config}");
        assert_eq!(fact["password_hashed"], hashed, "{config}");
        assert!(!fact.to_string().contains("grub.pbkdf2"), "{fact}");
    }

    #[test]
    fn a_menu_is_protected_when_it_names_users_and_their_passwords() {
        let hash = "grub.pbkdf2.sha512.10000.AB.CD";
        check("set timeout=5\n", &[], false, false, false);
        check(
            &format!("set superusers=\"root\"\npassword_pbkdf2 root {hash}\n"),
            &[],
            true,
            true,
            true,
        );
        check(
            "\tset superusers=root\npassword root secret\n",
            &[],
            true,
            true,
            false,
        );
        check(
            "set superusers=\"\"\n# password_pbkdf2 root x\n",
            &[],
            false,
            false,
            false,
        );
        check("", &[], false, false, false);
        check("\0\u{1}\u{fffd}", &[], false, false, false);
        let custom = format!("set superusers=a\npassword_pbkdf2 a {hash}\n");
        check(
            "source ${config_directory}/custom.cfg\n",
            &[("/boot/grub/custom.cfg", &custom)],
            true,
            true,
            true,
        );
    }

    #[test]
    fn red_hats_menu_is_protected_only_with_its_user_file() {
        let menu = "source ${prefix}/user.cfg\nif [ -n \"${GRUB2_PASSWORD}\" ]; then\n  set superusers=\"root\"\n  \
                    password_pbkdf2 root ${GRUB2_PASSWORD}\nfi\n";
        check(menu, &[], false, false, false);
        check(
            menu,
            &[("/boot/grub/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.x\n")],
            true,
            true,
            true,
        );
    }

    #[test]
    fn drop_ins_extend_the_settings_and_a_host_without_grub_has_none() {
        let host = Fixture::new(&[
            (
                DEFAULTS,
                "GRUB_DISTRIBUTOR=`lsb_release -i`\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n",
            ),
            (
                "/etc/default/grub.d/50-audit.cfg",
                "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX audit=1\"\n",
            ),
        ]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["settings"]["GRUB_CMDLINE_LINUX"], " audit=1");
        assert_eq!(fact["settings"]["GRUB_CMDLINE_LINUX_DEFAULT"], "quiet");
        assert!(Unknown::from_value(&fact["settings"]["GRUB_DISTRIBUTOR"]).is_some());
        let expected = json!({
            "settings": {}, "installed": false, "superuser_set": false, "password_set": false, "password_hashed": false,
        });
        assert_eq!(Fixture::new(&[]).collect(&COLLECTOR), expected);
    }

    #[test]
    fn a_menu_that_cannot_be_read_is_unknown_and_the_rest_is_not() {
        let host = Fixture::new(&[]);
        host.dir(CONFIG);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["installed"], true);
        let unknown = Unknown::from_value(&fact["password_set"]).unwrap();
        assert_eq!(unknown.reason, Reason::Unreadable);
    }
}
