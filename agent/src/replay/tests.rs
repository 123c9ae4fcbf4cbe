//! Whole files in, rows out, as the command prints them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;
use crate::output::Format;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What the files become, in the order they are given.
fn replayed(files: &[PathBuf], passwd: Option<&str>, format: Format) -> (String, Vec<String>) {
    let printer = Printer {
        format,
        device_id: "replay".to_owned(),
        agent_id: Uuid::nil(),
        max_message_bytes: 8192,
        zone: TimeZone::UTC,
    };
    let mut replay = Replay::new(printer, passwd.map(accounts::uids), Vec::new());
    let mut refused = Vec::new();
    let cases: Vec<_> = files.iter().map(|file| replay.look_into(file)).collect();
    for case in cases {
        match case.and_then(|case| replay.file(&case)) {
            Ok(()) => {}
            Err(Problem::File(why) | Problem::Output(why)) => refused.push(why),
        }
    }
    replay.end().unwrap();
    (String::from_utf8(replay.out).unwrap(), refused)
}

fn rows(files: &[PathBuf], passwd: Option<&str>) -> Vec<Value> {
    let (text, refused) = replayed(files, passwd, Format::Details);
    assert_eq!(refused, Vec::<String>::new());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A file that was last written to at a time.
fn written(directory: &Path, name: &str, bytes: &[u8], seconds: u64) -> PathBuf {
    let path = directory.join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    path
}

/// 2026-11-24T12:00:00Z.
const NOVEMBER: u64 = 1_795_521_600;

fn numbers(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["ExtraDetails"]["SourceLine"].as_str().unwrap()).collect()
}

/// Compares with rows that were looked through by hand; `WRITE_GOLDEN=1` writes them anew. The path of the file, which
/// differs from machine to machine, is left out.
fn check_golden(name: &str, mut rows: Vec<Value>) {
    for row in &mut rows {
        let file = row["ExtraDetails"].as_object_mut().unwrap().shift_remove("SourceFile").unwrap();
        assert!(file.is_string());
    }
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = repository("tests/fixtures/replay").join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (row, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(row, expected, "{name}");
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name}");
}

#[test]
fn a_log_without_years_is_dated_numbered_and_kept_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let log = fs::read(repository("tests/fixtures/replay/yearless.log")).unwrap();
    let path = written(directory.path(), "auth.log", &log, NOVEMBER);
    check_golden("yearless.golden.jsonl", rows(&[path], None));
}

#[test]
fn shapes_of_old_daemons_give_an_attempt_a_row() {
    for name in ["openssh-6.6", "pam-only"] {
        let directory = tempfile::tempdir().unwrap();
        let log = fs::read(repository("tests/fixtures/replay").join(format!("{name}.log"))).unwrap();
        let path = written(directory.path(), "messages", &log, NOVEMBER);
        check_golden(&format!("{name}.golden.jsonl"), rows(&[path], None));
    }
}

#[test]
fn what_pam_tells_is_no_attempt_where_the_handler_tells_it_in_any_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let of_pam = fs::read(repository("tests/fixtures/replay/pam-only.log")).unwrap();
    let messages = written(directory.path(), "messages", &of_pam, NOVEMBER);
    let line = "Jun 14 15:16:03 combo sshd[19939]: Failed password for root from 203.0.113.4 port 9 ssh2\n";
    let secure = written(directory.path(), "secure", line.as_bytes(), NOVEMBER);
    let of_ssh = |files: &[PathBuf]| {
        let found = rows(files, None);
        found.iter().filter(|row| row["Executable"] == "/usr/sbin/sshd").count()
    };
    assert_eq!(of_ssh(std::slice::from_ref(&messages)), 5);
    assert_eq!(of_ssh(&[messages, secure]), 1);
}

#[test]
fn logs_of_genuine_daemons_give_an_attempt_a_row_with_its_line() {
    for name in ["debian11", "debian12", "debian13"] {
        let log = fs::read(repository("tests/fixtures/logins").join(format!("{name}.log"))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), "auth.log", &log, NOVEMBER);
        check_golden(&format!("{name}.golden.jsonl"), rows(&[path], None));
    }
    let journal = repository("tests/fixtures/logins/debian13-journal.json");
    check_golden("debian13-journal.golden.jsonl", rows(&[journal], None));
}

