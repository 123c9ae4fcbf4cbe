use std::time::Duration;

use collector_common::event::kind::Kind;
use collector_common::event::payload::ConfigurationFault;

use super::connection::{Connection, HubIdentity, Profile};
use super::settings::Priority;
use super::*;

const DEFAULT_TWIN: &str = include_str!("../../../packaging/twin.json");
const EXPORTED_TWIN: &str = include_str!("../../../tests/fixtures/twins/exported.json");

fn loaded(text: &str) -> Config {
    load("twin.json", text, None).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

/// The refusals of a text, printed.
fn refusals(text: &str) -> Vec<String> {
    load("twin.json", text, None).map(|config| config.settings).unwrap_err().iter().map(ToString::to_string).collect()
}

/// A file with this published object.
fn published(object: &str) -> String {
    format!("{{\"properties\":{{\"desired\":{{\"{}\":\n{object}\n}}}}}}", published::OBJECT)
}

/// A file with this `connection`.
fn connected(connection: &str) -> String {
    format!("{{\"deviceId\": \"x\", \"connection\":\n{connection}\n}}")
}

fn warnings(text: &str) -> Vec<String> {
    loaded(text).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_man_page_has_every_value_in_force() {
    let man = include_str!("../../../packaging/man/edgewarden-twin.5");
    for row in loaded(&connected(r#"{"url": "mqtt://hub.example"}"#)).effective() {
        let name = row.key.rsplit('.').next().unwrap_or(&row.key);
        assert!(man.split_whitespace().any(|word| word == name), "{name}");
    }
}

#[test]
fn the_installed_file_says_what_is_built_in() {
    let config = loaded(DEFAULT_TWIN);
    assert_eq!(config.warnings, []);
    assert_eq!(*config.settings, Settings::default());
    assert_eq!(config.local, Local::new(None));
    let unsaid: Vec<_> = config.effective().into_iter().filter(|row| row.origin == Origin::Default).collect();
    let keys: Vec<_> = unsaid.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "deviceId",
            "stateDirectory",
            "connection",
            "edgewarden.floor",
            "edgewarden.maxBytesPerDay",
            "edgewarden.processFloodRate",
            "hubResourceId"
        ]
    );
}

#[test]
fn a_twin_exported_from_the_old_service_works_unchanged() {
    let config = loaded(EXPORTED_TWIN);
    assert_eq!(config.warnings, []);
    assert_eq!(config.local.device_id.as_deref(), Some("press-17"));
    let settings = &config.settings;
    assert_eq!(settings.high_interval, Duration::from_secs(60));
    assert_eq!(settings.low_interval, Duration::from_secs(3600));
    assert_eq!((settings.max_cache_bytes, settings.max_message_bytes), (2_560_000, 204_800));
    assert_eq!(settings.priority(Kind::ProcessCreate), Priority::High);
    assert_eq!(settings.priority(Kind::Diagnostic), Priority::Off);
    assert!(settings.aggregate_process_create);
    assert_eq!(settings.aggregation_interval, Duration::from_secs(1800));
    assert!(settings.hub_resource_id.as_deref().unwrap().ends_with("/IotHubs/plant"));
}

#[test]
fn an_empty_file_means_every_default() {
    for text in ["{}", " {\n}\n", r#"{"properties":null}"#, r#"{"properties":{"desired":null}}"#, &published("{}")] {
        let Ok(config) = load("twin.json", text, None) else { panic!("{text}") };
        assert_eq!((&*config.settings, &config.local), (&Settings::default(), &Local::new(None)), "{text}");
    }
}

#[test]
fn a_connection_is_read_whole() {
    let text = connected(
        r#"{"profile": "mqtt", "url": "mqtts://hub.example", "topic": "{moduleId}/x/{deviceId}", "caFile": null,
            "certFile": "/c.pem", "keyFile": "/k.pem", "username": "u", "passwordFile": "/p"}"#,
    );
    let connection = loaded(&text).local.connection.unwrap();
    let expected = Connection {
        profile: Profile::Mqtt,
        server: Some(Server { tls: true, host: "hub.example".to_owned(), port: 8883 }),
        topic_template: "{moduleId}/x/{deviceId}".to_owned(),
        ca_file: None,
        pinned_certificate: None,
        cert_file: Some(Source::Path("/c.pem".into())),
        key_file: Some(Source::Path("/k.pem".into())),
        alpn: None,
        username: Some("u".to_owned()),
        password_file: Some(Source::Path("/p".into())),
        connection_string_file: None,
        sas_key_file: None,
        sas_lifetime: Duration::from_secs(3600),
        hub_identity: HubIdentity::Module,
        interface_id: false,
        twin: false,
    };
    assert_eq!(connection, expected);
    assert_eq!(connection.topic("{moduleId}", "m"), "m/x/{moduleId}");
}

