//! The one table of tabular operators: what is there, and what is refused by name with the nearest supported form.

/// An operator after a pipe, or one that begins a query.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// One line for the documentation.
    pub doc: &'static str,
}

const fn known(name: &'static str, aliases: &'static [&'static str], doc: &'static str) -> Known {
    Known { name, aliases, doc }
}

/// What the evaluator does.
pub const KNOWN: &[Known] = &[
    known("where", &["filter"], "keeps the rows for which the predicate is true; null counts as false"),
    known("project", &[], "the columns named, in that order"),
    known("project-away", &[], "all columns but those named; `*` as wildcard"),
    known("project-keep", &[], "the columns named, in the table's order; `*` as wildcard"),
    known("project-rename", &[], "new names for columns"),
    known("extend", &[], "more columns; an existing name is replaced"),
    known("summarize", &[], "one row per group; expressions over aggregates, `by` with or without names"),
    known(
        "join",
        &[],
        "kinds innerunique (default), inner, leftouter, rightouter, fullouter, leftsemi, rightsemi, leftanti (anti, leftantisemi), rightanti (rightantisemi); the left side streams",
    ),
    known("sort", &["order"], "`by`, desc unless `asc` is said; nulls first when ascending, last when descending"),
    known("top", &[], "the first rows of an order"),
    known("take", &["limit"], "some rows; here the first ones"),
    known("distinct", &[], "each combination once; `*` for all columns"),
    known("count", &[], "one row with the column Count"),
    known("union", &[], "kind=outer (default) or inner, withsource; no wildcards"),
    known(
        "mv-expand",
        &["mvexpand"],
        "a row per element of arrays and bags, side by side; `to typeof()`, `limit`, kind, with_itemindex",
    ),
    known("print", &[], "one row, as a source"),
    known("datatable", &[], "rows in the query, as a source"),
    known("range", &[], "numbers or moments, as a source"),
    known("let", &[], "values, tables and functions; `view` and `materialize` are read and change nothing"),
];

/// What is refused, and what comes nearest.
pub const REFUSED: &[(&str, &str)] = &[
    ("make-series", "summarize ... by bin() is the nearest"),
    ("parse", "extract() with a regular expression is the nearest"),
    ("parse-where", "extract() with a regular expression and where is the nearest"),
    ("parse-kv", "extract() with a regular expression is the nearest"),
    ("lookup", "join kind=leftouter is the nearest"),
    ("search", "where with contains on a named column is the nearest"),
    ("find", "union and where are the nearest"),
    ("evaluate", "mv-expand and summarize are the nearest; plugins are not there"),
    ("mv-apply", "mv-expand and summarize are the nearest"),
    ("top-nested", "summarize and top are the nearest"),
    ("top-hitters", "summarize count() and top are the nearest"),
    ("sample", "take is the nearest"),
    ("sample-distinct", "distinct and take are the nearest"),
    ("project-reorder", "project is the nearest"),
    ("serialize", "sort is the nearest; window functions are not there"),
    ("scan", "sort and summarize are the nearest"),
    ("partition", "summarize is the nearest"),
    ("reduce", "summarize by extract() is the nearest"),
    ("fork", "one query for each branch is the nearest"),
    ("facet", "one query with summarize for each column is the nearest"),
    ("invoke", "a let function that takes a table is the nearest"),
    ("render", "the rows can be written as CSV or JSON and drawn elsewhere"),
    ("as", "let is the nearest"),
    ("consume", "count is the nearest"),
    ("getschema", "take 0 is the nearest"),
    ("externaldata", "datatable is the nearest"),
    ("make-graph", "join is the nearest"),
    ("graph-match", "join is the nearest"),
    ("assert-schema", "project is the nearest"),
];

/// The operator of this name or alias, under its own name.
pub fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name || known.aliases.contains(&name))
}

/// The sentence for what is not there.
pub fn refusal(name: &str) -> String {
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, nearest)) => format!("{name} is not supported here; {nearest}"),
        None => {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            format!("{name:?} is no operator; the operators are {}", names.join(", "))
        }
    }
}