#[test]
fn a_packed_log_is_the_same_log_and_dated_by_what_gzip_kept() {
    let directory = tempfile::tempdir().unwrap();
    let line = "Nov 24 02:53:51 vm sshd[77]: Failed password for root from 192.0.2.1 port 22 ssh2\n";
    let mut packer = flate2::GzBuilder::new().mtime(1_447_000_000).write(Vec::new(), Compression::default());
    packer.write_all(line.as_bytes()).unwrap();
    let mut bytes = packer.finish().unwrap();
    // Files that were packed apart and put together are one log.
    let mut second = GzEncoder::new(Vec::new(), Compression::default());
    second.write_all(line.as_bytes()).unwrap();
    bytes.extend(second.finish().unwrap());
    let path = written(directory.path(), "auth.log.2.gz", &bytes, NOVEMBER);
    let found = rows(&[path], None);
    assert_eq!(numbers(&found), ["1", "2"]);
    // 2015-11-08, before the 24th.
    assert_eq!(found[0]["TimestampUTC"], "2014-11-24T02:53:51.000Z");

    bytes.truncate(bytes.len() - 10);
    let path = written(directory.path(), "cut.gz", &bytes, NOVEMBER);
    let (text, refused) = replayed(&[path], None, Format::Details);
    assert_eq!((text.lines().count(), refused.len()), (1, 1), "{text} {refused:?}");
    assert!(refused[0].contains("to its end"), "{refused:?}");
}

#[test]
fn a_connection_goes_on_in_the_next_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = "2026-11-24T02:53:54+00:00 vm sshd[7]: Failed password for bob from 192.0.2.7 port 1 ssh2\n";
    let second = "2026-11-24T02:53:55+00:00 vm sshd[7]: Connection closed by authenticating user bob 192.0.2.7 port 1 [preauth]\n";
    let older = written(directory.path(), "auth.log.1", first.as_bytes(), NOVEMBER);
    let newer = written(directory.path(), "auth.log", second.as_bytes(), NOVEMBER);
    assert_eq!(rows(&[older.clone(), newer.clone()], None).len(), 1);
    assert_eq!(rows(&[newer, older], None).len(), 2);
}

#[test]
fn a_name_that_no_line_of_any_file_answers_is_an_attempt_by_its_own_line() {
    let directory = tempfile::tempdir().unwrap();
    let first = "Nov 24 10:00:00 h sshd[7]: Invalid user oracle from 192.0.2.1 port 9\n\
                 Nov 24 10:00:01 h sshd[8]: Invalid user pi from 192.0.2.2 port 9\n";
    let second = "Nov 24 10:00:02 h sshd[7]: Failed password for invalid user oracle from 192.0.2.1 port 9 ssh2\n";
    let files = [first, second].map(|text| {
        written(directory.path(), if text == first { "auth.log.1" } else { "auth.log" }, text.as_bytes(), NOVEMBER)
    });
    let rows = rows(&files, None);
    let place = |row: &Value| {
        let file = row["ExtraDetails"]["SourceFile"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let [line, typed] = ["SourceLine", "AttemptedUserName"].map(|key| row["ExtraDetails"][key].clone());
        (file, line, typed, row["TimestampUTC"].clone())
    };
    let expected =
        |file: &str, line: &str, typed: &str, at: &str| (file.to_owned(), json!(line), json!(typed), json!(at));
    assert_eq!(
        rows.iter().map(place).collect::<Vec<_>>(),
        [
            expected("auth.log", "1", "oracle", "2026-11-24T10:00:02.000Z"),
            expected("auth.log.1", "2", "pi", "2026-11-24T10:00:01.000Z"),
        ]
    );
}

#[test]
fn local_time_is_that_of_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let line = "2026-11-24T02:53:54+01:00 vm sshd[7]: Failed password for bob from 192.0.2.7 port 1 ssh2\n";
    let found = rows(&[written(directory.path(), "auth.log", line.as_bytes(), NOVEMBER)], None);
    assert_eq!(found[0]["TimestampLocal"], "2026-11-24T02:53:54.000+01:00");
    assert_eq!(found[0]["TimestampUTC"], "2026-11-24T01:53:54.000Z");
}

#[test]
fn accounts_are_those_of_the_image_or_of_its_logs_and_never_of_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let log = "2026-11-24T02:53:54+00:00 vm sshd[7]: Accepted password for daemon from 192.0.2.7 port 1 ssh2
2026-11-24T02:53:54+00:00 vm sshd[7]: Accepted password for bob from 192.0.2.7 port 2 ssh2
2026-11-24T02:53:54+00:00 vm sshd[7]: pam_unix(sshd:session): session opened for user bob(uid=1005) by (uid=0)
";
    let path = written(directory.path(), "auth.log", log.as_bytes(), NOVEMBER);
    let uids =
        |passwd| rows(std::slice::from_ref(&path), passwd).iter().map(|row| row["UserId"].clone()).collect::<Vec<_>>();
    assert_eq!(uids(None), [Value::Null, "1005".into()]);
    assert_eq!(uids(Some("daemon:x:77:1::/:/bin/sh\n")), ["77".into(), Value::Null]);
}