#[test]
fn addresses_have_a_scheme_a_host_and_perhaps_a_port() {
    for (url, whole) in [
        ("mqtt://localhost", "mqtt://localhost:1883"),
        ("mqtts://10.0.0.1:443/", "mqtts://10.0.0.1:443"),
        ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ("mqtts://[fe80::1]:1", "mqtts://[fe80::1]:1"),
    ] {
        let config = loaded(&connected(&format!(r#"{{"url": "{url}"}}"#)));
        assert_eq!(config.local.connection.unwrap().url(), whole);
    }
    for url in [
        "hub.example",
        "http://hub.example",
        "mqtts://",
        "mqtts://:8883",
        "mqtts://hub:0",
        "mqtts://hub:65536",
        "mqtts://hub:+1",
        "mqtts://hub:",
        "mqtts://hub/path",
        "mqtts://[::1",
        "mqtts://[hub]",
        "mqtts://[::1]1",
        "mqtts://fe80::1",
        "mqtts://a b",
        "mqtts://hüb",
        "mqtts://user:secret@hub",
        "mqtts://secret@hub:1?x",
    ] {
        let refusals = refusals(&connected(&format!(r#"{{"url": "{url}"}}"#)));
        assert_eq!(refusals.len(), 1, "{url}");
        assert!(refusals[0].starts_with("twin.json:2:9: connection.url: expected "), "{}", refusals[0]);
        assert!(!refusals[0].contains("secret"), "{}", refusals[0]);
    }
}

#[test]
fn what_stops_the_agent_names_its_place() {
    for (text, message) in [
        ("", "twin.json:1:1: expected JSON, found EOF while parsing a value"),
        ("{\n  \"a\": 1,\n}", "twin.json:3:1: expected JSON, found trailing comma"),
        ("{\"ä\": x}", "twin.json:1:7: expected JSON, found expected value"),
        ("[1]", "twin.json:1:1: expected one JSON object, found a list"),
        (
            "{\n  \"devicId\": \"x\"}",
            "twin.json:2:3: devicId: expected a known key (did you mean \"deviceId\"?), found an unknown key",
        ),
        (
            "{\"etagg\": \"x\"}",
            "twin.json:1:2: etagg: expected a known key (did you mean \"etag\"?), found an unknown key",
        ),
        (
            "{\"deviceId\": \"x\",\n\"deviceId\": \"y\"}",
            "twin.json:2:1: deviceId: expected each key once, found it again, after line 1",
        ),
        ("{\"deviceId\": 17}", "twin.json:1:14: deviceId: expected a string that is not empty, found 17"),
        (
            "{\"deviceId\": \"a/b\"}",
            "twin.json:1:14: deviceId: expected a text without / + # and control characters, which mean something in \
             an MQTT topic, found \"a/b\"",
        ),
        (
            "{\"deviceId\": \"{hostname}\"}",
            "twin.json:1:14: deviceId: expected no braces but those of {machineId}, {serial}, {certCN}, found \
             \"{hostname}\"",
        ),
        (
            "{\"stateDirectory\": \"spool\"}",
            "twin.json:1:20: stateDirectory: expected an absolute path, found one that is not",
        ),
        (
            "{\"properties\":\n{\"desird\": {}}}",
            "twin.json:2:2: properties.desird: expected a known key (did you mean \"desired\"?), found an unknown key",
        ),
        (
            "{\"properties\": {\"desired\": 1}}",
            "twin.json:1:28: properties.desired: expected an object, found a number",
        ),
        (
            "{\"properties\": {\"desired\": {\"edgewarden\": {\n  \"loginsource\": \"auto\"}}}}",
            "twin.json:2:3: properties.desired.edgewarden.loginsource: expected a known key (did you mean \
             \"loginSource\"?), found an unknown key",
        ),
        (
            "{\"properties\": {\"desired\": {\"edgewarden\": {\n  \"processBackend\": \"auditd\"}}}}",
            "twin.json:2:21: properties.desired.edgewarden.processBackend: expected \"auto\", \"bpf\", \
             \"bpfNoBtf\", \"audit\", \"connector\" or \"poll\", found \"auditd\"",
        ),
        (
            "{\"properties\": {\"desired\": {\"edgewarden\": {\n  \"spoolSyncLow\": \"PT0S\"}}}}",
            "twin.json:2:19: properties.desired.edgewarden.spoolSyncLow: expected an ISO 8601 duration from \
             \"PT0.01S\" to \"PT1H\", found \"PT0S\"",
        ),
        (
            &connected("{}"),
            "twin.json:2:1: connection.url: expected an address such as \"mqtts://hub.example:8883\", found no such \
             key",
        ),
        (
            &connected("{\"profile\": \"amqp\", \"url\": \"mqtts://h\"}"),
            "twin.json:2:13: connection.profile: expected one of \"mqtt\", \"iothub\", \"aws\", found another word",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"topic\": \"a/#\"}"),
            "twin.json:2:31: connection.topic: expected a topic without +, # and control characters, which no \
             message can be published to, found '#'",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"topic\": \"{device}\"}"),
            "twin.json:2:31: connection.topic: expected no braces but {deviceId} and {moduleId}, found others",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"certFile\": \"/c\"}"),
            "twin.json:2:1: connection.keyFile: expected it beside certFile, found no such key",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"passwordFile\": \"/c\"}"),
            "twin.json:2:1: connection.username: expected it beside passwordFile, found no such key",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"password\": \"hunter2\"}"),
            "twin.json:2:22: connection.password: expected a known key (did you mean \"passwordFile\"?), found an \
             unknown key",
        ),
        (
            &connected("{\"profile\": \"iothub\", \"url\": \"mqtts://h\"}"),
            "twin.json:2:1: connection: expected exactly one of connectionStringFile, sasKeyFile, certFile, found 0 of \
             them",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"sasKeyFile\": \"/k\"}"),
            "twin.json:2:22: connection.sasKeyFile: expected it only with profile \"iothub\", found profile \"mqtt\"",
        ),
        (
            &connected("{\"profile\": \"aws\", \"url\": \"mqtts://h\"}"),
            "twin.json:2:1: connection.certFile: expected it with profile \"aws\", found no such key",
        ),
        (
            &connected("{\"profile\": \"iothub\", \"url\": \"mqtt://h\", \"sasKeyFile\": \"/k\"}"),
            "twin.json:2:30: connection.url: expected mqtts://, which this hub asks for, found mqtt://",
        ),
        (
            &connected("{\"url\": \"mqtts://h\", \"pinnedCertificate\": \"00:11\"}"),
            "twin.json:2:43: connection.pinnedCertificate: expected a SHA-256 fingerprint: 64 hexadecimal digits, found \
             something else",
        ),
        (&connected("\"mqtts://h\""), "twin.json:2:1: connection: expected an object, found a string"),
    ] {
        assert_eq!(refusals(text), [message], "{text}");
    }
}

