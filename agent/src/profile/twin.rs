//! The topics by which a hub tells a device what it wants of it, byte by byte. No I/O.
//!
//! ```text
//! iothub    asked     $iothub/twin/GET/?$rid=R                          told  $iothub/twin/res/STATUS/?$rid=R
//!           reported  $iothub/twin/PATCH/properties/reported/?$rid=R    told  $iothub/twin/res/STATUS/?$rid=R&$version=V
//!                                                                       told  $iothub/twin/PATCH/properties/desired/?$version=V
//! retained  reported  edgewarden/D/twin/reported                        told  edgewarden/D/twin/desired
//! ```
//!
//! Source: "Communicate with an IoT hub by using MQTT" (Azure documentation).

const ANSWERS: &str = "$iothub/twin/res/";
const CHANGES: &str = "$iothub/twin/PATCH/properties/desired/";

/// Which topics a hub has for the twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TwinTopics {
    /// Those of Azure IoT Hub.
    IotHub,
    /// Two retained topics of any other broker.
    Retained {
        /// The device's id.
        device_id: String,
    },
}

/// What a message on one of the topics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to the request with this number.
    Answer {
        /// 200 with a twin, 204 for a report that was taken, otherwise an error.
        status: u16,
        /// The number of the request.
        request: u32,
    },
    /// A change of the desired properties, which makes them this version.
    Change {
        /// The version.
        version: u64,
    },
    /// All desired properties.
    Whole,
}

impl TwinTopics {
    /// What to subscribe to after every CONNACK.
    pub fn filters(&self) -> Vec<String> {
        match self {
            TwinTopics::IotHub => vec![format!("{ANSWERS}#"), format!("{CHANGES}#")],
            TwinTopics::Retained { device_id } => vec![format!("edgewarden/{device_id}/twin/desired")],
        }
    }

    /// Where to ask for the twin, with nothing in the message; `None` where a subscription is answered with it.
    pub fn get(&self, request: u32) -> Option<String> {
        (*self == TwinTopics::IotHub).then(|| format!("$iothub/twin/GET/?$rid={request}"))
    }

    /// Where to report, and whether the broker has to retain it.
    pub fn report(&self, request: u32) -> (String, bool) {
        match self {
            TwinTopics::IotHub => (format!("$iothub/twin/PATCH/properties/reported/?$rid={request}"), false),
            TwinTopics::Retained { device_id } => (format!("edgewarden/{device_id}/twin/reported"), true),
        }
    }

    /// What a message on this topic is; `None` when it is none of the twin's.
    pub fn told(&self, topic: &str) -> Option<Told> {
        if let TwinTopics::Retained { .. } = self {
            return self.filters().iter().any(|filter| filter == topic).then_some(Told::Whole);
        }
        if let Some(query) = topic.strip_prefix(CHANGES) {
            return Some(Told::Change { version: parameter(query, "$version")?.parse().ok()? });
        }
        let (status, query) = topic.strip_prefix(ANSWERS)?.split_once('/')?;
        Some(Told::Answer { status: status.parse().ok()?, request: parameter(query, "$rid")?.parse().ok()? })
    }
}

/// The value of a parameter in `?name=value&...`.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let parts = query.strip_prefix('?')?.split('&');
    parts.filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_iot_hub_sees_its_own_topics() {
        let topics = TwinTopics::IotHub;
        assert_eq!(topics.filters(), ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"]);
        assert_eq!(topics.get(7).unwrap(), "$iothub/twin/GET/?$rid=7");
        assert_eq!(topics.report(8), ("$iothub/twin/PATCH/properties/reported/?$rid=8".to_owned(), false));
        for (topic, told) in [
            ("$iothub/twin/res/200/?$rid=7", Some(Told::Answer { status: 200, request: 7 })),
            ("$iothub/twin/res/204/?$rid=8&$version=3", Some(Told::Answer { status: 204, request: 8 })),
            ("$iothub/twin/PATCH/properties/desired/?$version=9", Some(Told::Change { version: 9 })),
            ("$iothub/twin/PATCH/properties/desired/?$version=-1", None),
            ("$iothub/twin/PATCH/properties/desired/", None),
            ("$iothub/twin/res/200/?$rid=", None),
            ("$iothub/methods/POST/reboot/?$rid=1", None),
            ("edgewarden/press-17/twin/desired", None),
        ] {
            assert_eq!(topics.told(topic), told, "{topic}");
        }
    }

    #[test]
    fn another_broker_sees_two_topics_below_the_device() {
        let topics = TwinTopics::Retained { device_id: "press-17".to_owned() };
        assert_eq!(topics.filters(), ["edgewarden/press-17/twin/desired"]);
        assert_eq!(topics.get(1), None);
        assert_eq!(topics.report(1), ("edgewarden/press-17/twin/reported".to_owned(), true));
        assert_eq!(topics.told("edgewarden/press-17/twin/desired"), Some(Told::Whole));
        assert_eq!(topics.told("edgewarden/press-18/twin/desired"), None);
        assert_eq!(topics.told("$iothub/twin/PATCH/properties/desired/?$version=2"), None);
    }
}
