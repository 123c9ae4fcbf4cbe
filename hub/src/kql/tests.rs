mod doc;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::value::{Type, Value};
use super::*;

/// 2026-11-24T12:00:00Z
const NOW: &str = "2026-11-24T12:00:00Z";

/// Set to rewrite what is expected by what is; read the difference before you keep it.
const REWRITE: &str = "KQL_REWRITE";

/// Tables in memory.
#[derive(Default)]
pub struct Tables(BTreeMap<String, (Vec<Column>, Vec<Vec<Value>>)>);

impl Schema for Tables {
    fn columns(&self, table: &str) -> Option<Vec<Column>> {
        self.0.get(table).map(|(columns, _)| columns.clone())
    }

    fn tables(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl Source for Tables {
    fn scan(&self, scan: &Scan, visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>) -> Result<(), Stop> {
        for row in &self.0[scan.table].1 {
            // Who looks at a column that was not asked for must not find anything.
            let row: Vec<_> = row
                .iter()
                .zip(scan.needed)
                .map(|(cell, needed)| if *needed { cell.clone() } else { Value::Null })
                .collect();
            if !visit(&row)? {
                break;
            }
        }
        Ok(())
    }
}

fn now() -> i64 {
    time::parse_datetime(NOW).unwrap()
}

/// The tables of the cases: rows of `SecurityIoTRawEvent` and of `SecurityAlert`, from files.
fn tables() -> Tables {
    let mut tables = Tables::default();
    for (name, columns) in [("SecurityIoTRawEvent", RAW), ("SecurityAlert", ALERT)] {
        let columns: Vec<Column> = columns.iter().map(|(name, ty)| Column::new(name, *ty)).collect();
        let text = std::fs::read_to_string(fixtures().join(format!("{name}.jsonl"))).unwrap();
        let env = functions::Env::new(0);
        let rows = text.lines().map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let cell = |column: &Column| {
                let value = match &row[column.name.as_ref()] {
                    // The details are written as JSON in the file and are text in the table.
                    details @ serde_json::Value::Object(_) => Value::text(&details.to_string()),
                    value => Value::dynamic(value.clone()),
                };
                functions::convert_constant(&value, column.ty, &env)
            };
            columns.iter().map(cell).collect()
        });
        let rows = rows.collect();
        tables.0.insert(name.to_owned(), (columns, rows));
    }
    tables
}

const RAW: &[(&str, Type)] = &[
    ("TimeGenerated", Type::DateTime),
    ("AssociatedResourceId", Type::String),
    ("DeviceId", Type::String),
    ("EventDetails", Type::String),
    ("IsEmpty", Type::Bool),
    ("RawEventName", Type::String),
    ("TimeStamp", Type::DateTime),
];

const ALERT: &[(&str, Type)] = &[
    ("TimeGenerated", Type::DateTime),
    ("AlertName", Type::String),
    ("AlertSeverity", Type::String),
    ("Description", Type::String),
    ("ExtendedProperties", Type::String),
    ("ResourceId", Type::String),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/kql")
}

/// The answer as a case writes it: the columns with their types, then a JSON array a row; or what is wrong.
fn answer(query: &str, tables: &Tables, limits: Limits) -> String {
    let plan = match compile(query, tables, now()) {
        Ok(plan) => plan,
        Err(fault) => return format!("! {fault}\n"),
    };
    let columns: Vec<_> = plan.columns().iter().map(|column| format!("{}:{}", column.name, column.ty.name())).collect();
    let mut out = columns.join(", ") + "\n";
    let done = plan.run(tables, limits, &mut |row| {
        let cells: Vec<_> = row.iter().map(Value::to_json).collect();
        writeln!(out, "{}", serde_json::Value::Array(cells)).unwrap();
        for (cell, column) in row.iter().zip(plan.columns()) {
            assert_typed(cell, column, query);
        }
        Ok(true)
    });
    if let Err(stop) = done {
        writeln!(out, "! {stop}").unwrap();
    }
    out
}

/// The static type is the truth.
fn assert_typed(cell: &Value, column: &Column, query: &str) {
    let fits = match cell {
        Value::Null => column.ty != Type::String,
        Value::Bool(_) => column.ty == Type::Bool,
        Value::Long(_) => column.ty.is_integer(),
        Value::Real(_) => column.ty == Type::Real,
        Value::Str(_) => column.ty == Type::String,
        Value::DateTime(_) => column.ty == Type::DateTime,
        Value::TimeSpan(_) => column.ty == Type::TimeSpan,
        Value::Guid(_) => column.ty == Type::Guid,
        Value::Dynamic(_) => column.ty == Type::Dynamic,
    };
    assert!(fits, "{cell:?} in the column {column:?} of {query}");
}

