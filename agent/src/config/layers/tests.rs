use std::time::Duration;

use collector_common::event::kind::Kind;

use super::*;
use crate::config::settings::Priority;
use crate::config::{load, load_layers};

const PUBLISHED_DEFAULT: &str = include_str!("../../../../tests/fixtures/twins/published_default.json");

fn local(desired: &Value) -> Layers {
    let text = json!({ "properties": { "desired": desired } }).to_string();
    Layers::new(load("twin.json", &text, None).unwrap())
}

fn full(layers: &mut Layers, desired: &Value) -> Applied {
    whole(layers, desired.to_string().as_bytes(), 4)
}

fn whole(layers: &mut Layers, bytes: &[u8], version: u64) -> Applied {
    layers.desired(&[Desired::Whole { bytes: bytes.to_vec(), version }])
}

fn change(layers: &mut Layers, bytes: &[u8], version: u64) -> Applied {
    layers.desired(&[Desired::Change { bytes: bytes.to_vec(), version }])
}

fn published(members: &Value) -> Value {
    json!({ published::OBJECT: members })
}

fn told(applied: &Applied) -> Vec<String> {
    applied.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_later_layer_wins_key_by_key_and_null_goes_back() {
    let file = r#"{"properties": {"desired": {"edgewarden": {"spoolSyncLow": "PT10S", "processSnapshot": true}}}}"#;
    let drop_in = r#"{"properties": {"desired": {"edgewarden":
        {"spoolSyncLow": "PT20S", "processSnapshot": null}}}}"#;
    let drop_ins = [("twin.d/10.json".to_owned(), drop_in.to_owned())];
    let mut layers = Layers::new(load_layers("twin.json", file, &drop_ins, None).unwrap());
    let origin = |layers: &Layers, key: &str| layers.effective().into_iter().find(|row| row.key == key).unwrap().origin;
    assert_eq!(origin(&layers, "edgewarden.spoolSyncLow"), Origin::DropIn("twin.d/10.json".to_owned(), 2));
    assert_eq!(origin(&layers, "edgewarden.processSnapshot"), Origin::Line(1));

    let applied = full(&mut layers, &json!({"edgewarden": {"spoolSyncLow": "PT5S", "processSnapshot": false}}));
    assert_eq!(applied.settings.spool_sync_low, Duration::from_secs(5));
    assert_eq!(origin(&layers, "edgewarden.spoolSyncLow"), Origin::Hub);
    let applied = change(&mut layers, br#"{"edgewarden": {"spoolSyncLow": null}}"#, 5);
    assert_eq!(applied.settings.spool_sync_low, Duration::from_secs(20));
    assert!(!applied.settings.collectors.process_snapshot);
    assert_eq!((layers.version(), applied.problems.len()), (Some(5), 0));
}

#[test]
fn a_drop_in_has_no_say_in_what_is_local() {
    let drop_ins = [("d.json".to_owned(), "{\"connection\": {\"url\": \"mqtt://h\"}}".to_owned())];
    let refused = load_layers("twin.json", "{}", &drop_ins, None).unwrap_err();
    assert_eq!(
        refused[0].to_string(),
        "d.json:1:2: connection: expected it in the file beside this directory, found it in a drop-in"
    );
}

#[test]
fn what_is_right_applies_and_what_is_wrong_keeps_its_last_good_value() {
    let mut layers = local(&json!({}));
    full(&mut layers, &published(&json!({"highPriorityMessageFrequency": {"value": "PT1M"}})));
    let applied = full(
        &mut layers,
        &json!({
            published::OBJECT: {
                "highPriorityMessageFrequency": {"value": "1m"},
                "eventPriorityProcessCreate": {"value": "High"},
                "snapshotFrequency": {"value": 1e308},
            },
            "edgewarden": {"spoolSyncLow": 7, "loginSource": "/etc/passwd", "floor": [], "colour": 1},
        }),
    );
    assert_eq!(applied.settings.high_interval, Duration::from_secs(60));
    assert_eq!(applied.settings.priority(Kind::ProcessCreate), Priority::High);
    assert_eq!(applied.settings.spool_sync_low, Duration::from_secs(30));
    let told = told(&applied);
    for message in [
        "desired twin, version 4: highPriorityMessageFrequency: expected {\"value\": an ISO 8601 duration from \
         \"PT1S\" to \"P366D\", such as \"PT7M\"}, found {\"value\":\"1m\"}; \"PT1M\" is in force",
        "desired twin, version 4: properties.desired.edgewarden.loginSource: expected \"auto\" or \"journal\"; only the \
         local file may name a log file, found \"/etc/passwd\"; \"auto\" is in force",
        "desired twin, version 4: properties.desired.edgewarden.floor: expected it in the local file only, found []; \
         [] is in force",
    ] {
        assert!(told.iter().any(|other| other == message), "{message}\nis not among\n{told:#?}");
    }
    assert_eq!((told.len(), applied.errors.len()), (6, 6));
    assert_eq!(layers.good_desired()[published::OBJECT]["highPriorityMessageFrequency"]["value"], "PT1M");
    let reported = layers.reported_settings();
    assert_eq!(reported[published::OBJECT]["eventPriorityProcessCreate"], json!({"value": "High"}));
    assert_eq!(reported["latest_state"], "failed");

    let good = layers.good_desired().clone();
    let applied = full(&mut layers, &good);
    assert_eq!((applied.problems.len(), applied.lowered.len()), (0, 0));
    assert_eq!(layers.reported_settings()["latest_invalid_fields"], "");
}