#[test]
fn every_refusal_is_told_at_once_and_in_order() {
    let text = "{\"properties\": {\"desird\": 1},\n\"stateDirectory\": 1,\n\"colour\": 2}";
    let refusals = refusals(text);
    let places: Vec<_> = refusals.iter().map(|refusal| &refusal[..16]).collect();
    assert_eq!(places, ["twin.json:1:17: ", "twin.json:2:19: ", "twin.json:3:1: c"]);
}

#[test]
fn a_bad_published_key_keeps_its_default_and_says_so() {
    let duration = "{\"value\": an ISO 8601 duration from \"PT1S\" to \"P366D\", such as \"PT7M\"}";
    for (object, message) in [
        (
            "{\"highPriorityMessageFrequency\": {\"value\": \"7m\"}}",
            format!(
                "twin.json:2:34: highPriorityMessageFrequency: expected {duration}, found {{\"value\": \"7m\"}}; \
                 \"PT7M\" is in force"
            ),
        ),
        (
            "{\"snapshotFrequency\": {\"value\": \"PT0S\"}}",
            format!(
                "twin.json:2:23: snapshotFrequency: expected {duration}, found {{\"value\": \"PT0S\"}}; \"PT13H\" \
                 is in force"
            ),
        ),
        (
            "{\"maxMessageSizeInBytes\": 9000}",
            "twin.json:2:27: maxMessageSizeInBytes: expected an object {\"value\": ...}, found 9000; 8192 is in \
             force"
                .to_owned(),
        ),
        (
            "{\"maxMessageSizeInBytes\": {\"value\": 4096}}",
            "twin.json:2:27: maxMessageSizeInBytes: expected {\"value\": a whole number from 8192 to 262144}, found \
             {\"value\": 4096}; 8192 is in force"
                .to_owned(),
        ),
        (
            "{\"eventPriorityLogin\": {\"value\": \"Medium\"}}",
            "twin.json:2:24: eventPriorityLogin: expected {\"value\": \"Off\", \"Low\" or \"High\"}, found \
             {\"value\": \"Medium\"}; \"High\" is in force"
                .to_owned(),
        ),
        (
            "{\"aggregationEnabledProcessCreate\": {\"value\": \"yes\"}}",
            "twin.json:2:37: aggregationEnabledProcessCreate: expected {\"value\": true or false}, found \
             {\"value\": \"yes\"}; false is in force"
                .to_owned(),
        ),
        (
            "{\"hubResourceId\": {\"value\": \"a\"},\n\"hubResourceId\": {\"value\": \"b\"}}",
            "twin.json:3:1: hubResourceId: expected each key once, found it again; null is in force".to_owned(),
        ),
        (
            "17",
            format!(
                "twin.json:2:1: {}: expected an object with the published keys, found a number; every default is \
                 in force",
                published::OBJECT
            ),
        ),
    ] {
        let config = loaded(&published(object));
        assert_eq!(config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [message.as_str()]);
        assert_eq!(*config.settings, Settings::default(), "{object}");
        let errors = config.configuration_errors();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].error_type, ConfigurationFault::TypeMismatch);
        assert_eq!(errors[0].message, message);
        serde_json::from_str::<serde_json::Value>(&errors[0].used_configuration).unwrap();
    }
}