fn limits() -> Limits {
    Limits { memory_bytes: 64 << 20, time: Duration::from_mins(5) }
}

/// Runs every case of a file: a query, `----`, its answer, `====`.
fn cases(file: &Path, tables: &Tables) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    let mut rewritten = String::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in text.split("====\n").filter(|case| !case.trim().is_empty()) {
        let (query, expected) = case.split_once("----\n").unwrap_or((case, ""));
        let found = answer(query, tables, limits());
        if found != expected {
            wrong.push(format!("{query}expected:\n{expected}found:\n{found}"));
        }
        write!(rewritten, "{query}----\n{found}====\n").unwrap();
        count += 1;
    }
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(file, rewritten).unwrap();
    } else {
        assert!(wrong.is_empty(), "{}: {} of {count} cases:\n{}", file.display(), wrong.len(), wrong.join("\n"));
    }
    count
}

#[test]
fn every_case_of_the_files_gives_what_it_says() {
    let tables = tables();
    let mut files: Vec<_> = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    let count: usize = files.iter().map(|file| cases(file, &tables)).sum();
    assert!(count >= 200, "only {count} cases");
}

/// The investigation guide's five queries, byte for byte, with answers that were worked out by hand.
#[test]
fn the_guides_queries_run_as_they_are() {
    let tables = tables();
    for name in ["1_related_alerts", "2_users_with_access", "3_open_ports", "4_user_logins", "5_process_list"] {
        let query = std::fs::read_to_string(fixtures().join(format!("guide/{name}.kql"))).unwrap();
        let expected = std::fs::read_to_string(fixtures().join(format!("guide/{name}.expected"))).unwrap();
        assert_eq!(answer(&query, &tables, limits()), expected, "{name}");
    }
}

#[test]
fn what_does_not_fit_into_the_limits_is_said() {
    let tables = tables();
    let small = Limits { memory_bytes: 1 << 20, time: Duration::from_mins(5) };
    for query in [
        "range x from 1 to 1000000 step 1 | sort by x",
        "range x from 1 to 1000000 step 1 | distinct x",
        "range x from 1 to 1000000 step 1 | summarize count() by x",
        "range x from 1 to 1000000 step 1 | summarize make_list(x)",
        "range x from 1 to 1000000 step 1 | summarize dcount(x)",
        "print x = 1 | join (range x from 1 to 1000000 step 1) on x",
        "print x = 1 | where x in (range x from 1 to 1000000 step 1)",
    ] {
        let answer = answer(query, &tables, small);
        assert!(answer.contains("! the query keeps more rows at a time than fit into its 1 MiB"), "{query}: {answer}");
    }
    let streaming = "range x from 1 to 100000 step 1 | extend y = strcat(x, 'a') | where y has 'b' | count";
    assert_eq!(answer(streaming, &tables, small), "Count:long\n[0]\n");
    assert!(answer("range x from 1 to 100000 step 1 | top 3 by x | count", &tables, small).ends_with("[3]\n"));
    let hasty = Limits { memory_bytes: 1 << 20, time: Duration::ZERO };
    let answer = answer("range x from 1 to 1000000 step 1 | count", &tables, hasty);
    assert!(answer.contains("! the query took more than its 0 s"), "{answer}");
}

