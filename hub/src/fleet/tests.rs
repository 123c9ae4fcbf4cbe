use super::*;

fn member(id: &str) -> Member {
    Member {
        device_id: id.to_owned(),
        associated_resource_id: "/edgewarden/hubs/plant".to_owned(),
        agent_version: "0.1.0".to_owned(),
        first_seen: "2026-11-01T05:00:00.123456Z".to_owned(),
        last_seen: "2026-11-24T05:00:00.123456Z".to_owned(),
        is_heard: true,
        rows: [("Login".to_owned(), 3), ("ProcessCreate".to_owned(), 4)].into(),
        ..Member::default()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn printed(fleet: &[Member], now: &str, json: bool) -> Vec<String> {
    let mut out = Vec::new();
    if json { objects(fleet, at(now), &mut out) } else { table(fleet, at(now), &mut out) }.unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_line_says_when_how_much_and_what_is_missing() {
    let mut gaps = member("press-18");
    (gaps.lost, gaps.refused, gaps.boots, gaps.first_starts, gaps.power_lost) = (266, 2, 5, 3, 1);
    let mut file = member("suspect");
    file.is_heard = false;
    let lines = printed(&[member("press-17"), gaps, file], "2026-11-27T05:00:00Z", false);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&lines[0]), "DEVICE LAST SEEN AGO FIRST SEEN ROWS LOST REFUSED ALERTS BOOTS AGENT, REMARKS");
    assert_eq!(words(&lines[1]), "press-17 2026-11-24T05:00:00Z 2 d 2026-11-01T05:00:00Z 7 0 0 0 0 0.1.0");
    let gaps = "press-18 2026-11-24T05:00:00Z 2 d 2026-11-01T05:00:00Z 7 266 2 0 5 0.1.0, power lost 1, state lost 2";
    assert_eq!(words(&lines[2]), gaps);
    assert!(lines[3].contains("  imported  "), "{lines:?}");
    let late = printed(&[member("press-17")], "2026-11-28T05:00:01Z", false);
    assert!(late[1].contains("  silent 4 d  "), "{late:?}");
    // Its columns stay below their names.
    assert_eq!(lines[0].find("FIRST"), lines[1].find("2026-11-01"));
}

#[test]
fn a_device_cannot_speak_to_the_terminal_and_json_names_it_as_it_is() {
    let id = "a\u{1b}[2J\u{9b}\n\u{202e}";
    let mut hostile = member(id);
    hostile.agent_version = "\u{7}0".to_owned();
    for json in [false, true] {
        let lines = printed(&[hostile.clone()], "2026-11-24T05:00:01Z", json);
        assert!(!lines.concat().contains(|c: char| c.is_control() || c == '\u{202e}'), "{lines:?}");
    }
    let line: serde_json::Value = serde_json::from_str(&printed(&[hostile], "2026-11-24T05:00:01Z", true)[0]).unwrap();
    assert_eq!(line["DeviceId"], id);
    assert_eq!((&line["SecondsSinceHeard"], &line["IsSilent"]), (&serde_json::json!(0), &serde_json::json!(false)));
    assert_eq!(line["Rows"]["ProcessCreate"], 4);
}

#[test]
fn a_hub_is_named_by_one_level_in_any_case() {
    assert!(is_of("/edgewarden/hubs/plant", "Plant"));
    assert!(is_of("/subscriptions/1/providers/Microsoft.Devices/IotHubs/Plant", "plant"));
    assert!(!is_of("/edgewarden/hubs/plant2", "plant"));
}
