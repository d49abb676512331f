//! Variables in paths. Apache RocketMQ takes `${ROCKETMQ_HOME}` literally and so makes a directory
//! of that name; where such a store exists it is used on, everywhere else the variable is expanded.

use std::path::Path;

/// What a path from a file became.
#[derive(Debug, PartialEq, Eq)]
pub enum Expanded {
    /// It has no variables.
    Plain,
    /// A store lies under the literal name.
    Literal,
    To(String),
}

/// Replaces `~/`, `$NAME` and `${NAME}`; the error is the name of a variable that is not set.
pub fn expand(
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    holds_files: &dyn Fn(&Path) -> bool,
) -> Result<Expanded, String> {
    if !path.contains('$') && !path.starts_with("~/") {
        return Ok(Expanded::Plain);
    }
    if holds_files(Path::new(path)) {
        return Ok(Expanded::Literal);
    }
    let value = |name: &str| variable(name).ok_or_else(|| name.to_owned());
    let mut rest = path;
    let mut expanded = String::new();
    if let Some(below_home) = path.strip_prefix('~').filter(|rest| rest.starts_with('/')) {
        expanded.push_str(&value("HOME")?);
        rest = below_home;
    }
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, after) = name(after);
        match name {
            Some(name) => expanded.push_str(&value(name)?),
            None => expanded.push('$'),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Expanded::To(expanded))
}

/// Splits what follows a `$` into a name and the rest.
fn name(text: &str) -> (Option<&str>, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return (Some(name), rest);
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (Some(name).filter(|name| !name.is_empty()), rest)
}

/// Whether a directory is there and not empty.
pub fn holds_files(path: &Path) -> bool {
    path.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

/// Lengths of segments `depth` directories below `path`, of the first thousand or so: a broker may
/// have a hundred thousand queues. Empty files, which a crash leaves, say nothing.
pub fn segment_lens(path: &Path, depth: usize) -> Vec<u64> {
    const ENOUGH: usize = 1000;
    let Ok(entries) = path.read_dir() else { return Vec::new() };
    let mut lens = Vec::new();
    for entry in entries.flatten() {
        if ENOUGH <= lens.len() {
            break;
        }
        if depth != 0 {
            lens.extend(segment_lens(&entry.path(), depth - 1));
            continue;
        }
        let name = entry.file_name();
        let is_segment = name.len() == 20 && name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let len = entry.metadata().ok().filter(|it| it.is_file() && is_segment).map(|it| it.len());
        lens.extend(len.filter(|len| *len != 0));
    }
    lens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        (name != "UNSET").then(|| format!("/{}", name.to_lowercase()))
    }

    fn to(path: &str) -> Result<Expanded, String> {
        expand(path, &variable, &|_| false)
    }

    #[test]
    fn variables_are_expanded() {
        assert_eq!(to("/data/store"), Ok(Expanded::Plain));
        assert_eq!(to("${ROCKETMQ_HOME}/s"), Ok(Expanded::To("/rocketmq_home/s".into())));
        assert_eq!(to("$HOME/s"), Ok(Expanded::To("/home/s".into())));
        assert_eq!(to("~/s"), Ok(Expanded::To("/home/s".into())));
        assert_eq!(to("a$/b"), Ok(Expanded::To("a$/b".into())));
        assert_eq!(to("${UNSET}/s"), Err("UNSET".into()));
    }

    #[test]
    fn a_store_under_the_literal_name_is_used_on() {
        assert_eq!(expand("${UNSET}/s", &variable, &|_| true), Ok(Expanded::Literal));
    }
}