/// What the sources are asked for: the rows and columns that matter, found through other operators.
#[test]
fn filters_and_columns_reach_the_source() {
    let tables = tables();
    let asked = |query: &str| {
        let log = Log { tables: &tables, asked: RefCell::default() };
        let plan = compile(query, &tables, now()).unwrap();
        plan.run(&log, limits(), &mut |_| Ok(true)).unwrap();
        log.asked.into_inner()
    };
    let raw = "SecurityIoTRawEvent | ";
    for (query, expected) in [
        ("where DeviceId == 'a' | project EventDetails", "DeviceId EventDetails: DeviceId Equal a"),
        ("count", ": "),
        ("where DeviceId == 'a' and RawEventName == 'b' or IsEmpty | count", "DeviceId IsEmpty RawEventName: "),
        (
            "where 'a' == DeviceId | where TimeStamp >= ago(1d) | count",
            "DeviceId TimeStamp: DeviceId Equal a, TimeStamp AtLeast 2026-11-23T12:00:00.0000000Z",
        ),
        (
            "extend x = strlen(EventDetails) | where DeviceId == 'a' and x > 1 | project x",
            "DeviceId EventDetails: DeviceId Equal a",
        ),
        ("extend DeviceId = tolower(DeviceId) | where DeviceId == 'a' | count", "DeviceId: "),
        ("project d = DeviceId, e = EventDetails | where d == 'a' | project d", "DeviceId: DeviceId Equal a"),
        ("sort by TimeStamp | where DeviceId == 'a' | project DeviceId", "DeviceId TimeStamp: DeviceId Equal a"),
        ("take 5 | where DeviceId == 'a' | project DeviceId", "DeviceId: "),
        (
            "where TimeStamp between (ago(2h) .. ago(1h)) | count",
            "TimeStamp: TimeStamp AtLeast 2026-11-24T10:00:00.0000000Z, TimeStamp AtMost 2026-11-24T11:00:00.0000000Z",
        ),
        (
            "where RawEventName in ('b', 'a') and DeviceId !in ('c') | count",
            r#"DeviceId RawEventName: RawEventName OneOf ["a","b"]"#,
        ),
        ("where RawEventName in~ ('a') | count", "RawEventName: "),
        ("summarize max(TimeStamp) by DeviceId | where DeviceId == 'a'", "DeviceId TimeStamp: "),
        (
            "project DeviceId, EventDetails | union (print DeviceId = 'b') | where DeviceId == 'a' | count",
            "DeviceId: DeviceId Equal a",
        ),
        ("project DeviceId, IsEmpty | join kind=leftsemi (print DeviceId = 'b') on DeviceId | count", "DeviceId: "),
    ] {
        assert_eq!(asked(&format!("{raw}{query}")), [expected], "{query}");
    }
}

/// Tables that note what they are asked for: columns, then filters.
struct Log<'a> {
    tables: &'a Tables,
    asked: RefCell<Vec<String>>,
}

impl Source for Log<'_> {
    fn scan(&self, scan: &Scan, visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>) -> Result<(), Stop> {
        let columns = self.tables.columns(scan.table).unwrap();
        let needed: Vec<_> =
            columns.iter().zip(scan.needed).filter(|(_, needed)| **needed).map(|(c, _)| &*c.name).collect();
        let filters = scan
            .filters
            .iter()
            .map(|filter| format!("{} {:?} {}", columns[filter.column].name, filter.compare, filter.value.to_text()));
        let filters: Vec<_> = filters.collect();
        self.asked.borrow_mut().push(format!("{}: {}", needed.join(" "), filters.join(", ")));
        self.tables.scan(scan, visit)
    }
}