#[test]
fn replaying_twice_gives_the_same_bytes_in_every_format() {
    let log = repository("tests/fixtures/logins/debian13.log");
    for format in [Format::Details, Format::Row, Format::Envelope] {
        let once = replayed(std::slice::from_ref(&log), None, format);
        assert!(!once.0.is_empty());
        assert_eq!(once, replayed(std::slice::from_ref(&log), None, format));
    }
}

#[test]
fn damaged_and_foreign_files_do_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let good = "2026-11-24T02:53:54+00:00 vm sshd[7]: Failed password for bob from 192.0.2.7 port 1 ssh2";
    let mut log = b"no log\n\0\0\0".to_vec();
    log.extend(good.as_bytes());
    log.push(b'\n');
    log.extend(vec![b'x'; 1_000_000]);
    log.extend(b"\n\xff\xfe\n");
    log.extend(good.as_bytes());
    let files = [
        written(directory.path(), "empty", b"", NOVEMBER),
        written(directory.path(), "wtmp.db", b"SQLite format 3\0....", NOVEMBER),
        written(directory.path(), "lastlog", &[0; 292 * 20], NOVEMBER),
        directory.path().join("not-there"),
        directory.path().to_path_buf(),
        written(directory.path(), "auth.log", &log, NOVEMBER),
    ];
    let (text, refused) = replayed(&files, None, Format::Details);
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(refused[0].contains("wtmpdb") && refused[1].contains("lastlog"), "{refused:?}");
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers(&found), ["2", "5"]);
}

/// A record in the form of x86 and arm.
fn record(kind: u8, pid: u32, line: &str, id: &str, user: &[u8], host: &str, seconds: u32) -> Vec<u8> {
    let mut bytes = vec![0; 384];
    let mut put = |at: usize, text: &[u8]| bytes[at..at + text.len()].copy_from_slice(text);
    put(0, &[kind]);
    put(4, &pid.to_le_bytes());
    put(8, line.as_bytes());
    put(40, id.as_bytes());
    put(44, user);
    put(76, host.as_bytes());
    put(340, &seconds.to_le_bytes());
    bytes
}

const AT: u32 = 1_795_488_000;

#[test]
fn a_btmp_gives_an_attempt_a_row_however_often_it_was_written() {
    let ssh = |pid, user: &[u8], seconds| record(6, pid, "ssh:notty", "", user, "192.0.2.7", AT + seconds);
    let mut bytes = [
        ssh(10, b"tester", 0),
        // The name is no account: once when it is named, and for each of two passwords.
        ssh(11, b"nosuch", 5),
        ssh(11, b"nosuch", 7),
        ssh(11, b"nosuch", 9),
        ssh(12, b"root", 20),
        ssh(12, b"root", 22),
        ssh(11, b"nosuch", 2000),
        record(7, 13, "tty1", "1", b"UNKNOWN", "", AT + 3000),
        record(7, 13, "tty1", "1", b"tester", "", AT + 3000),
        record(6, 14, "pts/3", "3", b"hunter2", "203.0.113.5", AT + 3000),
        // su
        record(6, 15, "", "", b"root", "", AT + 3000),
        ssh(16, b"a\x1b[31m", 3001),
    ]
    .concat();
    bytes.extend([7; 100]);
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), "btmp.1", &bytes, NOVEMBER);
    let found = rows(std::slice::from_ref(&path), None);
    let lines = |found: &[Value]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        found.iter().map(|row| (text(&row["ExtraDetails"]["SourceLine"]), text(&row["UserName"]))).collect()
    };
    let expected = [
        ("1", "tester"),
        ("2", "(invalid user)"),
        ("4", "(invalid user)"),
        ("5", "root"),
        ("6", "root"),
        ("7", "(invalid user)"),
        ("8", "(invalid user)"),
        ("9", "tester"),
        ("10", "(invalid user)"),
        ("12", "a\\033[31m"),
    ]
    .map(|(line, user)| (line.to_owned(), user.to_owned()));
    assert_eq!(lines(&found), expected);
    assert_eq!(found[1]["ExtraDetails"]["AttemptedUserName"], "nosuch");
    assert!(!found[8].to_string().contains("hunter2"), "{}", found[8]);
    assert!(found[6].get("RemoteAddress").is_none() && found[6]["ExtraDetails"]["Terminal"] == "tty1");
    // With the accounts at hand two records for a name that is one are two attempts.
    let found = rows(&[path], Some("nosuch:x:5:5::/:/bin/sh\n"));
    assert_eq!(found.iter().filter(|row| row["UserName"] == "nosuch").count(), 4);
    assert_eq!((found[0]["UserName"].as_str(), found[1]["UserId"].as_str()), (Some("(invalid user)"), Some("5")));
}

