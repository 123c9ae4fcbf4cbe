//! What the agent makes of a twin that is wrong, foreign, or changed while it runs.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, DESIRED, cli, connection};
use crate::arrivals::{assert_each_once, wait_ports};
use crate::hub::{Hub, details};
use crate::wait;

/// A twin whose fault is on line 4, and a word the message must hold.
const FATAL: [(&str, &str, &str); 6] = [
    ("broken JSON", "{\n  \"deviceId\": \"a\",\n\n  \"stateDirectory\" \"/nowhere\"\n}\n", ""),
    ("an unknown own key", "{\n  \"deviceId\": \"a\",\n\n  \"stateDirektory\": \"/nowhere\"\n}\n", "stateDirektory"),
    ("a wrong type", "{\n  \"deviceId\": \"a\",\n\n  \"stateDirectory\": 5\n}\n", "stateDirectory"),
    (
        "an unknown key of the connection",
        "{\n  \"deviceId\": \"a\",\n  \"connection\": { \"profile\": \"mqtt\", \"url\": \"mqtt://127.0.0.1:1\",\n    \"cafile\": \"x\" }\n}\n",
        "cafile",
    ),
    (
        "an unknown profile",
        "{\n  \"deviceId\": \"a\",\n  \"connection\": { \"url\": \"mqtt://127.0.0.1:1\",\n    \"profile\": \"carrier pigeon\" }\n}\n",
        "profile",
    ),
    ("a device id no topic can hold", "{\n  \"moduleId\": \"a\",\n\n  \"deviceId\": \"a/b\"\n}\n", "deviceId"),
];

#[test]
fn a_fault_of_the_operator_is_told_with_its_place_and_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    for (what, text, word) in FATAL {
        let path = dir.path().join("twin.json");
        std::fs::write(&path, text).unwrap();
        let out = cli(&["run", "--config", path.to_str().unwrap()]);
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(78), "{what}: {told}");
        assert_eq!(told.lines().count(), 1, "{what}: one line for an operator: {told}");
        assert!(told.contains(&format!("{}:4:", path.display())), "{what}: the place: {told}");
        assert!(told.contains(word), "{what}: the key: {told}");
        let column = told.split(&format!("{}:4:", path.display())).nth(1).unwrap();
        assert!(column.starts_with(|first: char| ('1'..='9').contains(&first)), "{what}: the column: {told}");
    }
}

#[test]
fn a_config_that_is_not_there_is_told_and_ends_with_78() {
    let out = cli(&["run", "--config", "/nonexistent/twin.json"]);
    let told = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(78), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("/nonexistent/twin.json"), "{told}");
}

#[test]
fn a_wrong_desired_key_keeps_its_default_and_is_reported_to_the_hub() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-50", connection(hub.port));
    agent.set("eventPriorityLogin", json!("Hgh"));
    agent.set("eventPriorityConfigurationError", json!("High"));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_003);
    wait_ports("logins with the default priority", 30_000..30_003, || hub.arrivals());
    let row = hub.wait_row("the report", |row| row["RawEventName"] == "ConfigurationError");
    let report = details(&row);
    assert_eq!(report["ErrorType"], "TypeMismatch");
    assert_eq!(report["ConfigurationName"], "eventPriorityLogin");
    assert!(report["Message"].as_str().unwrap().contains("Hgh"), "{report}");
    assert!(agent.log().contains("eventPriorityLogin"), "{}", agent.log());
}