#[test]
fn an_unknown_published_key_is_ignored_with_a_hint() {
    let config = loaded(&published("{\"eventPriorityLogins\": {\"value\": \"Off\"}, \"zebra\": 1}"));
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "twin.json:2:2: eventPriorityLogins: expected a published key (did you mean \"eventPriorityLogin\"?), \
             found an unknown key; it is ignored",
            "twin.json:2:43: zebra: expected a published key, found an unknown key; it is ignored",
        ]
    );
    assert_eq!(config.configuration_errors(), []);
    assert_eq!(*config.settings, Settings::default());
}

#[test]
fn neighbours_of_our_objects_are_left_alone_unless_they_are_misspelt() {
    let text = r#"{"properties": {"desired": {"Process_Mode": 1, "$version": 3, "edgewardn": {}}}}"#;
    assert_eq!(
        warnings(text),
        ["twin.json:1:63: properties.desired.edgewardn: expected \"edgewarden\", found a key that looks like it; it \
          is ignored"]
    );
}

#[test]
fn null_means_that_the_key_is_not_there() {
    let object = "{\"eventPriorityLogin\": null, \"snapshotFrequency\": {\"value\": null}}";
    let config = loaded(&published(object));
    assert_eq!((config.warnings.len(), &*config.settings), (0, &Settings::default()));
}

