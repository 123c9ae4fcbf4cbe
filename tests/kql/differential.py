"""The investigation guide's queries on random stores, answered by edgewarden-hub and by ClickHouse, which must agree.

    differential.py HUB QUERIES [DATA_SETS [SEED]]

HUB is the program, QUERIES the directory with the *.kql files. The other engine is chDB, ClickHouse as a Python module;
its Kusto dialect lacks two old spellings, which are defined here. Needs the package that scripts/setup-kql.sh installs.

What is random is the content: missing keys, text for numbers, quotes, control characters, broken JSON, other devices and
hubs. Kept out is what the two engines define apart and no agent writes: objects where the schema has text, times that are
no RFC 3339.
"""

import json
import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile

from chdb.session import Session

DEVICE, HUB = "YOUR_DEVICE_ID", "YOUR_HUB_NAME"
COLUMNS = ["TimeGenerated", "AgentVersion", "AssociatedResourceId", "AzureSubscriptionId", "DeviceId", "EventDetails",
           "IoTRawEventId", "IsEmpty", "RawEventCategory", "RawEventName", "RawEventType", "TimeStamp", "Type"]
ALERT_COLUMNS = ["TimeGenerated", "AlertName", "AlertSeverity", "Description", "ExtendedProperties", "ResourceId"]
# Kusto's makeset keeps this many; which ones it does not say.
MAKESET_KEEPS = 128

WORDS = ["root", "pi", "(invalid user)", "(INVALID user)", "(unknown user)", "", "a b", "o'brien", 'quo"te', "täst", "日本",
         "back\\slash", "tab\there", "line\nend", "bell\x07", "nul\x00", "x" * 300, "\U0001f600", "<script>", "%s", "$.a"]
ADDRESSES = ["127.0.0.1", "::1", "0.0.0.0", "::", "198.51.100.7", "203.0.113.9", "2001:db8::1", ""]
PORTS = ["22", "80", "1024", "1025", "0", "65535", "*", "631x", "53248-53250", "22,53", "", "-1", "99999999999",
         "９"]


def moment(rng):
    fraction = rng.choice(["", ".5", ".123", ".123456", ".1234567"])
    zone = rng.choice(["Z", "+01:00", "-05:30", "+00:00"])
    return (f"20{rng.randint(20, 30)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
            f"T{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}{fraction}{zone}")


def value_of(rng, key, wide):
    if key == "TimestampLocal":
        return rng.choice([moment(rng)] * 9 + ["not a time", ""])
    if "Port" in key:
        return rng.choice([rng.choice(PORTS), rng.randint(-5, 70000)])
    if "Address" in key:
        return f"10.0.{rng.randrange(9)}.{rng.randrange(256)}" if wide else rng.choice(ADDRESSES)
    if key in ("UserId", "ProcessId"):
        return rng.choice([str(rng.randint(0, 5)), rng.randint(0, 5), "(unknown)"])
    if wide and key == "CommandLine":
        return f"sleep {rng.randrange(400)}"
    return rng.choice(WORDS)


KEYS = {
    "LocalUsers": ["UserName", "UserId", "GroupNames", "GroupIds"],
    "ListeningPorts": ["Protocol", "LocalAddress", "LocalPort", "RemoteAddress", "RemotePort"],
    "Login": ["UserName", "UserId", "Executable", "RemoteAddress", "RemotePort", "Result", "Operation", "ProcessId"],
    "ProcessCreate": ["Executable", "CommandLine", "UserId", "ProcessId", "ParentProcessId"],
    "Diagnostic": ["Message", "Severity"],
}


def details(rng, name, wide):
    keys = ["TimestampLocal"] + KEYS[name]
    out = {key: value_of(rng, key, wide) for key in keys if rng.random() > 0.1}
    if not wide and rng.random() < 0.3:
        # Few values, so that groups have several members.
        out.update({key: value for key, value in
                    {"Executable": "/bin/sh", "Protocol": "TCP", "UserName": "root", "Result": "Fail"}.items()
                    if key in keys})
    text = json.dumps(out, ensure_ascii=rng.random() < 0.3, separators=(",", ":"))
    if rng.random() < 0.05:
        text = rng.choice([text[: rng.randrange(len(text))], "", "null", "[]", "nonsense", "{}", "7"])
    return text


def device_and_hub(rng):
    device = rng.choice([DEVICE] * 6 + ["your_device_id", "OTHER", DEVICE + "2", ""])
    hub = rng.choice([HUB.lower()] * 6 + [HUB, "other_hub", "your_hub_name_2", ""])
    return device, f"/subscriptions/0/devices/iothubs/{hub}"


def data_set(rng):
    """Rows of both tables. Some sets have more distinct values than a set keeps."""
    wide = rng.random() < 0.1
    events, alerts = [], []
    for number in range(rng.choice([0, 1, 5, 40, 800 if wide else 120])):
        device, resource = device_and_hub(rng)
        name = rng.choice(list(KEYS))
        events.append(["2026-11-24T00:00:00.000000Z", "1", resource, "", device, details(rng, name, wide),
                       f"id-{number}", 0, "Triggered", name, "Security", "2026-11-24T00:00:00.000000Z",
                       "SecurityIoTRawEvent"])
    for _ in range(rng.choice([0, 1, 5, 20])):
        device, resource = device_and_hub(rng)
        alerts.append(["2026-11-24T00:00:00.000000Z", rng.choice(WORDS), rng.choice(["High", "Low", "Medium"]),
                       rng.choice(WORDS), json.dumps({"DeviceId": device}), resource])
    return events, alerts