/// What `az iot hub module-twin show` and the portal give: our keys are absent, many others are there.
#[test]
fn a_twin_exported_from_the_old_service_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("twin.json");
    let twin = json!({
        "deviceId": "old-device", "moduleId": "azureiotsecurity", "etag": "AAAAAAAAAAM=", "deviceEtag": "NTM3MTU2",
        "status": "enabled", "statusUpdateTime": "0001-01-01T00:00:00Z", "connectionState": "Disconnected",
        "lastActivityTime": "0001-01-01T00:00:00Z", "cloudToDeviceMessageCount": 0, "authenticationType": "sas",
        "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null }, "modelId": "", "version": 5,
        "tags": { "site": "hall 3" },
        "properties": {
            "desired": {
                DESIRED: {
                    "highPriorityMessageFrequency": { "value": "PT7M" }, "lowPriorityMessageFrequency": { "value": "PT5H" },
                    "snapshotFrequency": { "value": "PT13H" }, "maxLocalCacheSizeInBytes": { "value": 2_560_000 },
                    "maxMessageSizeInBytes": { "value": 204_800 }, "eventPriorityConnectedHardware": { "value": "Low" },
                    "eventPriorityListeningPorts": { "value": "High" }, "eventPriorityProcessCreate": { "value": "Low" },
                    "eventPriorityProcessTerminate": { "value": "Low" }, "eventPrioritySystemInformation": { "value": "Low" },
                    "eventPriorityLocalUsers": { "value": "High" }, "eventPriorityLogin": { "value": "High" },
                    "eventPriorityConnectionCreate": { "value": "Low" },
                    "eventPriorityFirewallConfiguration": { "value": "Low" }, "eventPriorityOSBaseline": { "value": "Low" },
                    "eventPriorityDiagnostic": { "value": "Low" }, "eventPriorityConfigurationError": { "value": "Low" },
                    "eventPriorityDroppedEventsStatistics": { "value": "Low" },
                    "eventPriorityMessageStatistics": { "value": "Low" },
                    "aggregationEnabledProcessCreate": { "value": false }, "aggregationIntervalProcessCreate": { "value": "PT1H" },
                },
                "$metadata": { "$lastUpdated": "2021-05-01T10:00:00.0000000Z" }, "$version": 4,
            },
            "reported": {
                "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
                    "highPriorityMessageFrequency": { "value": "PT7M", "ac": 200, "av": 4 },
                },
                "$metadata": { "$lastUpdated": "2021-05-01T10:00:05.0000000Z" }, "$version": 9,
            },
        },
    });
    std::fs::write(&path, serde_json::to_string_pretty(&twin).unwrap()).unwrap();
    let out = cli(&["check", "--config", path.to_str().unwrap()]);
    let (told, problems) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{} {told} {problems}", out.status);
    assert!(told.contains("PT7M") && told.contains("snapshotFrequency"), "the effective settings: {told}");
}

#[test]
fn a_missing_certificate_leaves_the_agent_collecting() {
    let mut agent = Agent::new(
        "press-51",
        json!({ "profile": "mqtt", "url": "mqtts://127.0.0.1:1", "caFile": "/nonexistent/ca.pem" }),
    );
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(31_000..31_005);
    let status = agent.wait_status("five events kept and the reason named", |status| {
        status["events"]["byKind"]["Login"].as_u64() >= Some(5) && status.to_string().contains("/nonexistent/ca.pem")
    });
    assert_eq!(status["connected"], false);
    assert!(agent.is_running());
}

#[test]
fn sighup_applies_a_good_file_and_keeps_the_last_good_one_otherwise() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-52", connection(hub.port));
    agent.start();
    agent.wait_collecting();

    let is_told = |agent: &Agent, path: &Path| agent.log().contains(&format!("{}:1:", path.display()));
    std::fs::write(agent.config(), "{ \"deviceId\": \"press-52\", ").unwrap();
    assert!(!is_told(&agent, &agent.config()), "{}", agent.log());
    agent.signal(Signal::SIGHUP);
    wait::until_true("the complaint about the file", || is_told(&agent, &agent.config()));
    agent.fail_logins(32_000..32_005);
    wait_ports("logins under the last good file", 32_000..32_005, || hub.arrivals());

    agent.set("eventPriorityLogin", json!("Off"));
    agent.write_twin();
    agent.signal(Signal::SIGHUP);
    agent.wait_status("logins to be off", |status| status["collectors"]["Login"]["state"] == "off");

    agent.set("eventPriorityLogin", json!("High"));
    agent.write_twin();
    agent.signal(Signal::SIGHUP);
    agent.wait_collecting();
    agent.fail_logins(32_005..32_010);
    wait_ports("logins again", 32_000..32_010, || hub.arrivals());
    assert_each_once(32_000..32_010, &hub.arrivals());
    assert!(agent.is_running());
}