#[test]
fn a_wtmp_gives_the_sessions_that_began() {
    let bytes = [
        record(2, 0, "~", "~~", b"reboot", "6.1.0-rpi7", AT),
        record(6, 9, "tty1", "1", b"LOGIN", "", AT),
        record(7, 10, "pts/0", "ts/0", b"tester", "::ffff:192.0.2.7", AT + 1),
        record(8, 10, "pts/0", "ts/0", b"", "", AT + 2),
        record(7, 9, "tty1", "1", b"root", "", AT + 3),
        record(7, 11, "pts/1", "ts/1", b"tester", "host.example", AT + 4),
        record(7, 12, ":0", ":0", b"tester", ":0", AT + 5),
        record(7, 13, "ftpd13", "", b"tester", "192.0.2.7", AT + 6),
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    // Without a name that tells, the content does.
    for name in ["wtmp", "records"] {
        let found = rows(&[written(directory.path(), name, &bytes, NOVEMBER)], None);
        assert_eq!(numbers(&found), ["3", "5", "6", "7"]);
        assert!(found.iter().all(|row| row["Result"] == "Success"), "{found:?}");
        assert_eq!(
            (found[0]["RemoteAddress"].as_str(), found[0]["Executable"].as_str()),
            (Some("192.0.2.7"), Some("/usr/sbin/sshd"))
        );
        assert_eq!((found[1]["UserId"].as_str(), found[1]["Executable"].as_str()), (Some("0"), Some("/bin/login")));
        assert_eq!(found[2]["ExtraDetails"]["RemoteHost"], "host.example");
        assert!(found[2].get("RemoteAddress").is_none());
    }
}

#[test]
fn an_exported_journal_names_forgers_and_one_without_proof_proves_nothing() {
    let entry = |fields: &str| {
        format!(
            "__REALTIME_TIMESTAMP=1795488000000000\nSYSLOG_IDENTIFIER=sshd\nMESSAGE=Failed password for root from 192.0.2.7 port 1 ssh2\n{fields}\n"
        )
    };
    let export = [entry("_UID=0\n_TRANSPORT=syslog\n"), entry("_UID=1000\n_TRANSPORT=syslog\n"), entry("")].concat();
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), "journal.export", export.as_bytes(), NOVEMBER);
    let found = rows(std::slice::from_ref(&path), None);
    assert_eq!(numbers(&found), ["1", "3"]);
    assert_eq!(found[0]["ExtraDetails"]["Trust"], "uid");
    assert_eq!(found[1]["ExtraDetails"]["Trust"], "file");
    let (messages, _) = replayed(&[path], None, Format::Envelope);
    assert!(messages.contains("Forged login line"), "{messages}");
}

/// The lines of a capture of genuine daemons as they would stand in a log: without priority and without what the
/// capture noted behind them. It writes a backslash twice.
fn captured(text: &str) -> String {
    let lines = text.lines().filter_map(|line| {
        let (_, line) = line.strip_prefix('<')?.split_once('>')?;
        let line = line.rsplit_once("    [cred ").map_or(line, |(line, _)| line).replace("\\\\", "\\");
        let (stamp, rest) = line.split_at_checked(15)?;
        Some(format!("{stamp} board{rest}\n"))
    });
    lines.collect()
}

/// Captures that may lie beside the repository: what each attempt in them was.
#[test]
fn captures_beside_the_repository_give_what_their_attempts_were() {
    let captures = repository("../shared/data/login-lab");
    if !captures.join("real_bullseye_INFO.txt").exists() {
        eprintln!("left out: there are no captures in {}", captures.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for release in ["bullseye", "bookworm", "trixie"] {
        for part in ["INFO", "dropbear", "dropbear_sudo", "login"] {
            let name = format!("real_{release}_{part}.txt");
            let log = captured(&fs::read_to_string(captures.join(&name)).unwrap());
            let path = written(directory.path(), &name, log.as_bytes(), NOVEMBER);
            check_golden(&format!("captures/{name}.jsonl"), rows(&[path], None));
        }
        for name in [format!("{release}_btmp"), format!("{release}_wtmp")] {
            check_golden(&format!("captures/{name}.jsonl"), rows(&[captures.join(&name)], None));
        }
    }
    check_golden("captures/journal.json.jsonl", rows(&[captures.join("journal.json")], None));
    let shapes = fs::read_to_string(captures.join("real_syslog_shapes.txt")).unwrap();
    let shapes: String = shapes.lines().map(|line| format!("{}\n", line.strip_suffix('$').unwrap_or(line))).collect();
    let path = written(directory.path(), "shapes", shapes.as_bytes(), NOVEMBER);
    check_golden("captures/syslog_shapes.jsonl", rows(&[path], None));
    let (text, refused) = replayed(&[captures.join("trixie_wtmp.db")], None, Format::Details);
    assert!(text.is_empty() && refused[0].contains("wtmpdb"), "{refused:?}");
}
