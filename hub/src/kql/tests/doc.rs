//! docs/kql.md lists all there is and where it is tried, and nothing there is goes untried.

use std::fmt::Write as _;
use std::path::Path;

use super::{REWRITE, fixtures};
use crate::kql::{aggregates, functions, operators};

const BEGIN: &str =
    "<!-- from the tables of hub/src/kql; rewritten by KQL_REWRITE=1 cargo test -p edgewarden-hub kql -->\n";
const END: &str = "<!-- end -->\n";

/// The queries of the cases, by file.
fn queries() -> Vec<(String, Vec<String>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".txt") && name != "faults.txt" {
            let text = std::fs::read_to_string(&entry).unwrap();
            let cases = text.split("====\n").filter_map(|case| case.split_once("----\n"));
            files.push((name, cases.map(|(query, _)| query.to_owned()).collect()));
        }
    }
    files.sort();
    files
}

/// How many cases use the name, and in which file most of them are.
fn tried(files: &[(String, Vec<String>)], uses: &dyn Fn(&str) -> bool) -> Option<String> {
    let counts = files.iter().map(|(file, queries)| (queries.iter().filter(|query| uses(query)).count(), file));
    let (most, file) = counts.max_by_key(|(count, _)| *count)?;
    (most > 0).then(|| format!("{file}, {most}"))
}

/// Whether the name stands in the query as a word of its own, followed by the other text.
fn word(query: &str, name: &str, then: &str) -> bool {
    query.match_indices(name).any(|(at, _)| {
        let before = query[..at].chars().next_back();
        let joined = |char: char| char.is_alphanumeric() || "_-!~<>=".contains(char);
        let starts_word = name.starts_with(|char: char| char.is_alphanumeric());
        (!starts_word || !before.is_some_and(joined)) && query[at + name.len()..].starts_with(then)
    })
}

fn row(out: &mut String, name: &str, aliases: &[&str], doc: &str, tried: Option<String>) {
    let mut names = format!("`{}`", name.replace('|', "\\|"));
    for alias in aliases {
        write!(names, ", `{alias}`").unwrap();
    }
    let tried = tried.unwrap_or_else(|| panic!("{name} is in no case of tests/fixtures/kql"));
    writeln!(out, "| {names} | {doc} | {tried} |").unwrap();
}

fn tables() -> String {
    let files = queries();
    let mut out = String::from("\n### Operators\n\n| operator | does | tried in, cases |\n| --- | --- | --- |\n");
    for known in operators::KNOWN {
        for name in known.aliases {
            assert!(tried(&files, &|query| word(query, name, " ")).is_some(), "{name} is in no case");
        }
        let uses = |query: &str| word(query, known.name, "");
        row(&mut out, known.name, known.aliases, known.doc, tried(&files, &uses));
    }
    out += "\n### Aggregates, in summarize\n\n| aggregate | gives | tried in, cases |\n| --- | --- | --- |\n";
    for alias in functions::all().flat_map(|function| function.aliases) {
        assert!(tried(&files, &|query| word(query, alias, "(")).is_some(), "{alias}() is in no case");
    }
    for aggregate in aggregates::ALL {
        let uses = |query: &str| word(query, aggregate.name, "(");
        row(&mut out, aggregate.name, &[], aggregate.doc, tried(&files, &uses));
    }
    out += "\n### Functions, and operators between values\n\n| function | gives | tried in, cases |\n| --- | --- | --- |\n";
    for function in functions::all() {
        let (shown, sign, then) = match function.name {
            "negate" => ("- (sign)", "= -", ""),
            "[]" => ("a.b, a[b]", ").a", ""),
            name if name.starts_with(|char: char| char.is_alphabetic()) && !IS_WORD.contains(&name) => {
                (name, name, "(")
            }
            name => (name, name, " "),
        };
        row(&mut out, shown, function.aliases, function.doc, tried(&files, &|query| word(query, sign, then)));
    }
    for (name, doc) in SYNTAX {
        row(&mut out, name, &[], doc, tried(&files, &|query| word(query, name, " ")));
    }
    out += "\n### Refused by name\n\nOperators: ";
    let refused =
        |list: &[(&str, &str)]| list.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    writeln!(out, "{}.\n\nFunctions: {}.\n", refused(operators::REFUSED), refused(functions::REFUSED)).unwrap();
    out
}

/// Functions that are written as words between values.
const IS_WORD: &[&str] = &[
    "between",
    "contains",
    "contains_cs",
    "startswith",
    "startswith_cs",
    "endswith",
    "endswith_cs",
    "has",
    "has_cs",
    "hasprefix",
    "hasprefix_cs",
    "hassuffix",
    "hassuffix_cs",
    "matches regex",
];

/// What the parser itself knows.
const SYNTAX: &[(&str, &str)] = &[
    ("and", "true when both are true, else false; null counts as false"),
    ("or", "true when one is true, else false"),
    ("in", "equal to one of a list, of an array's items, or of a table's first column"),
    ("!in", "the opposite of in"),
    ("in~", "in, case aside"),
    ("!in~", "the opposite of in~"),
    ("has_any", "has one of the terms"),
    ("has_all", "has all of the terms"),
];

#[test]
fn the_documentation_lists_all_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kql.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
    } else {
        assert!(listed == tables, "docs/kql.md is not what the tables of hub/src/kql say; KQL_REWRITE=1 rewrites it");
    }
}
