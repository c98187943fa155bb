//! What both of Ansible's formats mean: groups of hosts and of groups, variables of each, and which
//! variable wins.

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Draft, Read, Via};

/// Levels of groups within groups: beyond, it is a circle.
const DEPTH_MAX: usize = 32;
/// Groups of one inventory.
const GROUPS_MAX: usize = 10_000;

pub(super) type Variables = BTreeMap<String, (String, At)>;

#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By name; in `order` as they came.
    groups: BTreeMap<String, Group>,
    hosts: BTreeMap<String, (At, Variables)>,
    order: Vec<String>,
}

#[derive(Debug, Default)]
struct Group {
    hosts: BTreeSet<String>,
    children: BTreeSet<String>,
    variables: Variables,
}

impl Groups {
    pub(super) fn host(&mut self, group: &str, name: &str, at: &At, variables: Variables) {
        self.group(group).hosts.insert(name.to_owned());
        if !self.hosts.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let (_, known) = self
            .hosts
            .entry(name.to_owned())
            .or_insert_with(|| (at.clone(), Variables::new()));
        known.extend(variables);
    }

    pub(super) fn child(&mut self, group: &str, child: &str) {
        self.group(group).children.insert(child.to_owned());
        self.group(child);
    }

    pub(super) fn variable(&mut self, group: &str, name: &str, value: String, at: &At) {
        let value = (value, at.clone());
        self.group(group).variables.insert(name.to_owned(), value);
    }

    pub(super) fn is_full(&self) -> bool {
        self.groups.len() >= GROUPS_MAX || self.hosts.len() > super::HOSTS_MAX
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// The hosts as drafts, each with every group that it is in.
    pub(super) fn into_drafts(self, read: &mut Read) {
        let mut parents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, group) in &self.groups {
            for child in &group.children {
                parents.entry(child).or_default().push(name);
            }
        }
        let mut direct: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, group) in &self.groups {
            for host in &group.hosts {
                direct.entry(host).or_default().push(name);
            }
        }
        for name in &self.order {
            let (at, own) = &self.hosts[name];
            // Groups by their distance: nearer ones win, and `all` is the farthest.
            let mut levels = vec![direct.get(name.as_str()).cloned().unwrap_or_default()];
            let mut groups: BTreeSet<&str> = levels[0].iter().copied().collect();
            while let Some(last) = levels.last().filter(|last| !last.is_empty()) {
                if levels.len() > DEPTH_MAX {
                    break;
                }
                let above: Vec<&str> = last
                    .iter()
                    .flat_map(|group| parents.get(group).into_iter().flatten().copied())
                    .filter(|group| groups.insert(group))
                    .collect();
                levels.push(above);
            }
            let mut variables = self.groups.get("all").map(|all| all.variables.clone());
            let variables = variables.get_or_insert_default();
            for level in levels.iter().rev() {
                for group in level {
                    variables.extend(self.groups[*group].variables.clone());
                }
            }
            variables.extend(own.clone());
            let groups = groups
                .into_iter()
                .filter(|group| !["all", "ungrouped"].contains(group))
                .map(str::to_owned)
                .collect();
            if let Some(draft) = draft(name, at, variables, groups, read)
                && !read.draft(draft)
            {
                return;
            }
        }
    }
}

fn draft(
    name: &str,
    at: &At,
    variables: &Variables,
    groups: BTreeSet<String>,
    read: &mut Read,
) -> Option<Draft> {
    let get = |names: &[&str]| {
        let found = names.iter().find_map(|name| variables.get(*name))?;
        Some(found.0.clone())
    };
    let shown = name.escape_debug();
    let via = match get(&["ansible_connection"]).as_deref() {
        None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh") => Via::Ssh,
        Some("local") => Via::Local,
        Some(other) => {
            let what = format!("host `{shown}` is reached by `{}`", other.escape_debug());
            read.refuse(at, what, "only SSH hosts and this machine are watched");
            return None;
        }
    };
    let jumps = ["ansible_ssh_common_args", "ansible_ssh_extra_args"]
        .iter()
        .filter_map(|name| variables.get(*name))
        .any(|(value, _)| {
            let value = value.to_ascii_lowercase();
            value.contains("proxyjump") || value.contains("proxycommand") || value.contains("-j")
        });
    if jumps {
        let what = format!("host `{shown}` is reached through another host");
        read.refuse(at, what, "run holdfast where it can be reached directly");
        return None;
    }
    let (address, port, user) = (
        get(&["ansible_host", "ansible_ssh_host"]),
        get(&["ansible_port", "ansible_ssh_port"]),
        get(&["ansible_user", "ansible_ssh_user"]),
    );
    if [&address, &port, &user]
        .into_iter()
        .flatten()
        .any(|value| value.contains("{{"))
    {
        let what =
            format!("host `{shown}` has a template where its address, port or user should be");
        read.refuse(at, what, "write out what it stands for");
        return None;
    }
    Some(Draft {
        at: at.clone(),
        name: name.to_owned(),
        via: Some(via),
        address,
        port,
        user,
        groups: Some(groups),
        ..Draft::default()
    })
}

/// Whether a variable may be kept. Secrets are told of by name, and their values go nowhere.
pub(super) fn is_kept(name: &str, value: &str, at: &At, read: &mut Read) -> bool {
    let is_secret =
        name.contains("pass") || name.contains("secret") || name.contains("private_key");
    if is_secret || value.starts_with("$ANSIBLE_VAULT") {
        let what = format!("`{}` is not taken", name.escape_debug());
        read.remark(at, what, "secrets are sealed by `holdfast credential add`");
        return false;
    }
    // All others are of plays, not of hosts.
    name.starts_with("ansible_")
}
