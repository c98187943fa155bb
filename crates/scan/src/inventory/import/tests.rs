//! Inventories as their programs write them, and as people break them.

use super::*;
use crate::inventory::tests::{Place, WHO};

/// One line a host that would be there, `!LINE: …` for what is refused, `?LINE: …` for what is said.
fn taken(format: Format, text: &str) -> Vec<String> {
    let mut include = |path: &str| match path {
        "inner" => Ok(vec![(
            "inner".to_owned(),
            "User deploy\nHost inner1\n  HostName 10.0.0.9\n".to_owned(),
        )]),
        "loop" => Ok(vec![("loop".to_owned(), "Include loop\n".to_owned())]),
        _ => Err("no such file".to_owned()),
    };
    let read = read(format, "f", text, &mut include);
    let place = Place::new();
    let inventory = place.inventory();
    let mut transaction = place.store.begin().unwrap();
    let outcome = inventory
        .import_in(&mut transaction, &read.drafts, place.now(), WHO)
        .unwrap();
    let mut lines: Vec<String> = outcome.added.iter().map(shown).collect();
    for (mark, remarks) in [
        ('!', read.refused.iter().chain(&outcome.refused)),
        ('?', read.remarks.iter().chain(&[])),
    ] {
        lines.extend(remarks.map(|remark| {
            let words: Vec<_> = remark.what.split(' ').take(5).collect();
            format!("{mark}{}: {}", remark.line, words.join(" "))
        }));
    }
    lines
}

fn shown(host: &Host) -> String {
    let reach = match &host.reach {
        Reach::Local => "local".to_owned(),
        Reach::Offline => "offline".to_owned(),
        Reach::Ssh {
            address,
            port,
            user,
        } => format!("{}@{address}:{port}", user.as_deref().unwrap_or("")),
    };
    let groups: Vec<_> = host.groups.iter().cloned().collect();
    format!("{} {reach} {}", host.name, groups.join(","))
        .trim_end()
        .to_owned()
}

fn check(format: Format, text: &str, expected: &[&str]) {
    assert_eq!(taken(format, text), expected, "{text}");
}

#[test]
fn openssh_gives_each_name_the_first_value_of_the_blocks_that_match_it() {
    check(
        Format::OpenSsh,
        "# mine\n\
         Host web1 web2\n\
         \tHostName %h.example.org\n\
         \tPort 2222\n\
         \n\
         Host *.corp !x.corp db\n\
         HostName=10.0.0.5\n\
         IdentityFile ~/.ssh/db\n\
         Host \"quoted\"\n\
         user 'ops'\n\
         Host *\n\
         User admin\n\
         Port 22\n",
        &[
            "web1 admin@web1.example.org:2222",
            "web2 admin@web2.example.org:2222",
            "db admin@10.0.0.5:22",
            "quoted ops@quoted:22",
            "?8: host `db` logs in with",
        ],
    );
}

#[test]
fn openssh_refuses_what_it_cannot_reach_and_says_where() {
    check(
        Format::OpenSsh,
        "Host a\nProxyJump gate\nHost b\nProxyCommand none\nHost c\nPort 99999\nHost d\nHostName -x\n\
         Match user root\nHostName 1.2.3.4\nInclude nowhere\nInclude loop\nPort\nHost \"e\n",
        &[
            "b @b:22",
            "!11: Include `nowhere`: no such file",
            "!1: Include too deep: files include",
            "!13: `Port` without a value",
            "!14: a quote is not closed",
            "!2: host `a` is reached through",
            "!5: port `99999`: ports are 1",
            "!7: address `-x`: neither a DNS",
            "?9: a Match block is left",
        ],
    );
}

#[test]
fn what_an_include_says_before_its_first_host_is_of_the_block_that_includes_it() {
    check(
        Format::OpenSsh,
        "Host outer\nInclude inner\nPort 2200\nHost *\nUser other\n",
        &["outer deploy@outer:2200", "inner1 other@10.0.0.9:22"],
    );
}

