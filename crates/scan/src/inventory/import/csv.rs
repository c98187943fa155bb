//! CSV: the first line names the columns.

use super::{At, Draft, Read, Via};

const COLUMNS: &str = "name, via, address, port, user, credential, site, groups, tags";
/// Of a listing that this program printed: not for taking in.
const LISTED: [&str; 2] = ["added", "retired"];

pub(super) fn read(file: &str, text: &str, read: &mut Read) {
    let at = |line: u64| At {
        file: file.to_owned(),
        line: u32::try_from(line).unwrap_or(u32::MAX),
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let columns: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(str::to_ascii_lowercase).collect(),
        Err(error) => return read.refuse(&at(1), error.to_string(), "mend the first line"),
    };
    if !check_columns(&columns, &at(1), read) {
        return;
    }
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                read.refuse(&at(line), error.to_string(), "mend this line");
                continue;
            }
        };
        let at = at(record.position().map_or(0, csv::Position::line));
        let field = |name: &str| {
            let index = columns.iter().position(|column| column == name)?;
            record.get(index).filter(|field| !field.is_empty())
        };
        if field("retired").is_some() {
            continue;
        }
        let Some(via) = via(field("via")) else {
            read.refuse(&at, "`via` is ssh, local or offline", "mend this line");
            continue;
        };
        let owned = |name| field(name).map(str::to_owned);
        let labels = |name: &str| {
            columns.iter().any(|column| column == name).then(|| {
                let text = field(name).unwrap_or_default();
                let each = text.split([',', ';']).map(str::trim);
                each.filter(|label| !label.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
        };
        let draft = Draft {
            name: field("name").unwrap_or_default().to_owned(),
            via: Some(via),
            address: owned("address"),
            port: owned("port"),
            user: owned("user"),
            credential: owned("credential"),
            site: owned("site"),
            groups: labels("groups"),
            tags: labels("tags"),
            at,
        };
        if !read.draft(draft) {
            return;
        }
    }
}

/// Whether there is a column of names; says what else there is.
fn check_columns(columns: &[String], at: &At, read: &mut Read) -> bool {
    if !columns.iter().any(|column| column == "name") {
        let next = format!("name the columns in the first line: {COLUMNS}");
        read.refuse(at, "no column is called `name`", &next);
        return false;
    }
    let known: Vec<&str> = COLUMNS.split(", ").collect();
    for column in columns {
        if known.contains(&column.as_str()) || LISTED.contains(&column.as_str()) {
            continue;
        }
        let what = format!("column `{}` is not taken", column.escape_debug());
        let next = if column.contains("pass") || column.contains("secret") {
            "secrets are sealed by `holdfast credential add`"
        } else {
            ""
        };
        read.remark(at, what, next);
    }
    true
}

fn via(text: Option<&str>) -> Option<Via> {
    match text {
        None | Some("ssh") => Some(Via::Ssh),
        Some("local") => Some(Via::Local),
        Some("offline") => Some(Via::Offline),
        Some(_) => None,
    }
}
