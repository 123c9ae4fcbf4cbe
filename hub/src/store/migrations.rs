//! The formats of the store, each step as SQL.

/// Step n brings format n to n + 1. A step that was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE SecurityIoTRawEvent (
        TimeGenerated TEXT NOT NULL,
        AgentVersion TEXT NOT NULL,
        AssociatedResourceId TEXT NOT NULL,
        AzureSubscriptionId TEXT NOT NULL,
        DeviceId TEXT NOT NULL,
        EventDetails TEXT NOT NULL,
        IoTRawEventId TEXT NOT NULL,
        IsEmpty INTEGER NOT NULL,
        RawEventCategory TEXT NOT NULL,
        RawEventName TEXT NOT NULL,
        RawEventType TEXT NOT NULL,
        TimeStamp TEXT NOT NULL,
        Type TEXT NOT NULL,
        PayloadIndex INTEGER NOT NULL,
        UNIQUE (DeviceId, IoTRawEventId, PayloadIndex)
    ) STRICT;
    CREATE INDEX DeviceNameTime ON SecurityIoTRawEvent (DeviceId, RawEventName, TimeStamp);
    CREATE TABLE Refused (
        Received TEXT NOT NULL,
        Topic TEXT NOT NULL,
        Reason TEXT NOT NULL,
        Payload BLOB NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE SecurityAlert (
        TimeGenerated TEXT NOT NULL,
        AlertLink TEXT NOT NULL DEFAULT '',
        AlertName TEXT NOT NULL DEFAULT '',
        AlertSeverity TEXT NOT NULL DEFAULT '',
        AlertType TEXT NOT NULL DEFAULT '',
        CompromisedEntity TEXT NOT NULL DEFAULT '',
        ConfidenceLevel TEXT NOT NULL DEFAULT '',
        ConfidenceScore REAL,
        Description TEXT NOT NULL DEFAULT '',
        DisplayName TEXT NOT NULL DEFAULT '',
        EndTime TEXT NOT NULL DEFAULT '',
        Entities TEXT NOT NULL DEFAULT '',
        ExtendedLinks TEXT NOT NULL DEFAULT '',
        ExtendedProperties TEXT NOT NULL DEFAULT '',
        IsIncident INTEGER NOT NULL DEFAULT 0,
        ProcessingEndTime TEXT NOT NULL DEFAULT '',
        ProductComponentName TEXT NOT NULL DEFAULT '',
        ProductName TEXT NOT NULL DEFAULT '',
        ProviderName TEXT NOT NULL DEFAULT '',
        RemediationSteps TEXT NOT NULL DEFAULT '',
        ResourceId TEXT NOT NULL DEFAULT '',
        SourceComputerId TEXT NOT NULL DEFAULT '',
        SourceSystem TEXT NOT NULL DEFAULT '',
        StartTime TEXT NOT NULL DEFAULT '',
        Status TEXT NOT NULL DEFAULT '',
        SubTechniques TEXT NOT NULL DEFAULT '',
        SystemAlertId TEXT NOT NULL PRIMARY KEY,
        Tactics TEXT NOT NULL DEFAULT '',
        Techniques TEXT NOT NULL DEFAULT '',
        TenantId TEXT NOT NULL DEFAULT '',
        Type TEXT NOT NULL DEFAULT 'SecurityAlert',
        VendorName TEXT NOT NULL DEFAULT '',
        VendorOriginalId TEXT NOT NULL DEFAULT '',
        WorkspaceResourceGroup TEXT NOT NULL DEFAULT '',
        WorkspaceSubscriptionId TEXT NOT NULL DEFAULT '',
        Stored TEXT NOT NULL
    ) STRICT;
    CREATE INDEX AlertTime ON SecurityAlert (TimeGenerated);
    CREATE INDEX AlertStored ON SecurityAlert (Stored);
    CREATE INDEX AlertOfDevice ON SecurityAlert (CompromisedEntity, EndTime);
    ALTER TABLE SecurityIoTRawEvent ADD COLUMN LoginKey TEXT;
    UPDATE SecurityIoTRawEvent SET LoginKey =
        json_extract(EventDetails, '$.Result') || ' ' || json_extract(EventDetails, '$.RemoteAddress')
        WHERE RawEventName = 'Login';
    CREATE INDEX LoginsOfAddress ON SecurityIoTRawEvent (DeviceId, LoginKey, TimeStamp) WHERE LoginKey IS NOT NULL;
    CREATE TABLE Device (
        DeviceId TEXT NOT NULL PRIMARY KEY,
        ResourceId TEXT NOT NULL,
        LastSeen TEXT NOT NULL,
        SilenceTold INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE PendingSnapshot (
        DeviceId TEXT NOT NULL,
        TimeStamp TEXT NOT NULL,
        ResourceId TEXT NOT NULL,
        Received TEXT NOT NULL,
        PRIMARY KEY (DeviceId, TimeStamp)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX PendingReceived ON PendingSnapshot (Received);
",
];
