-- Edgewarden's events in ClickHouse 26.9 or newer. Replace your_hub_name, then: clickhouse-client --multiquery < tables.sql
--
--   a connector inserts (Topic, Body) ──▶ Envelope ──view──▶ SecurityIoTRawEvent    one row a payload item
--                                             └─────view──▶ Refused                 what is no message
--
-- A message that is delivered twice gives the same rows twice; the table keeps one of them when it merges, and FINAL, which
-- the setting final = 1 puts behind every table, counts one before that too.

CREATE FUNCTION edgewardenResourceId AS () -> '/edgewarden/hubs/your_hub_name';

-- The topic is edgewarden/{deviceId}/security: the broker has to see to it that a device writes to its own only.
CREATE FUNCTION edgewardenDevice AS (topic) -> splitByChar('/', topic)[2];

CREATE TABLE Envelope (
    Received DateTime64(7, 'UTC') DEFAULT now64(7, 'UTC'),
    Topic String,
    Body String
) ENGINE = Null;

CREATE TABLE SecurityIoTRawEvent (
    TimeGenerated DateTime64(7, 'UTC'),
    AgentVersion LowCardinality(String),
    AssociatedResourceId LowCardinality(String),
    AzureSubscriptionId LowCardinality(String),
    DeviceId LowCardinality(String),
    EventDetails String CODEC(ZSTD(3)),
    IoTRawEventId String,
    IsEmpty Bool,
    RawEventCategory LowCardinality(String),
    RawEventName LowCardinality(String),
    RawEventType LowCardinality(String),
    TimeStamp DateTime64(7, 'UTC'),
    Type LowCardinality(String),
    PayloadIndex UInt32
) ENGINE = ReplacingMergeTree(TimeGenerated)
ORDER BY (DeviceId, RawEventName, TimeStamp, IoTRawEventId, PayloadIndex)
PARTITION BY toYYYYMM(TimeStamp)
TTL toDateTime(TimeStamp) + INTERVAL 1 YEAR;

CREATE MATERIALIZED VIEW EnvelopeToEvents TO SecurityIoTRawEvent AS
SELECT
    Received AS TimeGenerated,
    JSONExtractString(Body, 'AgentVersion') AS AgentVersion,
    edgewardenResourceId() AS AssociatedResourceId,
    '' AS AzureSubscriptionId,
    edgewardenDevice(Topic) AS DeviceId,
    concat(
        substring(item, 1, length(item) - 1), if(item = '{}', '', ','),
        '"TimestampLocal":', JSONExtractRaw(event, 'TimestampLocal'),
        ',"TimestampUTC":', JSONExtractRaw(event, 'TimestampUTC'),
        ',"EventId":', JSONExtractRaw(event, 'Id'), '}') AS EventDetails,
    JSONExtractString(event, 'Id') AS IoTRawEventId,
    JSONExtractBool(event, 'IsEmpty') AS IsEmpty,
    JSONExtractString(event, 'Category') AS RawEventCategory,
    JSONExtractString(event, 'Name') AS RawEventName,
    JSONExtractString(event, 'EventType') AS RawEventType,
    parseDateTime64BestEffortOrZero(JSONExtractString(event, 'TimestampUTC'), 7, 'UTC') AS TimeStamp,
    'SecurityIoTRawEvent' AS Type,
    number - 1 AS PayloadIndex
FROM (
    SELECT Received, Topic, Body, event,
        if(empty(JSONExtractArrayRaw(event, 'Payload')), ['{}'], JSONExtractArrayRaw(event, 'Payload')) AS items
    FROM Envelope ARRAY JOIN JSONExtractArrayRaw(Body, 'Events') AS event
)
ARRAY JOIN items AS item, arrayEnumerate(items) AS number;

CREATE TABLE Refused (
    Received DateTime64(7, 'UTC'),
    Topic String,
    Body String
) ENGINE = MergeTree ORDER BY Received TTL toDateTime(Received) + INTERVAL 30 DAY;

CREATE MATERIALIZED VIEW EnvelopeToRefused TO Refused AS
SELECT Received, Topic, Body FROM Envelope WHERE empty(JSONExtractArrayRaw(Body, 'Events'));

-- The guide's first query reads alerts; here nothing derives them. A product that does writes them into this table.
CREATE TABLE SecurityAlert (
    TimeGenerated DateTime64(7, 'UTC'),
    AlertName String,
    AlertSeverity LowCardinality(String),
    Description String,
    ExtendedProperties String,
    ResourceId LowCardinality(String)
) ENGINE = MergeTree ORDER BY TimeGenerated;