#[test]
fn lowering_is_told_and_the_floor_holds() {
    let mut layers = local(&json!({"edgewarden": {"floor": ["eventPriorityLogin", "maxLocalCacheSizeInBytes"]}}));
    let desired = published(&json!({
        "eventPriorityLogin": {"value": "Off"},
        "eventPriorityLocalUsers": {"value": "Low"},
        "maxLocalCacheSizeInBytes": {"value": 16384},
        "snapshotFrequency": {"value": "P30D"},
        "aggregationEnabledProcessCreate": {"value": true},
    }));
    let applied = full(&mut layers, &desired);
    let lowered: Vec<_> =
        applied.lowered.iter().map(|lowered| format!("{} {} {}", lowered.key, lowered.from, lowered.to)).collect();
    assert_eq!(
        lowered,
        [
            "snapshotFrequency \"PT13H\" \"P30D\"",
            "eventPriorityLocalUsers \"High\" \"Low\"",
            "aggregationEnabledProcessCreate false true",
        ]
    );
    assert_eq!(
        told(&applied),
        [
            "desired twin, version 4: maxLocalCacheSizeInBytes: expected nothing lower than the local edgewarden.floor \
             allows, found 16384; 67108864 is in force",
            "desired twin, version 4: eventPriorityLogin: expected nothing lower than the local edgewarden.floor \
             allows, found \"Off\"; \"High\" is in force",
        ]
    );
    assert_eq!(full(&mut layers, &desired).lowered, [], "told once");
    assert_eq!(full(&mut layers, &json!({})).lowered, [], "raised");
}

#[test]
fn what_is_local_is_out_of_the_hubs_reach() {
    let mut layers = local(&json!({}));
    let before = layers.config().local.clone();
    let applied = full(&mut layers, &json!({"connection": {"url": "mqtt://evil"}, "stateDirectory": "/tmp"}));
    assert_eq!(layers.config().local, before);
    assert_eq!(applied.problems.len(), 2);
    assert!(told(&applied)[0].contains("in the local file only"), "{:?}", told(&applied));
}

#[test]
fn the_micro_agents_flat_keys_set_the_same() {
    let mut layers = local(&json!({}));
    let mut desired = json!({
        "CollectorsCore_PriorityIntervals": "30,120,1440", "Login_Disabled": true, "Process_Mode": 3,
        "Process_MessageFrequency": "High", "Baseline_Disabled": true, "SBoM_CacheSize": 9,
    });
    let settings = full(&mut layers, &desired).settings;
    assert_eq!((settings.high_interval.as_secs(), settings.low_interval.as_secs()), (1800, 86_400));
    assert_eq!(settings.priority(Kind::Login), Priority::Off);
    assert_eq!(settings.priority(Kind::ProcessCreate), Priority::High);
    assert_eq!(full(&mut layers, &json!({"Login_Disabled": false})).settings.priority(Kind::Login), Priority::High);
    for (key, wrong) in [
        ("CollectorsCore_PriorityIntervals", json!("30,120")),
        ("CollectorsCore_PriorityIntervals", json!("0,1,2")),
        ("Login_Disabled", json!("yes")),
        ("Process_Mode", json!(4)),
        ("Process_MessageFrequency", json!("high")),
    ] {
        desired[key] = wrong;
        let applied = full(&mut local(&json!({})), &desired);
        assert!(applied.errors.iter().any(|error| error.configuration_name == key), "{:?}", told(&applied));
    }
    let applied = full(&mut layers, &json!({"Login_Disable": true}));
    assert!(told(&applied)[0].contains("Login_Disabled"), "{:?}", told(&applied));
}

