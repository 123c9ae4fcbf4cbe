//! Rows as a table for a terminal of 100 columns.

use serde_json::{Map, Value};

use super::agent::COLLECTORS;
use super::check::{Cause, Seen};

/// The widest line.
const WIDTH: usize = 100;

/// The most rows of one table; the caused ones come first.
const MAX_ROWS: usize = 12;

/// The most a column takes; the last one takes what is left.
const MAX_COLUMN: usize = 30;

/// One table per kind: what the demo caused is marked with a star and comes first.
pub fn all(seen: &[Seen], causes: &[Cause]) -> String {
    COLLECTORS.into_iter().map(|kind| one(kind, seen, causes)).collect()
}

fn columns(kind: &str) -> &'static [&'static str] {
    match kind {
        "LocalUsers" => &["UserName", "UserId", "GroupNames", "GroupIds"],
        "ListeningPorts" => &["Protocol", "LocalAddress", "LocalPort", "RemoteAddress", "RemotePort", "Executable"],
        "Login" => &["TimestampLocal", "UserName", "Result", "RemoteAddress", "Executable"],
        _ => &["Executable", "UserId", "CommandLine"],
    }
}

fn one(kind: &str, seen: &[Seen], causes: &[Cause]) -> String {
    let mut rows: Vec<&Seen> =
        seen.iter().filter(|seen| seen.row.raw_event_name == kind && !seen.row.is_empty).collect();
    // A periodic event is a full snapshot, so the newest says it all; a large one is several events of one moment.
    if let Some(newest) = rows.last().filter(|last| last.row.raw_event_category == "Periodic") {
        let moment = newest.row.time_stamp.clone();
        rows.retain(|seen| seen.row.time_stamp == moment);
    }
    let caused = |seen: &Seen| causes.iter().any(|cause| cause.explains(seen));
    rows.sort_by_key(|seen| !caused(seen));
    let head = columns(kind);
    let mut cells = vec![head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    for seen in rows.iter().take(MAX_ROWS) {
        cells.push(head.iter().map(|key| plain(seen.text(key))).collect());
    }
    let marks = std::iter::once(false).chain(rows.iter().map(|seen| caused(seen)));
    format!("\n{kind}\n{}{}", lines(marks, &cells), and_more(rows.len()))
}

/// The rows of a query's answer, some of its columns.
pub fn of_answer(head: &[&str], rows: &[Map<String, Value>]) -> String {
    if rows.is_empty() {
        return "  (no rows)\n".to_owned();
    }
    let mut cells = vec![head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => plain(text),
        Some(Value::Array(items)) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            plain(&items.join(", "))
        }
        Some(value) => value.to_string(),
        None => String::new(),
    };
    for row in rows.iter().take(MAX_ROWS) {
        cells.push(head.iter().map(|key| text(row.get(*key))).collect());
    }
    lines(std::iter::repeat(false), &cells) + &and_more(rows.len())
}

fn and_more(rows: usize) -> String {
    if rows > MAX_ROWS { format!("  ... and {} more\n", rows - MAX_ROWS) } else { String::new() }
}

fn lines(marks: impl Iterator<Item = bool>, cells: &[Vec<String>]) -> String {
    let widths = widths(cells);
    let mut text = String::new();
    for (mark, cells) in marks.zip(cells) {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", cut(cell, *width)));
        let line = format!("{} {}", if mark { '*' } else { ' ' }, cells.collect::<Vec<_>>().join("  "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn widths(cells: &[Vec<String>]) -> Vec<usize> {
    let columns = cells[0].len();
    let widest = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut left = WIDTH - 2;
    let mut widths = Vec::with_capacity(columns);
    for column in 0..columns {
        let most = if column + 1 == columns { left } else { MAX_COLUMN };
        let width = widest(column).min(most);
        left = left.saturating_sub(width + 2);
        widths.push(width);
    }
    widths
}

/// A stranger chose the text: nothing of it may steer the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Leaves out the middle: of a path both ends tell something.
fn cut(text: &str, width: usize) -> String {
    const MARK: &str = "...";
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(MARK.len());
    let (front, back) = (kept.div_ceil(2), kept / 2);
    let end = chars.len() - back;
    chars[..front].iter().chain(MARK.chars().collect::<Vec<_>>().iter()).chain(&chars[end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::Want;
    use super::super::check::tests::seen;
    use super::*;

    #[test]
    fn a_table_is_narrow_short_and_shows_the_caused_rows_first() {
        let mut rows: Vec<Seen> = (0..20)
            .map(|n| {
                seen(
                    "ProcessCreate",
                    &format!(r#"{{"Executable":"/bin/sh","UserId":"0","CommandLine":"sh {n} {}"}}"#, "x".repeat(200)),
                )
            })
            .collect();
        rows.push(seen("ProcessCreate", r#"{"Executable":"/bin/echo","UserId":"0","CommandLine":"\u001b[2Jhi"}"#));
        let cause = Cause {
            what: String::new(),
            kind: "ProcessCreate",
            rows: vec![vec![("Executable", Want::Text("/bin/echo".to_owned()))]],
        };
        let text = one("ProcessCreate", &rows, &[cause]);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines[0], "ProcessCreate");
        assert_eq!(lines[1], "  Executable  UserId  CommandLine");
        assert_eq!(lines[2], "* /bin/echo   0       ?[2Jhi");
        assert_eq!(lines.len(), 2 + MAX_ROWS + 1);
        assert_eq!(lines.last(), Some(&"  ... and 9 more"));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn an_answer_is_a_table_of_its_own_and_says_when_it_is_none() {
        let rows = serde_json::json!([{"User": "a\u{1b}b", "Count": 2, "From": ["192.0.2.1", "192.0.2.2"]}]);
        let rows: Vec<Map<String, Value>> = serde_json::from_value(rows).unwrap();
        let text = of_answer(&["User", "From", "Count"], &rows);
        assert_eq!(text, "  User  From                  Count\n  a?b   192.0.2.1, 192.0.2.2  2\n");
        assert_eq!(of_answer(&["User"], &[]), "  (no rows)\n");
    }

    #[test]
    fn a_long_text_loses_its_middle() {
        assert_eq!(cut("/opt/very/long/way/agent", 13), "/opt/...agent");
        assert_eq!(cut("/opt/agent", 10), "/opt/agent");
        assert_eq!(cut("aäöüaäöü", 5), "a...ü");
    }

    #[test]
    fn all_parts_of_the_newest_snapshot_are_shown_and_no_older_one() {
        let at = |moment: &str, name: &str| {
            let mut row = seen("LocalUsers", &format!(r#"{{"UserName":"{name}"}}"#));
            row.row.raw_event_category = "Periodic".to_owned();
            row.row.time_stamp = moment.to_owned();
            row
        };
        let text = one("LocalUsers", &[at("1", "old"), at("2", "first"), at("2", "second")], &[]);
        assert!(text.contains("first") && text.contains("second") && !text.contains("old"), "{text}");
    }

    #[test]
    fn a_value_may_be_among_the_extra_details() {
        let row = seen(
            "ListeningPorts",
            r#"{"Protocol":"TCP","LocalPort":"22","ExtraDetails":{"Executable":"/usr/sbin/sshd"}}"#,
        );
        assert!(one("ListeningPorts", &[row], &[]).contains("/usr/sbin/sshd"));
    }
}