#[test]
fn ansible_ini_has_groups_of_groups_ranges_and_variables_that_win_in_order() {
    check(
        Format::AnsibleIni,
        "lonely ansible_host=10.1.1.1 ; kept\n\
         localhost ansible_connection=local\n\
         [web]\n\
         web[01:03:2].example.org ansible_port=2201\n\
         db-[a:b] ansible_user='x y'\n\
         [web:vars]\n\
         ansible_user = deploy\n\
         http_port=80\n\
         [prod:children]\n\
         web\n\
         [prod:vars]\n\
         ansible_user=prod\n\
         ansible_port=2299\n\
         [all:vars]\n\
         ansible_user=everyone\n",
        &[
            "localhost local",
            "web01.example.org deploy@web01.example.org:2201 prod,web",
            "web03.example.org deploy@web03.example.org:2201 prod,web",
            "db-a x y@db-a:2299 prod,web",
            "db-b x y@db-b:2299 prod,web",
            "!1: `;` is no name=value",
        ],
    );
}

/// Proves: EXE-2
#[test]
fn passwords_and_vaults_are_named_and_never_taken() {
    const SECRET: &str = "hunter2-s3cret";
    for (format, text) in [
        (
            Format::AnsibleIni,
            format!(
                "a ansible_password={SECRET} ansible_become_pass={SECRET}\n[all:vars]\nansible_ssh_pass={SECRET}\n"
            ),
        ),
        (
            Format::AnsibleYaml,
            format!(
                "all:\n  hosts:\n    a:\n      ansible_password: {SECRET}\n      ansible_user: !vault |\n        \
                 $ANSIBLE_VAULT;1.1;AES256\n        {SECRET}\n      api_secret: {SECRET}\n"
            ),
        ),
        (Format::Csv, format!("name,password,note\na,{SECRET},x\n")),
    ] {
        let read = read(format, "f", &text, &mut |_| Ok(Vec::new()));
        assert!(read.refused.is_empty(), "{read:?}");
        assert_eq!(read.drafts.len(), 1, "{read:?}");
        assert!(!read.remarks.is_empty(), "{text}");
        assert!(!format!("{read:?}").contains(SECRET), "{read:?}");
    }
}

#[test]
fn broken_ini_is_refused_line_by_line_and_the_rest_is_read() {
    check(
        Format::AnsibleIni,
        "[web\nok1\n[a:b:c]\nswallowed ansible_host=1.1.1.1\n[web]\nweb[3:1]\nx[1:2\nbad 'quote\nodd word\n\
         tpl ansible_host={{ip}}\nwin ansible_connection=winrm\njump ansible_ssh_common_args='-o ProxyJump=g'\n\
         many[0:99999]\n$(reboot) ansible_host=10.0.0.1\n2001:db8::1 \nv4:2222\n",
        &[
            "ok1 @ok1:22",
            "$(reboot) @10.0.0.1:22 web",
            "2001:db8::1 @2001:db8::1:22 web",
            "v4 @v4:2222 web",
            "!1: host `[web`: a range without",
            "!3: `[a:b:c]` is no heading",
            "!6: host `web[3:1]`: `[3:1]` is no",
            "!7: host `x[1:2`: a range without",
            "!8: a quote is not closed",
            "!9: `word` is no name=value",
            "!13: host `many[0:99999]`: `[0:99999]` is no",
            "!10: host `tpl` has a template",
            "!11: host `win` is reached by",
            "!12: host `jump` is reached through",
        ],
    );
}

#[test]
fn ansible_yaml_is_read_as_its_ini_is() {
    check(
        Format::AnsibleYaml,
        "---\nall:\n  hosts:\n    lonely:\n  vars:\n    ansible_user: everyone\n  children:\n    web:\n      hosts:\n        \
         web[1:2]:\n          ansible_port: 2201\n    prod:\n      children:\n        web:\n      vars:\n        \
         ansible_user: prod\n",
        &[
            "lonely everyone@lonely:22",
            "web1 prod@web1:2201 prod,web",
            "web2 prod@web2:2201 prod,web",
        ],
    );
    for (text, refused) in [
        ("- a\n- b\n", "!1: an inventory is a mapping"),
        ("all: [a\n", "!"),
        ("all:\n  hosts: [a]\n", "!2: `hosts` is not a"),
        ("all:\n  host:\n    a:\n", "!2: `host` in group `all`"),
        ("a: &x\n  children:\n    b: *x\n", "!"),
    ] {
        let lines = taken(Format::AnsibleYaml, text);
        assert!(
            lines.iter().any(|line| line.starts_with(refused)),
            "{text}: {lines:?}"
        );
    }
}