#[test]
fn a_hostile_document_is_refused_whole_and_changes_nothing() {
    let mut layers = local(&json!({}));
    full(&mut layers, &published(&json!({"eventPriorityLogin": {"value": "Low"}})));
    let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
    for (bytes, words) in [
        (vec![b' '; 64 << 20], "expected at most 64 KiB, found 67108864 bytes"),
        (b"{\"a\": \"\xff\"}".to_vec(), "expected UTF-8, found invalid utf-8"),
        (deep.into_bytes(), "recursion limit exceeded"),
        (b"{\"a\": 1e999}".to_vec(), "number out of range"),
        (b"{\"edgewarden\": {\"floor\": 1, \"floor\": 2}}".to_vec(), "expected each key once, found floor again"),
        (b"[]".to_vec(), "expected an object, found []"),
        (b"{".to_vec(), "expected JSON"),
        (Vec::new(), "expected JSON"),
    ] {
        for applied in [whole(&mut layers, &bytes, 9), change(&mut layers, &bytes, 9)] {
            assert!(told(&applied)[0].contains(words), "{:?}", told(&applied));
            assert_eq!((applied.problems.len(), applied.errors.len()), (1, 1));
            assert_eq!(applied.settings.priority(Kind::Login), Priority::Low);
        }
    }
    assert_eq!(layers.version(), Some(4));
}

#[test]
fn a_published_twin_is_taken_unchanged_from_the_hub() {
    let twin: Value = serde_json::from_str(PUBLISHED_DEFAULT).unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/schemas/security_module_twin");
    let original = |name: &str| std::fs::read(format!("{directory}/azureiotsecurity_{name}.json"));
    match (original("default"), original("schema")) {
        (Ok(default), Ok(schema)) => {
            assert_eq!(twin, serde_json::from_slice::<Value>(&default).unwrap());
            let schema: Value = serde_json::from_slice(&schema).unwrap();
            let schema = &schema["properties"]["desired"]["properties"][published::OBJECT]["properties"];
            let keys =
                |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(keys(schema), keys(&twin["properties"]["desired"][published::OBJECT]));
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("the fixture was not compared with Microsoft's own files in {directory}: {error}");
        }
    }
    let applied = full(&mut local(&json!({})), &twin["properties"]["desired"]);
    assert_eq!((told(&applied).len(), applied.errors.len()), (0, 0), "{:?}", told(&applied));
}

#[test]
fn the_hub_and_the_file_are_settled_together_and_told_once() {
    let mut layers = local(&published(&json!({"maxMessageSizeInBytes": {"value": 10000}})));
    let applied = full(&mut layers, &published(&json!({"lowPriorityMessageFrequency": {"value": "PT1M"}})));
    let faults: Vec<_> = applied.errors.iter().map(|error| error.error_type).collect();
    assert_eq!(faults, [ConfigurationFault::Conflict], "the other is known: {:?}", told(&applied));
    assert_eq!(applied.settings.high_interval, Duration::from_secs(60));
}

/// Whatever the hub writes, and however it is settled with what stands in the file, a key of the floor holds.
#[test]
fn settling_what_contradicts_does_not_pass_the_floor() {
    const KEYS: [&str; 3] = ["highPriorityMessageFrequency", "lowPriorityMessageFrequency", "maxLocalCacheSizeInBytes"];
    let mut random = fastrand::Rng::with_seed(7);
    let document = |random: &mut fastrand::Rng| {
        let mut members = json!({});
        for key in &KEYS[..2] {
            if random.bool() {
                members[*key] = json!({ "value": (*random.choice(&["PT1M", "PT1H", "PT10H", "P2D"]).unwrap()) });
            }
        }
        if random.bool() {
            members[KEYS[2]] = json!({ "value": *random.choice(&[8192, 100_000]).unwrap() });
        }
        published(&members)
    };
    for _ in 0..2000 {
        let mut file = document(&mut random);
        let floor: Vec<_> = KEYS.iter().filter(|_| random.bool()).collect();
        file["edgewarden"] = json!({ "floor": floor });
        let mut layers = local(&file);
        let before = Arc::clone(layers.settings());
        let desired = document(&mut random);
        let settings = full(&mut layers, &desired).settings;
        assert!(settings.high_interval <= settings.low_interval, "{file} {desired}");
        for lowered in lowering::lowered(&before, &settings) {
            assert!(!before.floor.contains(&lowered.key), "{lowered:?} by {desired} over {file}");
        }
    }
}

