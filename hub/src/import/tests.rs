use super::*;
use crate::store::read::Filter;

const DETAILS: &str = r#"{"ProcessId":7,"UserName":"pi","Operation":"Login","Executable":"/bin/login","Result":"Success","TimestampLocal":"2026-11-24T06:12:01.123+01:00","TimestampUTC":"2026-11-24T05:12:01.123Z","EventId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002"}"#;

fn port(id: u32, port: &str) -> String {
    format!(
        r#"{{"LocalPort":"{port}","Protocol":"TCP","TimestampLocal":"2026-11-24T06:12:01.123+01:00","TimestampUTC":"2026-11-24T05:12:01.123Z","EventId":"0b7c5a52-57a0-4c89-9a53-0f3c{id:08x}"}}"#
    )
}

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("case.db")
    }

    /// Imports a file: whether all went well, what was said, and the complaints.
    fn import(&self, settings: &Settings, lines: &str) -> (bool, String, Vec<String>) {
        let path = self.dir.path().join("lines");
        std::fs::write(&path, lines).unwrap();
        let store = Store::open_file(&self.db()).unwrap();
        let (mut out, mut complaints) = (Vec::new(), Vec::new());
        let done = run(store, settings.clone(), std::slice::from_ref(&path), &mut out, &mut complaints);
        let plain = |bytes| String::from_utf8(bytes).unwrap().replace(&format!("{}:", path.display()), "");
        (done.is_ok(), plain(out).trim().to_owned(), plain(complaints).lines().map(str::to_owned).collect())
    }

    fn rows(&self) -> Vec<crate::store::read::Row> {
        Store::open_file_to_read(&self.db()).unwrap().rows(Filter::default()).unwrap()
    }
}

fn of(name: &str) -> Settings {
    let some = |text: &str| Some(text.to_owned());
    Settings { hub: some("Case"), device: some("press-17"), name: some(name), ..Settings::default() }
}

#[test]
fn details_need_to_be_told_whose_they_are_and_are_stored_once() {
    let fixture = Fixture::new();
    let (good, _, complaints) = fixture.import(&Settings { hub: None, ..of("Login") }, DETAILS);
    assert!(!good && complaints[0].contains("--name, --device and --hub"), "{complaints:?}");
    assert_eq!(
        fixture.import(&of("Login"), DETAILS),
        (true, "1 stored, 0 known, 1 alerts, 0 refused".to_owned(), vec![])
    );
    assert_eq!(
        fixture.import(&of("Login"), DETAILS),
        (true, "0 stored, 1 known, 0 alerts, 0 refused".to_owned(), vec![])
    );
    let rows = fixture.rows();
    assert_eq!(rows[0].event_details, DETAILS);
    assert_eq!(
        (&*rows[0].device_id, &*rows[0].associated_resource_id, &*rows[0].raw_event_category),
        ("press-17", "/edgewarden/hubs/case", "Triggered")
    );
}

#[test]
fn the_rows_of_an_event_keep_their_places() {
    let fixture = Fixture::new();
    let lines = [port(1, "22"), port(1, "80"), port(2, "22"), port(1, "443")].join("\n");
    assert_eq!(fixture.import(&of("ListeningPorts"), &lines).1, "4 stored, 0 known, 0 alerts, 0 refused");
    assert_eq!(fixture.import(&of("ListeningPorts"), &lines).1, "0 stored, 4 known, 0 alerts, 0 refused");
    let mut places: Vec<(String, i64)> =
        fixture.rows().iter().map(|row| (row.iot_raw_event_id[28..].to_owned(), row.payload_index)).collect();
    places.sort();
    let one = "00000001";
    assert_eq!(places, [(one, 0), (one, 1), (one, 2), ("00000002", 0)].map(|(id, place)| (id.to_owned(), place)));
    // Other content in a place that is taken is refused, and the row stays.
    let (good, _, complaints) = fixture.import(&of("ListeningPorts"), &port(1, "23"));
    assert!(!good && complaints[0].starts_with("1: 1 items: other content"), "{complaints:?}");
}