#[test]
fn csv_has_a_header_and_takes_back_what_a_listing_printed() {
    check(
        Format::Csv,
        "\u{feff}Name, address ,port,groups,via,retired,colour\n\
         web1,10.0.0.1,2222,\"web;prod\",ssh,,red\n\
         me,,,,local,,\n\
         old,10.0.0.3,,,ssh,2026-01-01T00:00:00Z,\n\
         air,,,,pigeon,,\n\
         ,10.0.0.4,,,,,\n\
         web1,10.0.0.5,,,,,\n\
         few\n",
        &[
            "web1 @10.0.0.1:2222 prod,web",
            "me local",
            "!5: `via` is ssh, local or",
            "!8: CSV error: record 7 (line:",
            "!6: host name ``: it is",
            "!7: host `web1` stands here twice",
            "?1: column `colour` is not taken",
        ],
    );
    check(
        Format::Csv,
        "address\n10.0.0.1\n",
        &["!1: no column is called `name`"],
    );
    check(Format::Csv, "", &["!1: no column is called `name`"]);
}

#[test]
fn an_import_over_hosts_that_are_there_changes_what_the_file_says_and_nothing_else() {
    let place = Place::new();
    let inventory = place.inventory();
    let import = |text: &str| {
        let read = read(Format::Csv, "f", text, &mut |_| Ok(Vec::new()));
        inventory
            .transact(|transaction| {
                inventory.import_in(transaction, &read.drafts, place.now(), WHO)
            })
            .unwrap()
    };
    import("name,address,site,tags\nweb1,10.0.0.1,berlin,old\nweb2,10.0.0.2,,\nweb3,10.0.0.3,,\n");
    inventory.retire("web3", place.now(), WHO).unwrap();
    let again =
        import("name,address\nweb1,10.0.0.9\nweb2,10.0.0.2\nweb3,10.0.0.3\nweb4,10.0.0.4\n");
    assert_eq!(again.unchanged, ["web2"]);
    assert_eq!(again.changed.len(), 1);
    assert_eq!(again.added[0].name, "web4");
    assert!(
        again.refused[0].what.contains("web3"),
        "{:?}",
        again.refused
    );
    let web1 = inventory.get("web1").unwrap().unwrap();
    assert_eq!((web1.site.as_str(), web1.tags.len()), ("berlin", 1));
    assert!(shown(&web1).contains("10.0.0.9"));
}

#[test]
fn an_inventory_of_any_size_is_taken_or_refused_in_bounded_work() {
    let many: String = (0..HOSTS_MAX + 10)
        .map(|number| format!("h{number}\n"))
        .collect();
    let lines = read(Format::AnsibleIni, "f", &many, &mut |_| Ok(Vec::new()));
    assert!(lines.drafts.len() <= HOSTS_MAX && !lines.refused.is_empty());
    let names: String = (0..HOSTS_MAX + 10)
        .map(|number| format!(" h{number}"))
        .collect();
    let read = read(Format::OpenSsh, "f", &format!("Host{names}\n"), &mut |_| {
        Ok(Vec::new())
    });
    assert!(read.drafts.len() <= HOSTS_MAX && !read.refused.is_empty());
    // As many as there may be fit one transaction.
    let place = Place::new();
    let inventory = place.inventory();
    let mut transaction = place.store.begin().unwrap();
    let outcome = inventory
        .import_in(&mut transaction, &read.drafts, place.now(), WHO)
        .unwrap();
    assert_eq!(outcome.added.len(), HOSTS_MAX);
    transaction.commit().unwrap();
}