class Clickhouse:
    def __init__(self):
        self.session = Session()
        text = lambda columns: ", ".join(f"{name} {kind(name)}" for name in columns)
        kind = lambda name: {"TimeGenerated": "DateTime64(7, 'UTC')", "TimeStamp": "DateTime64(7, 'UTC')",
                             "IsEmpty": "Bool"}.get(name, "String")
        for sql in [
            f"CREATE TABLE SecurityIoTRawEvent ({text(COLUMNS)}) ENGINE = Memory",
            f"CREATE TABLE SecurityAlert ({text(ALERT_COLUMNS)}) ENGINE = Memory",
            *FUNCTIONS,
            "SET date_time_input_format = 'best_effort'",
            "SET allow_experimental_kusto_dialect = 1",
        ]:
            self.session.query(sql)

    def fill(self, table, columns, rows):
        self.session.query(f"TRUNCATE TABLE {table}")
        if rows:
            lines = "\n".join(json.dumps(dict(zip(columns, row))) for row in rows)
            self.session.query(f"INSERT INTO {table} FORMAT JSONEachRow {lines}")

    def answer(self, kql):
        self.session.query("SET dialect = 'kusto'")
        try:
            text = self.session.query(kql, "JSONEachRow").data()
        finally:
            self.session.query("SET dialect = 'clickhouse'")
        return [json.loads(line) for line in text.splitlines()]


FUNCTIONS = [
    path.strip() for path in (pathlib.Path(__file__).parents[2] / "packaging/hub/clickhouse/functions.sql")
    .read_text().split(";") if path.strip()
]


class Ours:
    """The store is made by the program and filled behind its back: an import would refuse half of these rows."""

    def __init__(self, program, directory):
        self.program, self.file = program, directory / "events.db"
        empty = directory / "empty.ndjson"
        empty.write_text("")
        self.run("import", "--db", self.file, "--table", "SecurityIoTRawEvent", empty)
        self.db = sqlite3.connect(self.file, isolation_level=None)

    def run(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True)
        if done.returncode:
            sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    def fill(self, table, columns, rows):
        known = [row[1] for row in self.db.execute(f"PRAGMA table_info({table})")]
        required = [row[1] for row in self.db.execute(f"PRAGMA table_info({table})") if row[3] and row[4] is None]
        others = [name for name in required if name not in columns]
        self.db.execute("BEGIN")
        self.db.execute(f"DELETE FROM {table}")
        names = [name for name in columns if name in known] + others
        sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for number, row in enumerate(rows):
            values = [value for name, value in zip(columns, row) if name in known]
            self.db.execute(sql, values + [self.filler(table, name, number) for name in others])
        self.db.execute("COMMIT")

    def filler(self, table, name, number):
        declared = {row[1]: row[2] for row in self.db.execute(f"PRAGMA table_info({table})")}[name]
        return 0 if name == "PayloadIndex" else number if declared == "INTEGER" else str(number)

    def answer(self, path):
        return json.loads(self.run("query", "--db", self.file, "--format", "json", path))


def plain(value):
    """A time is written apart by the two; everything else is the same JSON."""
    if isinstance(value, str) and len(value) == 27 and value[10] == " ":
        return value.replace(" ", "T") + "Z"
    return value


def difference(ours, theirs):
    """A sentence, or None. Neither rows nor the members of a set have an order."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, ClickHouse has {len(theirs)}"
    is_set = lambda value: isinstance(value, list)
    key = lambda row: json.dumps({name: plain(value) for name, value in row.items() if not is_set(value)}, sort_keys=True)
    for left, right in zip(sorted(ours, key=key), sorted(theirs, key=key)):
        if list(left) != list(right):
            return f"columns {list(left)}, ClickHouse has {list(right)}"
        for name in left:
            mine, other = left[name], right[name]
            if not is_set(mine) or not is_set(other):
                same = plain(mine) == plain(other)
            elif len(other) > MAKESET_KEEPS:
                same = len(mine) == MAKESET_KEEPS == len(set(mine)) and set(mine) <= set(other)
            else:
                same = sorted(mine) == sorted(other)
            if not same:
                return f"{name} is {mine!r}, ClickHouse says {other!r} in {right}"
    return None


def main():
    program, queries = sys.argv[1], sorted(pathlib.Path(sys.argv[2]).glob("*.kql"))
    data_sets = int(sys.argv[3]) if len(sys.argv) > 3 else 500
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    if not queries:
        sys.exit(f"{sys.argv[2]} holds no *.kql file")
    with tempfile.TemporaryDirectory() as directory:
        ours, clickhouse = Ours(program, pathlib.Path(directory)), Clickhouse()
        compared = rows = large = 0
        for number in range(data_sets):
            events, alerts = data_set(random.Random(f"{seed}/{number}"))
            for engine in (ours, clickhouse):
                engine.fill("SecurityIoTRawEvent", COLUMNS, events)
                engine.fill("SecurityAlert", ALERT_COLUMNS, alerts)
            for path in queries:
                mine, other = ours.answer(path), clickhouse.answer(path.read_text())
                why = difference(mine, other)
                if why:
                    sys.exit(f"data set {number} of seed {seed}, {path.name}: {why}")
                compared, rows = compared + 1, rows + len(mine)
                large += any(isinstance(value, list) and len(value) == MAKESET_KEEPS for row in mine for value in row.values())
        print(f"{data_sets} data sets, {compared} answers, {rows} rows, {large} answers with a full set: all equal")


if __name__ == "__main__":
    main()
