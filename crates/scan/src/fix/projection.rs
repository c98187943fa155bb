//! A fix on paper: the facts as they would be after it. For lint, which has no host.

use serde_json::{Map, Value, json};

use super::plan::{choose, stands_for};
use crate::rule::{Boot, FileAccess, FilePlace, ServiceState, Step};

/// The facts of a host after these steps. What is unknown or absent in them stays so where the fix
/// could not be planned.
pub(crate) fn project(steps: &[Step], facts: &Map<String, Value>) -> Map<String, Value> {
    let mut facts = facts.clone();
    for step in steps {
        // A step whose facts are not there changes none.
        project_one(step, &mut facts);
    }
    facts
}

fn project_one(step: &Step, facts: &mut Map<String, Value>) -> Option<()> {
    match step {
        Step::Sysctl(step) => {
            let sysctl = facts.get_mut("sysctl")?;
            let running = sysctl.get_mut("running")?.as_object_mut()?;
            if step.key.contains('*') {
                for (key, value) in running.iter_mut() {
                    if stands_for(&step.key, key) {
                        *value = choose(&step.value, [value.as_str()]).into();
                    }
                }
                return Some(());
            }
            let now = running.get(&step.key)?.as_str().map(str::to_owned);
            let persistent = sysctl.get("persistent")?.get(&step.key);
            let set = persistent.and_then(|line| line.get("value"));
            let value = choose(&step.value, [now.as_deref(), set.and_then(Value::as_str)]);
            sysctl["running"][&step.key] = value.clone().into();
            let persistent = sysctl.get_mut("persistent")?.as_object_mut()?;
            persistent.insert(
                step.key.clone(),
                json!({"value": value, "file": "/etc/sysctl.d/zz-holdfast.conf"}),
            );
        }
        Step::File(step) => match &step.place {
            FilePlace::Path(path) => grant(step, facts.get_mut("files")?.get_mut(path)?),
            FilePlace::Glob(glob) => {
                let list = facts.get_mut("globs")?.get_mut(glob)?.as_array_mut()?;
                let is_file = |item: &&mut Value| item.get("kind") == Some(&json!("file"));
                list.iter_mut()
                    .filter(is_file)
                    .for_each(|item| grant(step, item));
            }
        },
        Step::Sshd(step) => {
            let sshd = facts.get_mut("sshd")?;
            let key = step.keyword.to_ascii_lowercase();
            let effective = sshd.get_mut("effective")?.as_object_mut()?;
            let value = choose(&step.value, [effective.get(&key).and_then(Value::as_str)]);
            effective.insert(key.clone(), value.clone().into());
            if let Some(lists) = sshd
                .get_mut("effective_lists")
                .and_then(Value::as_object_mut)
            {
                let names: Vec<&str> = value.split([',', ' ']).collect();
                lists.insert(key, json!(names));
            }
        }
        Step::Service(step) => {
            let units = facts.get_mut("services")?.get_mut("units")?;
            let unit = units.get_mut(&step.unit)?;
            turn(step, unit.as_object_mut()?);
        }
        Step::Module(step) => {
            let modules = facts.get_mut("modules")?;
            modules
                .get_mut("loaded")?
                .as_object_mut()?
                .shift_remove(&step.name);
            let file = "/etc/modprobe.d/zz-holdfast.conf";
            modules.get_mut("install")?.as_object_mut()?.insert(
                step.name.clone(),
                json!({"command": "/bin/false", "file": file}),
            );
            let blacklisted = modules.get_mut("blacklisted")?.as_object_mut()?;
            blacklisted.insert(step.name.clone(), json!({"file": file}));
        }
    }
    Some(())
}

fn grant(step: &FileAccess, file: &mut Value) {
    let Some(file) = file.as_object_mut() else {
        return;
    };
    let mode = file.get("mode").and_then(Value::as_str);
    if let Some(mode) = mode.and_then(|text| u32::from_str_radix(text, 8).ok()) {
        let mut mode = mode & step.mode_at_most.unwrap_or(0o7777);
        if step.sticky {
            mode |= 0o1000;
        }
        file.insert("mode".into(), format!("{mode:04o}").into());
    }
    for (field, names) in [("owner", &step.owners), ("group", &step.groups)] {
        let now = file.get(field).and_then(Value::as_str);
        let stays = now.is_none_or(|now| names.iter().any(|name| name == now));
        if let (false, Some(first)) = (stays, names.first()) {
            file.insert(field.into(), first.as_str().into());
        }
    }
}

fn turn(step: &ServiceState, unit: &mut Map<String, Value>) {
    if let Some(boot) = step.boot {
        let now = unit.get("enabled").and_then(Value::as_str).unwrap_or("");
        let stays = boot == Boot::Disabled && !now.starts_with("enabled");
        if !stays {
            unit.insert("enabled".into(), boot.name().into());
        }
    }
    if let Some(running) = step.running {
        let active = if running { "active" } else { "inactive" };
        unit.insert("active".into(), active.into());
    }
}