#[test]
fn the_old_operational_key_stands_for_three_and_yields_to_each() {
    let object = "{\"eventPriorityMessageStatistics\": {\"value\": \"High\"}, \
                  \"eventPriorityOperational\": {\"value\": \"off\"}}";
    let settings = loaded(&published(object)).settings;
    assert_eq!(settings.priority(Kind::ConfigurationError), Priority::Off);
    assert_eq!(settings.priority(Kind::DroppedEventsStatistics), Priority::Off);
    assert_eq!(settings.priority(Kind::MessageStatistics), Priority::High);
}

#[test]
fn values_that_contradict_each_other_are_settled() {
    let interval = |seconds| Duration::from_secs(seconds);
    for (object, intervals, sizes, fault) in [
        (
            r#"{"highPriorityMessageFrequency":{"value":"PT10H"}}"#,
            (interval(36_000), interval(36_000)),
            (64 << 20, 8192),
            Some(ConfigurationFault::Conflict),
        ),
        (
            r#"{"lowPriorityMessageFrequency":{"value":"PT1M"}}"#,
            (interval(60), interval(60)),
            (64 << 20, 8192),
            Some(ConfigurationFault::Conflict),
        ),
        (
            r#"{"highPriorityMessageFrequency":{"value":"PT2H"},"lowPriorityMessageFrequency":{"value":"PT1H"}}"#,
            (interval(3600), interval(3600)),
            (64 << 20, 8192),
            Some(ConfigurationFault::Conflict),
        ),
        (
            r#"{"maxLocalCacheSizeInBytes":{"value":10000},"maxMessageSizeInBytes":{"value":204800}}"#,
            (interval(420), interval(18_000)),
            (10_000, 8192),
            Some(ConfigurationFault::Conflict),
        ),
        (
            r#"{"maxMessageSizeInBytes":{"value":10000}}"#,
            (interval(420), interval(18_000)),
            (64 << 20, 10_000),
            Some(ConfigurationFault::NotOptimal),
        ),
        (r#"{"maxMessageSizeInBytes":{"value":262144}}"#, (interval(420), interval(18_000)), (64 << 20, 262_144), None),
    ] {
        let config = loaded(&published(object));
        let settings = &config.settings;
        assert_eq!((settings.high_interval, settings.low_interval), intervals, "{object}");
        assert_eq!((settings.max_cache_bytes, settings.max_message_bytes), sizes, "{object}");
        let errors = config.configuration_errors();
        assert_eq!(errors.first().map(|error| error.error_type), fault, "{object}");
        assert!(errors.iter().all(|error| !error.used_configuration.is_empty()), "{errors:?}");
    }
}

#[test]
fn own_keys_are_plain_values() {
    let text = r#"{"properties": {"desired": {"edgewarden": {"loginSource": "/var/log/secure",
        "processBackend": "poll", "processSnapshot": true, "foldFailedLogins": true, "processExclude": ["user=33", "executable=/opt/*"],
        "processFloodRate": 500, "redactAlso": ["licence", "tool -z"],
        "redactSecrets": false, "spoolSyncHigh": "PT1S", "spoolSyncLow": null}}}}"#;
    let config = loaded(text);
    assert_eq!(config.settings.collectors.login_source, LoginSource::File("/var/log/secure".into()));
    assert_eq!(config.settings.collectors.process_backend, ProcessBackend::Poll);
    assert!(config.settings.collectors.process_snapshot && config.settings.collectors.fold_failed_logins);
    let excluded: Vec<String> = config.settings.process_exclude.iter().map(ToString::to_string).collect();
    assert_eq!(excluded, ["user=33", "executable=/opt/*"]);
    assert_eq!(config.settings.process_flood_rate, Some(500));
    let redaction = &config.settings.collectors.redaction;
    assert_eq!((redaction.is_on, redaction.own()), (false, ["licence".to_owned(), "tool -z".to_owned()].as_slice()));
    assert_eq!(config.settings.spool_sync_high, Duration::from_secs(1));
    assert_eq!(config.settings.spool_sync_low, Duration::from_secs(30));
}

