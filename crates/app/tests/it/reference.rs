//! What the command line says of itself.

use crate::holdfast::{Sandbox, repository};

/// Proves: SVC-8
#[test]
fn the_committed_reference_is_what_the_binary_prints() {
    let run = Sandbox::new().run(["reference"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let committed = std::fs::read_to_string(repository("docs/CLI.md")).unwrap();
    assert!(
        committed == run.stdout,
        "docs/CLI.md is not of this source: cargo run -- reference > docs/CLI.md"
    );
}

#[test]
fn each_command_has_a_manual_page_and_completions_name_it() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("man");
    let run = sandbox.run(["man".as_ref(), "--to".as_ref(), dir.as_os_str()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let reference = sandbox.run(["reference"]).stdout;
    let bash = sandbox.run(["completions", "bash"]).stdout;
    let names = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## holdfast"));
    let mut count = 0;
    for name in names {
        let words: Vec<&str> = name.split_whitespace().collect();
        let mut page = vec!["holdfast"];
        page.extend(&words);
        let page = dir.join(format!("{}.1", page.join("-")));
        let text = std::fs::read_to_string(&page)
            .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
        let word = words.last().copied().unwrap_or("holdfast");
        assert!(bash.contains(word), "no completion for `{word}`");
        count += 1;
    }
    assert!(count > 50, "{count}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let run = sandbox.run(["completions", shell]);
        assert!(run.code == 0 && run.stdout.contains("holdfast"), "{shell}");
    }
}

#[test]
fn the_program_describes_itself_whatever_is_configured() {
    let sandbox = Sandbox::new();
    let config = sandbox.file("broken.toml", "no_such_key = 1\n");
    let run = sandbox.run([
        "--config".as_ref(),
        config.as_os_str(),
        "completions".as_ref(),
        "bash".as_ref(),
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
