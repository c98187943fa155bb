//! Ranges in names of Ansible's: `web[01:20]`, `db-[a:f]`, `n[0:100:10]`.

use super::HOSTS_MAX;

/// Ranges in one name.
const RANGES_MAX: usize = 4;

/// Every name that a pattern stands for; the fault in words.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    let mut ranges = 0;
    while let Some((before, after)) = rest.split_once('[') {
        let (range, tail) = after
            .split_once(']')
            .ok_or_else(|| "a range without its closing bracket".to_owned())?;
        ranges += 1;
        if ranges > RANGES_MAX {
            return Err(format!("more than {RANGES_MAX} ranges in one name"));
        }
        let values = values(range)?;
        if names.len() * values.len() > HOSTS_MAX {
            return Err(format!("it stands for more than {HOSTS_MAX} hosts"));
        }
        names = names
            .iter()
            .flat_map(|name| {
                values
                    .iter()
                    .map(move |value| format!("{name}{before}{value}"))
            })
            .collect();
        rest = tail;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn values(range: &str) -> Result<Vec<String>, String> {
    let fault = || format!("`[{}]` is no range: [01:20] or [a:f]", range.escape_debug());
    let parts: Vec<&str> = range.split(':').collect();
    let (from, to, step) = match parts.as_slice() {
        [from, to] => (*from, *to, 1),
        [from, to, step] => (*from, *to, step.parse::<usize>().map_err(|_| fault())?),
        _ => return Err(fault()),
    };
    if step == 0 {
        return Err(fault());
    }
    if let ([from], [to]) = (from.as_bytes(), to.as_bytes())
        && from.is_ascii_alphabetic()
        && to.is_ascii_alphabetic()
    {
        if from > to {
            return Err(fault());
        }
        let letters = (*from..=*to).step_by(step);
        return Ok(letters
            .map(|letter| char::from(letter).to_string())
            .collect());
    }
    let number = |text: &str| {
        let is_one = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| is_one)
    };
    // Ansible begins at 0 where the range begins with a colon.
    let first = if from.is_empty() {
        0
    } else {
        number(from).ok_or_else(fault)?
    };
    let last = number(to).ok_or_else(fault)?;
    if first > last || (last - first) / step >= HOSTS_MAX {
        return Err(fault());
    }
    let width = if from.starts_with('0') { from.len() } else { 0 };
    Ok((first..=last)
        .step_by(step)
        .map(|number| format!("{number:0width$}"))
        .collect())
}
