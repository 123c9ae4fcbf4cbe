use super::*;
use crate::config::load;

const KEY: &str = "c2VjcmV0LWtleS1vZi1wcmVzcy0xNy0wMTIzNDU2Nzg=";
const NOW_US: i64 = 1_794_996_400_000_000;

fn connection(text: &str) -> Connection {
    let file = format!("{{\"deviceId\": \"press-17\", \"connection\": {text}}}");
    let loaded = load("twin.json", &file, None).unwrap_or_else(|problems| panic!("{problems:?}"));
    loaded.local.connection.unwrap()
}

fn planned(text: &str, secret: Secret, wall_us: i64) -> Result<Plan, String> {
    plan(&connection(text), "press-17", "azureiotsecurity", secret, wall_us)
}

fn made(text: &str, secret: Secret) -> Plan {
    planned(text, secret, NOW_US).unwrap_or_else(|why| panic!("{why}"))
}

fn string(rest: &str) -> Secret {
    Secret::ConnectionString(format!("HostName=hub.azure-devices.net;{rest};SharedAccessKey={KEY}"))
}

#[test]
fn every_byte_of_an_iot_hub_connection() {
    const BY_STRING: &str = r#"{"profile": "iothub", "connectionStringFile": "/s"}"#;
    const BY_KEY: &str = r#"{"profile": "iothub", "url": "mqtts://hub.azure-devices.net", "sasKeyFile": "/k""#;
    const BY_CERTIFICATE: &str =
        r#"{"profile": "iothub", "url": "mqtts://hub.azure-devices.net", "certFile": "/c", "keyFile": "/k"}"#;
    let key = || Secret::SharedAccessKey(KEY.to_owned());
    const DEVICE_TOKEN: &str = "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fpress-17&sig=\
                                le8bBbtTAxfCPojTciUgfDDu9s2f3uL%2Bk%2Blv0uZ%2BUFw%3D&se=1795000000";
    const MODULE_TOKEN: &str = "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fpress-17%2Fmodules%2F\
                                azureiotsecurity&sig=xLhc%2FFkPHSCrkFnu2zCKsUMs7w7SeXrozO6Wn80VOjE%3D&se=1795000000";
    const BAG: &str = "%24.ct=application%2Fjson&%24.ce=utf-8&messageSource=security-agent";
    for (text, secret, is_module, token) in [
        (BY_STRING.to_owned(), string("DeviceId=press-17"), false, Some(DEVICE_TOKEN)),
        (BY_STRING.to_owned(), string("DeviceId=press-17;ModuleId=azureiotsecurity"), true, Some(MODULE_TOKEN)),
        (format!("{BY_KEY}}}"), key(), true, Some(MODULE_TOKEN)),
        (format!("{BY_KEY}, \"identity\": \"device\"}}"), key(), false, Some(DEVICE_TOKEN)),
        (BY_CERTIFICATE.to_owned(), Secret::None, true, None),
    ] {
        let plan = made(&text, secret);
        let server = Server { tls: true, host: "hub.azure-devices.net".to_owned(), port: 8883 };
        assert_eq!(plan.server, server, "{text}");
        let (client_id, username, topic) = if is_module {
            (
                "press-17/azureiotsecurity",
                "hub.azure-devices.net/press-17/azureiotsecurity/?api-version=2021-04-12",
                format!("devices/press-17/modules/azureiotsecurity/messages/events/{BAG}"),
            )
        } else {
            (
                "press-17",
                "hub.azure-devices.net/press-17/?api-version=2021-04-12",
                format!("devices/press-17/messages/events/{BAG}"),
            )
        };
        assert_eq!((plan.client_id.as_str(), plan.username.as_deref()), (client_id, Some(username)), "{text}");
        assert_eq!((&plan.topic, plan.password.as_deref()), (&topic, token), "{text}");
        assert_eq!(plan.renew_after, token.map(|_| Duration::from_secs(2880)), "{text}");
        assert_eq!((plan.max_message_bytes, plan.alpn), (262_144 - topic.len(), None), "{text}");
    }
    let plan = made(&format!("{BY_KEY}, \"interfaceId\": true, \"sasLifetime\": \"PT10M\"}}"), key());
    assert!(plan.topic.ends_with("&%24.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1"), "{}", plan.topic);
    assert_eq!(plan.renew_after, Some(Duration::from_secs(480)));
    assert!(plan.password.is_some_and(|token| token.ends_with("&se=1794997000")));
}

#[test]
fn a_gateway_is_where_to_connect_and_the_hub_stays_the_name() {
    let text = r#"{"profile": "iothub", "connectionStringFile": "/s"}"#;
    let plan = made(text, string("DeviceId=press-17;GatewayHostName=edge.local"));
    assert_eq!(plan.server.host, "edge.local");
    assert_eq!(plan.username.as_deref(), Some("hub.azure-devices.net/press-17/?api-version=2021-04-12"));
    let text = r#"{"profile": "iothub", "url": "mqtts://10.0.0.1:9", "connectionStringFile": "/s"}"#;
    let plan = made(text, string("DeviceId=press-17"));
    assert_eq!((plan.server.host.as_str(), plan.server.port), ("10.0.0.1", 9));
    assert_eq!(plan.username.as_deref(), Some("hub.azure-devices.net/press-17/?api-version=2021-04-12"));
}

#[test]
fn what_keeps_a_token_from_being_made_is_said() {
    let text = r#"{"profile": "iothub", "connectionStringFile": "/s"}"#;
    for (secret, wall_us, words) in [
        (string("DeviceId=press-17"), 1_000_000, "the clock is wrong: it says 1970-01-01T00:00:01Z"),
        (string("DeviceId=press-18"), NOW_US, "another device than press-17"),
        (string("ModuleId=m"), NOW_US, "the connection string cannot be used: it has no DeviceId"),
        (string("DeviceId=press-17;ModuleId=a/b"), NOW_US, "knows no id \"a/b\""),
        (Secret::None, NOW_US, "says where the hub is"),
    ] {
        let why = planned(text, secret, wall_us).err().unwrap();
        assert!(why.contains(words) && !why.contains(KEY), "{why}");
    }
}

#[test]
fn aws_wants_alpn_on_443_only_and_smaller_messages() {
    for (port, alpn) in [("", None), (":443", Some("x-amzn-mqtt-ca"))] {
        let text = format!(
            r#"{{"profile": "aws", "url": "mqtts://a-ats.iot.eu-west-1.amazonaws.com{port}", "certFile": "/c", "keyFile": "/k"}}"#
        );
        let plan = made(&text, Secret::None);
        assert_eq!((plan.alpn.as_deref(), plan.client_id.as_str()), (alpn, "press-17"));
        assert_eq!((plan.username, plan.password, plan.renew_after), (None, None, None));
        assert_eq!((plan.topic.as_str(), plan.max_message_bytes), ("edgewarden/press-17/security", 131_072));
    }
}

#[test]
fn a_plain_broker_gets_what_the_file_says() {
    let text = r#"{"url": "mqtt://h", "username": "u", "passwordFile": "/p", "topic": "t/{deviceId}"}"#;
    let plan = made(text, Secret::Password("p".to_owned()));
    assert_eq!((plan.username.as_deref(), plan.password.as_deref()), (Some("u"), Some("p")));
    assert_eq!((plan.topic.as_str(), plan.alpn, plan.max_message_bytes), ("t/press-17", None, 262_144));
}