#[test]
fn changes_do_not_add_up_beyond_the_limit() {
    let mut layers = local(&json!({}));
    let text = "x".repeat(1000);
    for number in 0..200 {
        let patch = json!({ format!("junk{number}"): text }).to_string();
        let applied = change(&mut layers, patch.as_bytes(), number + 1);
        assert!(layers.desired.to_string().len() <= MAX_DESIRED_BYTES);
        if applied.is_refused {
            assert!(
                told(&applied)[0].contains("bytes with this change; nothing of it is used"),
                "{:?}",
                told(&applied)
            );
            assert!(number > 50, "{number}");
        }
    }
    assert!(layers.version() < Some(100));
}

#[test]
fn a_thousand_mistakes_are_counted_and_not_told_one_by_one() {
    let mut layers = local(&json!({}));
    let own: Map<_, _> = (0..1000).map(|number| (format!("colour{number}"), json!(1))).collect();
    let applied = full(&mut layers, &json!({ "edgewarden": own }));
    assert_eq!((applied.errors.len(), applied.problems.len()), (MAX_PROBLEMS, MAX_PROBLEMS + 1));
    assert!(told(&applied)[MAX_PROBLEMS].ends_with("found 968 more that cannot"), "{:?}", told(&applied));
    let invalid = layers.reported_settings()["latest_invalid_fields"].as_str().unwrap().len();
    assert!((100..MAX_NAMES_BYTES).contains(&invalid), "{invalid}");
}

#[test]
fn what_was_told_is_not_told_again_with_the_next_connection() {
    let mut layers = local(&json!({}));
    let wrong = published(&json!({"eventPriorityLogin": {"value": "Hgh"}})).to_string();
    assert_eq!(whole(&mut layers, wrong.as_bytes(), 4).errors.len(), 1);
    assert_eq!(whole(&mut layers, wrong.as_bytes(), 5).errors.len(), 0);
    assert_eq!(layers.reported_settings()["latest_state"], "failed");
    full(&mut layers, &json!({}));
    assert_eq!(whole(&mut layers, wrong.as_bytes(), 7).errors.len(), 1, "it was right in between");
}

#[test]
fn a_refused_value_reports_what_is_in_force_after_all_is_settled() {
    let mut layers = local(&json!({}));
    let applied = full(
        &mut layers,
        &published(&json!({
            "highPriorityMessageFrequency": {"value": "7m"},
            "lowPriorityMessageFrequency": {"value": "PT1M"},
        })),
    );
    let in_force: Vec<_> = applied.errors.iter().map(|error| error.used_configuration.as_str()).collect();
    assert_eq!(in_force, ["\"PT1M\"", "\"PT1M\""]);
}

#[test]
fn mangled_documents_never_panic_nor_pass_the_floor() {
    let mut random = fastrand::Rng::with_seed(23);
    let twin: Value = serde_json::from_str(PUBLISHED_DEFAULT).unwrap();
    let whole_text = twin["properties"]["desired"].to_string().replace("\"High\"", "\"Low\"");
    let mut layers = local(&json!({"edgewarden": {"floor": ["eventPriorityLogin"]}}));
    let mut applied_some = 0;
    for version in 1..1500 {
        let mut bytes = whole_text.clone().into_bytes();
        for _ in 0..=random.usize(..3) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = b"0123456789aPTLowHigh"[random.usize(..20)],
                _ => bytes.insert(at, b"{}[]\",:\\0nu"[random.usize(..11)]),
            }
        }
        let desired =
            if random.bool() { Desired::Whole { bytes, version } } else { Desired::Change { bytes, version } };
        let applied = layers.desired(&[desired]);
        applied_some += u32::from(!applied.is_refused);
        assert_eq!(applied.settings.priority(Kind::Login), Priority::High);
        assert!(applied.problems.len() <= MAX_PROBLEMS + 2 && layers.good_desired().is_object());
        serde_json::from_value::<Map<_, _>>(layers.reported_settings()).unwrap();
    }
    assert!(applied_some > 100, "{applied_some}");
}
