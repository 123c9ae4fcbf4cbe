use super::*;

#[test]
fn the_table_in_the_documents_is_this_one() {
    let document = include_str!("../../../docs/alerts.md");
    for rule in RULES {
        let mark = if rule.type_is_published { "" } else { " (ours)" };
        let row = format!("| {} | {} | `{}`{mark} |", rule.severity.name(), rule.name, rule.alert_type);
        assert!(document.contains(&row), "docs/alerts.md lacks {row}");
    }
    assert_eq!(document.lines().filter(|line| line.contains("| `IoT_")).count(), RULES.len());
}

#[test]
fn no_two_rules_share_a_type() {
    for (n, rule) in RULES.iter().enumerate() {
        assert!(RULES[..n].iter().all(|other| other.alert_type != rule.alert_type), "{}", rule.alert_type);
    }
}

#[test]
fn an_id_tells_where_a_fact_ends() {
    let finding = |facts: &[&str]| Finding {
        facts: facts.iter().map(|fact| (*fact).to_owned()).collect(),
        from: Timestamp::UNIX_EPOCH,
        to: Timestamp::UNIX_EPOCH,
        sentence: String::new(),
        properties: Vec::new(),
    };
    let ids = [
        id(&RULES[0], "press", &finding(&["ab", "c"])),
        id(&RULES[0], "press", &finding(&["a", "bc"])),
        id(&RULES[0], "pressa", &finding(&["b", "c"])),
        id(&RULES[1], "press", &finding(&["ab", "c"])),
    ];
    for (n, id) in ids.iter().enumerate() {
        assert!(!ids[..n].contains(id));
    }
    // The id of an alert is stored: a later version must find the same one.
    assert_eq!(ids[0].to_string(), id(&RULES[0], "press", &finding(&["ab", "c"])).to_string());
}

fn process(executable: &str, command_line: &str) -> Option<Finding> {
    let item = miners::ProcessItem {
        executable: executable.to_owned(),
        command_line: command_line.to_owned(),
        user_id: "0".to_owned(),
        ..miners::ProcessItem::default()
    };
    miners::crypto_miner(&Process { at: Timestamp::UNIX_EPOCH, item })
}

#[test]
fn a_miner_is_known_by_its_word_and_nothing_else_is() {
    for (executable, command_line) in [
        // The published trigger script runs this one.
        ("/usr/bin/dash", "sh -c 'echo cpuminer-multi'"),
        ("/tmp/.x/xmrig", "./xmrig"),
        ("/tmp/.xmrig", "-"),
        ("/tmp/x", "./XMRig-6.21.0/xmrig --config=/tmp/c.json"),
        ("/tmp/kworker", "kworker -o stratum+tcp://192.0.2.1:3333 -u wallet"),
        ("/tmp/kworker", "kworker --url=stratum+ssl://192.0.2.1"),
        ("/tmp/kworker", "kworker -o pool.supportxmr.com:443"),
        ("/tmp/kworker", "kworker --donate-level=1"),
        ("/usr/bin/minerd", "(unknown)"),
    ] {
        assert!(process(executable, command_line).is_some(), "{command_line}");
    }
    for (executable, command_line) in [
        ("/usr/bin/grep", "grep -r miner /srv"),
        ("/usr/bin/vi", "vi /srv/minerdata/examiner.txt"),
        ("/usr/bin/curl", "curl https://notsupportxmr.com/ https://supportxmr.com.example/"),
        ("/usr/bin/python3", "python3 -m stratum"),
        ("", ""),
        ("/usr/bin/echo", "é\u{0}\u{202e}'\"--donate"),
    ] {
        assert_eq!(process(executable, command_line), None, "{command_line}");
    }
}

#[test]
fn hostile_text_is_quoted_and_cut() {
    let hostile = format!("xmrig \u{1b}[2J\u{202e}\n\"{}", "A".repeat(5000));
    let finding = process("/tmp/x", &hostile).unwrap();
    assert!(finding.sentence.len() < 300, "{}", finding.sentence);
    assert!(!finding.sentence.contains(['\u{1b}', '\u{202e}', '\n']), "{}", finding.sentence);
    let properties = properties("press-17", &finding);
    assert!(properties.len() < 2000);
    let read: Value = serde_json::from_str(&properties).unwrap();
    assert_eq!(read["DeviceId"], "press-17");
}

fn snapshot(at: &str, users: &[(&str, &str)]) -> Snapshot {
    let items = users.iter().map(|(name, groups)| users::UserItem {
        user_name: Some((*name).to_owned()),
        user_id: "1000".to_owned(),
        group_names: (*groups).to_owned(),
    });
    Snapshot::new(at.parse().unwrap(), items)
}

#[test]
fn what_changed_between_two_snapshots() {
    let before = snapshot("2026-11-24T05:00:00Z", &[("root", "root"), ("pi", "pi;video"), ("old", "old;adm")]);
    let after = snapshot("2026-11-24T06:00:00Z", &[("root", "root"), ("pi", "sudo;pi"), ("new", "new")]);
    let added = users::added_to_group(&before, &after);
    assert_eq!(
        added.iter().map(|found| found.sentence.as_str()).collect::<Vec<_>>(),
        ["Now the new user \"new\" is in \"new\".", "Now \"pi\" is in \"sudo\"."]
    );
    let lost = users::deleted_from_group(&before, &after);
    assert_eq!(
        lost.iter().map(|found| found.sentence.as_str()).collect::<Vec<_>>(),
        ["\"pi\" is no longer in \"video\"."]
    );
    let gone = users::deleted(&before, &after);
    assert_eq!((gone.len(), gone[0].properties[0].1.as_str(), gone[0].from), (1, "old", before.at));
    for decide in [users::added_to_group, users::deleted_from_group, users::deleted] {
        assert!(decide(&before, &before).is_empty());
    }
}

#[test]
fn silence_begins_after_72_hours() {
    let last: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
    assert_eq!(silent(last, "2026-11-24T05:59:59Z".parse().unwrap()), None);
    assert!(silent(last, "2026-11-24T06:00:00Z".parse().unwrap()).is_some());
}
