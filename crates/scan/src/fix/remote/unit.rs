//! Units of systemd on a host.

use super::{
    BTreeMap, Fault, RemoteHands, State, UNIT_DIR, checked, is_path, is_unit, script, timer,
};

impl RemoteHands {
    pub(super) fn look_unit(&mut self, name: &str) -> Result<State, Fault> {
        checked(is_unit(name), name, "is no unit")?;
        let said = self.script(name, &[("U", name), ("S", UNIT_DIR)], script::LOOK_UNIT)?;
        let text = String::from_utf8_lossy(&said);
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim())
        };
        let (Some(load), Some(boot), Some(active)) = (
            value("LoadState"),
            value("UnitFileState"),
            value("ActiveState"),
        ) else {
            return Err(Fault::not_safe(name, "systemctl show told no state"));
        };
        let running = match active {
            "active" => true,
            "inactive" | "failed" => false,
            other => return Err(Fault::not_safe(name, format!("is {other}; try again"))),
        };
        if load == "not-found" {
            return Ok(State::Absent);
        }
        let links = text
            .lines()
            .filter_map(|line| line.strip_prefix("link=")?.split_once('='))
            .map(|(link, to)| (link.to_owned(), to.to_owned()))
            .collect();
        Ok(State::Unit {
            boot: boot.to_owned(),
            running,
            links: Some(links),
        })
    }

    pub(super) fn set_unit(&mut self, name: &str, from: &State, to: &State) -> Result<(), Fault> {
        checked(is_unit(name), name, "is no unit")?;
        let (
            State::Unit {
                boot: was,
                running: ran,
                ..
            },
            State::Unit {
                boot,
                running,
                links,
            },
        ) = (from, to)
        else {
            return Err(Fault::not_safe(name, "cannot be made or removed"));
        };
        let mut text = String::from("must() { systemctl \"$@\" || exit 1; }\n");
        if was == "masked" && boot != "masked" {
            text.push_str("must unmask -- \"$U\"\n");
        }
        if ran != running && !running {
            text.push_str("must stop -- \"$U\"\n");
        }
        if was != boot {
            text.push_str(match boot.as_str() {
                "enabled" => "must enable -- \"$U\"\n",
                "masked" => "must mask -- \"$U\"\n",
                // What an unmasked static or indirect unit is by itself.
                "static" | "indirect" | "alias" => "must daemon-reload\n",
                _ => "must disable -- \"$U\"\n",
            });
        }
        self.script(name, &[("U", name)], &text)?;
        if let Some(links) = links {
            self.restore_links(name, links)?;
        }
        if ran != running && *running {
            self.script(name, &[("U", name)], "systemctl start -- \"$U\"\n")?;
        }
        Ok(())
    }

    /// `enable` makes the links that the unit file asks for; what was there may have been others.
    fn restore_links(
        &mut self,
        unit: &str,
        wanted: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let State::Unit {
            links: Some(now), ..
        } = self.look_unit(unit)?
        else {
            return Ok(());
        };
        if now == *wanted {
            return Ok(());
        }
        let mut text = String::new();
        for path in now
            .keys()
            .filter(|path| wanted.get(*path) != now.get(*path))
        {
            text.push_str(&format!("rm -f -- {} || exit 1\n", link(path)?));
        }
        for (path, to) in wanted
            .iter()
            .filter(|(path, to)| now.get(*path) != Some(to))
        {
            let to = timer::quoted(to);
            text.push_str(&format!("ln -s -- {to} {} || exit 1\n", link(path)?));
        }
        text.push_str("systemctl daemon-reload\n");
        self.script(unit, &[], &text).map(drop)
    }
}

/// As one word of a script.
fn link(path: &str) -> Result<String, Fault> {
    let is_ours = is_path(path) && path.starts_with(UNIT_DIR);
    checked(is_ours, path, "is no link of a unit")?;
    Ok(timer::quoted(path))
}
