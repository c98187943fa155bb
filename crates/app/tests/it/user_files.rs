//! Files that the user names: what they are behind a link, and what must never be replaced.

use std::{
    os::unix::fs::{FileTypeExt, symlink},
    path::Path,
};

use crate::{facts::bundle, holdfast::Sandbox};

/// `--facts-out /dev/null` renamed the bundle over the device: from then on every program of the
/// machine appended its rubbish to a file. A socket stands for the device here, because only root
/// can make one.
#[test]
fn facts_are_never_written_over_what_is_no_file() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for place in [socket.as_path(), Path::new("/")] {
        let run = sandbox.run([
            "scan".as_ref(),
            "--no-walk".as_ref(),
            "--facts-out".as_ref(),
            place.as_os_str(),
        ]);
        run.is_refused_naming(&place.display().to_string());
        run.tells_next_step();
    }
    assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
    assert!(!sandbox.data_dir().exists(), "refused before the work");
}

#[test]
fn what_the_user_names_is_read_and_written_through_links() {
    let sandbox = Sandbox::new();
    let facts = sandbox.file("facts.json", bundle("press-3", "2").to_string());
    let to_facts = sandbox.path("to-facts");
    symlink(&facts, &to_facts).unwrap();
    let replayed = sandbox.run(["scan".as_ref(), "--replay".as_ref(), to_facts.as_os_str()]);
    assert_ne!(replayed.code, 2, "{}", replayed.stderr);

    let settings = sandbox.file("settings.toml", "output = \"csv\"");
    let to_settings = sandbox.path("to-settings");
    symlink(&settings, &to_settings).unwrap();
    let args = ["--config".as_ref(), to_settings.as_os_str()];
    let shown = sandbox.run(args.into_iter().chain(["config".as_ref(), "show".as_ref()]));
    assert!(shown.stdout.contains("output,csv,file"), "{}", shown.stderr);

    let written = sandbox.run([
        "scan".as_ref(),
        "--no-walk".as_ref(),
        "--facts-out".as_ref(),
        to_facts.as_os_str(),
    ]);
    assert_ne!(written.code, 2, "{}", written.stderr);
    assert!(to_facts.is_symlink(), "the link stands");
    assert!(!std::fs::read_to_string(&facts).unwrap().contains("press-3"));
}

#[test]
fn facts_that_cannot_be_read_leave_no_data_directory_behind() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("facts.json", "{}");
    let run = sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    run.is_refused_naming("facts.json");
    assert!(!sandbox.data_dir().exists());
}

#[test]
fn a_plug_test_is_checked_only_against_what_a_plug_test_printed() {
    let sandbox = Sandbox::new();
    let acks = sandbox.file("acks", "ack 0 1 1\n");
    let check = |file: &Path| sandbox.run(["load".as_ref(), "check".as_ref(), file.as_os_str()]);
    check(&acks).is_refused_naming("nothing is recorded");
    assert!(!sandbox.data_dir().exists(), "a question creates nothing");

    let ran = sandbox.run(["load", "run", "--writers", "1", "--commits", "3"]);
    let other = sandbox.file("other", "a letter to a friend\n");
    check(&other).is_refused_naming("other");
    let beyond = sandbox.file("beyond", format!("{}ack 0 {} 9\n", ran.stdout, u64::MAX));
    assert_eq!(
        check(&beyond).code,
        1,
        "the highest number there is, is missing"
    );
    let own = sandbox.file("own", &ran.stdout);
    let args = ["load".as_ref(), "check".as_ref(), own.as_os_str()];
    let csv = sandbox.run(
        args.into_iter()
            .chain(["--output".as_ref(), "csv".as_ref()]),
    );
    assert!(csv.stdout.ends_with("\n3,3,0,0,0,0,\n"), "{}", csv.stdout);
}