#[test]
fn a_row_of_another_store_stays_as_it_is() {
    let fixture = Fixture::new();
    let line = r#"{"TimeGenerated":"2022-03-28T08:00:00Z","AssociatedResourceId":"/SUBSCRIPTIONS/0/IOTHUBS/PLANT","DeviceId":"d","EventDetails":{"UserName":"root","LocalPort":22,"TimestampLocal":"2022-03-28T09:00:00+01:00"},"IsEmpty":false,"RawEventName":"Process"}"#;
    let text = line.replace(
        r#"{"UserName":"root","LocalPort":22,"TimestampLocal":"2022-03-28T09:00:00+01:00"}"#,
        r#""{ \"UserName\": \"root\" }""#,
    );
    // Two that are alike are two, and a second import adds none.
    let lines = [line, line, &text].join("\n");
    assert_eq!(fixture.import(&Settings::default(), &lines).1, "3 stored, 0 known, 0 alerts, 0 refused");
    assert_eq!(fixture.import(&Settings::default(), &lines).1, "0 stored, 3 known, 0 alerts, 0 refused");
    let rows = fixture.rows();
    let details = r#"{"UserName":"root","LocalPort":22,"TimestampLocal":"2022-03-28T09:00:00+01:00"}"#;
    assert_eq!((&*rows[0].event_details, &*rows[1].event_details), (details, details));
    assert_eq!(rows[2].event_details, r#"{ "UserName": "root" }"#);
    assert!(rows.iter().all(|row| row.time_stamp == "2022-03-28T08:00:00.000000Z"));
    assert!(rows.iter().all(|row| row.associated_resource_id == "/SUBSCRIPTIONS/0/IOTHUBS/PLANT"));
}

#[test]
fn what_rows_prints_can_be_imported_again_also_in_part() {
    let fixture = Fixture::new();
    fixture.import(&of("ListeningPorts"), &[port(1, "22"), port(1, "80"), port(1, "81")].join("\n"));
    let (_, no_items) = DETAILS.split_once(r#""Result":"Success","#).unwrap();
    fixture.import(&of("LocalUsers"), &format!("{{{no_items}"));
    let printed: Vec<String> = fixture.rows().iter().map(|row| serde_json::to_string(row).unwrap()).collect();
    let again = Fixture::new();
    let (good, said, _) = again.import(&Settings::default(), &printed[1..].join("\n"));
    assert_eq!((good, said.as_str()), (true, "3 stored, 0 known, 0 alerts, 0 refused"));
    assert_eq!(again.import(&Settings::default(), &printed.join("\n")).1, "1 stored, 3 known, 0 alerts, 0 refused");
    let plain = |rows: Vec<Row>| {
        let plain = |row: Row| Row { time_generated: String::new(), ..row };
        let mut rows: Vec<_> = rows.into_iter().map(plain).collect();
        rows.sort_by_key(|row| (row.iot_raw_event_id.clone(), row.payload_index));
        rows
    };
    assert_eq!(plain(again.rows()), plain(fixture.rows()));
    assert!(again.rows().iter().any(|row| row.is_empty));
}

#[test]
fn a_refused_line_is_named_and_the_others_are_stored() {
    let fixture = Fixture::new();
    let row = |more: &str| {
        let details = serde_json::to_string(&port(3, "22")).unwrap();
        format!(r#"{{"RawEventName":"ListeningPorts","DeviceId":"a","EventDetails":{details}{more}}}"#)
    };
    let long = "x".repeat(5 << 20);
    let message = r#"{"AgentVersion":"0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[{}]}"#;
    let lines = [
        "junk",
        "[]",
        "",
        message,
        &row(r#","PayloadIndex":-1"#),
        &row(r#","IsEmpty":"yes""#),
        &row(r#","AgentVersion":3"#),
        &row(r#","Type":"SecurityAlert""#),
        &row(r#","IoTRawEventId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a009""#),
        &row("").replace("\"a\"", "\"\\u0007\""),
        r#"{"RawEventName":"Login","DeviceId":"a","EventDetails":"{]","TimeStamp":"2026-11-24T05:12:01.123Z"}"#,
        r#"{"RawEventName":"Login","DeviceId":"a","EventDetails":{},"TimeStamp":"yesterday"}"#,
        &long,
        &row(r#","PayloadIndex":7,"_BilledSize":3"#),
    ]
    .join("\r\n");
    let settings = Settings { hub: Some("h".to_owned()), ..Settings::default() };
    let (good, said, complaints) = fixture.import(&settings, &lines);
    assert_eq!((good, said.as_str()), (false, "1 stored, 0 known, 0 alerts, 12 refused"));
    let expected = [
        "1: line: not JSON",
        "2: line: expected an object",
        "4: Events[0].Name: missing",
        "5: PayloadIndex: expected",
        "6: IsEmpty: expected",
        "7: AgentVersion: expected a string",
        "8: Type: \"SecurityAlert\"",
        "9: IoTRawEventId: differs",
        "10: DeviceId: a device id has",
        "11: EventDetails: line: not JSON",
        "12: TimeStamp: expected",
        "13: line: longer than",
    ];
    assert_eq!(complaints.len(), expected.len());
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(expected), "{complaint} for {expected}");
    }
    assert_eq!(fixture.rows()[0].payload_index, 7);
    let store = Store::open_file(&fixture.db()).unwrap();
    let missing = run(store, Settings::default(), &["/nowhere".into()], &mut Vec::new(), &mut Vec::new());
    assert!(missing.unwrap_err().contains("cannot open /nowhere"));
}

#[test]
fn alerts_can_be_imported_and_their_columns_are_checked() {
    let fixture = Fixture::new();
    fixture.import(&of("Login"), DETAILS);
    let alert = Store::open_file_to_read(&fixture.db()).unwrap().alerts(None).unwrap().remove(0);
    let again = Fixture::new();
    let settings = Settings { table: Table::SecurityAlert, ..Settings::default() };
    let lines = [
        serde_json::to_string(&alert).unwrap(),
        r#"{"SystemAlertId":"1","AlertName":"n","TimeGenerated":"2026-11-24T06:00:00+01:00","ResourceId":"r","ConfidenceScore":0.5,"_IsBillable":"x"}"#.to_owned(),
        r#"{"SystemAlertId":"2","AlertName":"n","ResourceId":"r","Status":null}"#.to_owned(),
        r#"{"SystemAlertId":"3","Nonsense); DROP TABLE Device; --":"n","ResourceId":"r"}"#.to_owned(),
        r#"{"SystemAlertId":"4","TimeGenerated":"yesterday","ResourceId":"r"}"#.to_owned(),
    ]
    .join("\n");
    let (good, said, complaints) = again.import(&settings, &lines);
    assert_eq!((good, said.as_str()), (false, "2 stored, 0 known, 0 alerts, 3 refused"));
    assert!(
        complaints[0].starts_with("3: AlertName") || complaints[0].starts_with("3: TimeGenerated: missing"),
        "{complaints:?}"
    );
    assert!(complaints[1].ends_with("SecurityAlert has no such column"), "{complaints:?}");
    assert!(complaints[2].starts_with("5: TimeGenerated: expected a date"), "{complaints:?}");
    assert_eq!(again.import(&settings, &lines).1, "0 stored, 2 known, 0 alerts, 3 refused");
    let stored = Store::open_file_to_read(&again.db()).unwrap().alerts(None).unwrap();
    assert!(stored.contains(&alert), "{stored:?}");
    assert!(stored.iter().any(|alert| alert["TimeGenerated"] == "2026-11-24T05:00:00.000000Z"));
}