#[test]
fn every_value_tells_where_it_came_from() {
    let text = "{\"moduleId\": \"m\",\n\"properties\":{\"desired\":{\"ms_iotn:urn_azureiot_Security_\
                SecurityAgentConfiguration\":{\n\"highPriorityMessageFrequency\":{\"value\":\"PT10H\"}}}}}";
    let config = load("twin.json", text, Some(Path::new("/run/state"))).unwrap();
    let of = |key: &str| config.effective().into_iter().find(|row| row.key == key).unwrap();
    assert_eq!(of("moduleId").origin, Origin::Line(1));
    assert_eq!(
        (of("stateDirectory").value.as_str(), of("stateDirectory").origin),
        ("\"/run/state\"", Origin::Environment)
    );
    assert_eq!(of("highPriorityMessageFrequency").origin, Origin::Line(3));
    let low = of("lowPriorityMessageFrequency");
    assert_eq!((low.value.as_str(), low.origin), ("\"PT10H\"", Origin::Raised("highPriorityMessageFrequency")));
    assert_eq!(of("snapshotFrequency").origin, Origin::Default);
}

#[test]
fn a_password_over_plain_tcp_is_remarked_on() {
    let text = connected(r#"{"url": "mqtt://h", "username": "u", "passwordFile": "/p"}"#);
    let warnings = warnings(&text);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("plain text"), "{}", warnings[0]);
    assert_eq!(self::warnings(&connected(r#"{"url": "mqtt://h"}"#)), [""; 0]);
}

#[test]
fn a_named_file_has_to_be_there_and_the_usual_one_need_not() {
    let missing = Path::new("/nonexistent/twin.json");
    let config = load_from(missing, false, None).unwrap();
    assert_eq!(*config.settings, Settings::default());
    assert_eq!(
        config.warnings[0].to_string(),
        "/nonexistent/twin.json: expected a configuration file, found No such file or directory (os error 2); the \
         defaults are in force, without a connection"
    );
    let refusals = load_from(missing, true, None).unwrap_err();
    assert!(
        refusals[0].to_string().starts_with("/nonexistent/twin.json: expected a configuration file, found No such")
    );
    assert!(load_from(Path::new("/"), true, None).is_err());
    assert!(load_from(Path::new("/dev/zero"), true, None).is_err());
}

#[test]
fn a_file_is_read_with_its_marks_and_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twin.json");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load_from(&path, false, None)
    };
    assert_eq!(read(b"\xef\xbb\xbf{\"deviceId\": \"a\"}").unwrap().local.device_id.as_deref(), Some("a"));
    let refusal = read(b"{\n\"deviceId\": \"\xff\"}").unwrap_err()[0].to_string();
    assert!(refusal.ends_with("twin.json:2:14: expected UTF-8, found bytes that are not"), "{refusal}");
    let refusal = read(&vec![b' '; 1024 * 1024 + 1]).unwrap_err()[0].to_string();
    assert!(refusal.ends_with("expected at most 1 MiB of JSON, found more"), "{refusal}");
}

#[test]
fn who_may_write_the_file_is_looked_at() {
    assert_eq!(exposed("f", 0o100_644, 0, 1000), None);
    assert_eq!(exposed("f", 0o100_600, 1000, 1000), None);
    assert_eq!(
        exposed("f", 0o100_646, 0, 0).unwrap().to_string(),
        "f: expected a file that only root can change, found mode 0646, which lets everybody change it; it is used \
         all the same"
    );
    assert!(exposed("f", 0o100_644, 1000, 0).unwrap().to_string().contains("user 1000"));
}

#[test]
fn mangled_files_never_panic_and_always_have_a_place() {
    let mut random = fastrand::Rng::with_seed(17);
    let whole = EXPORTED_TWIN.replace("\"tags\"", "\"connection\": {\"url\": \"mqtts://h:1\"}, \"tags\"");
    for round in 0..2_000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..=random.usize(..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]\",:\\0nu"[random.usize(..11)]),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = load("f", &text, None) {
            assert!(problems.iter().all(|problem| problem.position.is_some()), "round {round}: {problems:?}");
        }
    }
}