/// Names that stand for names, deep nesting, long chains: refused with a sentence, whatever their size.
#[test]
fn no_query_is_too_clever() {
    let tables = tables();
    let doubled = |n: usize| {
        let lets: String =
            (1..n).map(|n| format!("let f{n} = (x:long) {{ f{}(x) + f{}(x) }};", n - 1, n - 1)).collect();
        format!("let f0 = (x:long) {{ x + 1 }};{lets} range x from 1 to 2 step 1 | extend y = f{}(x)", n - 1)
    };
    let unions: String = (1..60).map(|n| format!("let T{n} = union T{}, T{};", n - 1, n - 1)).collect();
    let grown = (0..40).fold("print a = 'aaaaaaaa'".to_owned(), |query, _| query + " | extend a = strcat(a, a)");
    let packed = (0..40).fold("print a = dynamic([1])".to_owned(), |query, _| query + " | extend a = pack_array(a, a)");
    for query in [
        format!("print {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("print {}1", "-".repeat(100_000)),
        format!("print {}true{}", "not(".repeat(100_000), ")".repeat(100_000)),
        format!("print 1{}", " + 1".repeat(100_000)),
        format!("print dynamic({}1{})", "[".repeat(100_000), "]".repeat(100_000)),
        format!("print x{}", ".a".repeat(100_000)),
        format!("print 1{}", "| take 1".repeat(100_000)),
        format!("{}print 1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("print 1 in {}", "(print 1 in ".repeat(10_000)),
        doubled(40),
        format!("let T0 = print x = 1;{unions} T59"),
        grown,
        packed,
        "print x = replace_string(strcat('aaaaaaaaaaaaaaaaaaaaaa', 'a'), 'a', h'')".repeat(10_000),
        format!("print '{}' matches regex '(a{{1000}}){{1000}}'", "a"),
    ] {
        let answer = answer(&query, &tables, limits());
        assert!(answer.contains("! "), "{}: {}", &query[..60.min(query.len())], &answer[..100.min(answer.len())]);
    }
}

/// What is just within the bounds runs on a small stack, that of a test's thread.
#[test]
fn large_queries_within_the_bounds_run() {
    let tables = tables();
    let chain = |link: &str| format!("range x from 1 to 3 step 1 | where x == 0{} | count", link.repeat(2_400));
    assert_eq!(answer(&chain(" or x == 2"), &tables, limits()), "Count:long\n[1]\n");
    let sum = format!("range x from 1 to 3 step 1 | extend y = x{}| where y == 61", " + x".repeat(60));
    assert_eq!(answer(&sum, &tables, limits()), "x:long, y:long\n[1,61]\n");
    let nested = format!("range x from 1 to 1 step 1 | extend y = {}x{}", "abs(".repeat(61), ")".repeat(61));
    assert_eq!(answer(&nested, &tables, limits()), "x:long, y:long\n[1,1]\n");
    let lets: String = (1..80).map(|n| format!("let f{n} = (x:long) {{ f{}(x) + 1 }};", n - 1)).collect();
    let calls = format!("let f0 = (x:long) {{ x }};{lets} range x from 1 to 1 step 1 | project y = f79(x)");
    assert_eq!(answer(&calls, &tables, limits()), "y:long\n[80]\n");
    let tables_of_tables: String =
        (1..90).map(|n| format!("let T{n} = T{} | extend x = x + 1 | where x > 0;", n - 1)).collect();
    let piped = format!("let T0 = range x from 1 to 1 step 1;{tables_of_tables} T89");
    assert_eq!(answer(&piped, &tables, limits()), "x:long\n[90]\n");
    let wrapped = |before: &str, after: &str, n: usize| {
        let query = format!("{}print x = 1{}", before.repeat(n), after.repeat(n));
        answer(&query, &tables, limits())
    };
    assert_eq!(wrapped("print x = 1 | join kind=leftsemi (", ") on x", 60), "x:long\n[1]\n");
    assert_eq!(wrapped("union (", "), (print x = 1)", 30).lines().count(), 32);
    assert_eq!(wrapped("print x = toscalar(", ")", 30), "x:long\n[1]\n");
    assert_eq!(wrapped("print x = 1 | where x in (", ")", 20), "x:long\n[1]\n");
    assert_eq!(wrapped("(", ") | extend x = x", 60), "x:long\n[1]\n");
}

/// Cases cut, doubled and mixed at random, always the same ones: no panic, and a fault lies inside the text.
#[test]
fn mangled_queries_are_refused_or_run() {
    let tables = tables();
    let mut random = fastrand::Rng::with_seed(20_261_124);
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "txt") {
            let text = std::fs::read_to_string(entry).unwrap();
            queries.extend(
                text.split("====\n").filter_map(|case| case.split_once("----\n")).map(|(query, _)| query.to_owned()),
            );
        }
    }
    queries.sort();
    for _ in 0..20_000 {
        let mut query: Vec<char> = random.choice(&queries).unwrap().chars().collect();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..=query.len());
            match random.u8(0..4) {
                0 => query.truncate(at),
                1 => query.insert(
                    at,
                    *random
                        .choice(&['(', ')', '|', '"', '\'', '.', '[', ']', '{', '-', '~', '!', 'é', '\0', '9', '$'])
                        .unwrap(),
                ),
                2 if at < query.len() => drop(query.remove(at)),
                _ => {
                    let other: Vec<char> = random.choice(&queries).unwrap().chars().collect();
                    query.splice(at..at, other.into_iter().take(random.usize(0..30)));
                }
            }
        }
        let query: String = query.into_iter().take(2000).collect();
        match compile(&query, &tables, now()) {
            Err(fault) => {
                assert!(fault.line <= query.matches('\n').count() + 1 && !fault.message.is_empty(), "{query}: {fault}")
            }
            Ok(plan) => {
                let tiny = Limits { memory_bytes: 1 << 16, time: Duration::from_millis(20) };
                let mut rows = 0;
                drop(plan.run(&tables, tiny, &mut |_| {
                    rows += 1;
                    Ok(rows < 50)
                }));
            }
        }
    }
}
