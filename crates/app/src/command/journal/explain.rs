//! `holdfast journal explain`: the pages of docs/errors, which the binary carries for sites without
//! a network.

use include_dir::{Dir, include_dir};

use crate::{
    exit::{Exit, Refusal},
    screen::Screen,
};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/errors");

/// Where the page of a code lies in the repository.
pub(crate) fn page(code: &str) -> String {
    format!("docs/errors/{code}.md")
}

pub(super) fn run(code: Option<&str>, screen: Screen) -> Result<Exit, Refusal> {
    let name = match code {
        Some(code) => code.to_ascii_uppercase(),
        None => "README".to_owned(),
    };
    let text = PAGES
        .get_file(format!("{name}.md"))
        .and_then(|file| file.contents_utf8())
        .ok_or_else(|| {
            Refusal::new(format!("no page for `{name}`"))
                .next("`holdfast journal explain` lists the codes")
        })?;
    screen.result(text)?;
    Ok(Exit::Clean)
}

#[cfg(test)]
mod tests {
    use super::PAGES;

    #[test]
    fn every_cause_has_a_page_that_begins_with_its_code() {
        let codes = wal::Cause::ALL
            .map(wal::Cause::code)
            .into_iter()
            .chain(events::v1::Cause::ALL.map(events::v1::Cause::code));
        for code in codes {
            let page = PAGES
                .get_file(format!("{code}.md"))
                .unwrap_or_else(|| panic!("no page for {code}"));
            let text = page.contents_utf8().unwrap();
            assert!(text.starts_with(&format!("# {code}\n")), "{code}");
            let list = PAGES.get_file("README.md").unwrap();
            assert!(
                list.contents_utf8().unwrap().contains(code),
                "{code} is not listed"
            );
        }
    }
}
