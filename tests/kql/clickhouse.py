"""A real agent's messages in ClickHouse, by the tables we ship, and in our hub: the same rows, the same answers.

    clickhouse.py HUB MESSAGES QUERIES

HUB is the program, MESSAGES a file with one envelope a line, QUERIES the directory with the guide's *.kql.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from chdb.session import Session

from differential import difference

ROOT = pathlib.Path(__file__).parents[2] / "packaging/hub/clickhouse"
DEVICE, HUB = "YOUR_DEVICE_ID", "YOUR_HUB_NAME"


def statements(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def clickhouse(messages):
    session = Session()
    for sql in statements("tables.sql") + statements("functions.sql") + ["SET allow_experimental_kusto_dialect = 1"]:
        session.query(sql)
    bodies = [{"Topic": f"edgewarden/{DEVICE}/security", "Body": body} for body in messages]
    bodies.append({"Topic": "edgewarden/x/security", "Body": "{broken"})
    lines = "\n".join(map(json.dumps, bodies))
    # Twice, as it comes from a broker that lost an acknowledgement.
    for _ in range(2):
        session.query(f"INSERT INTO Envelope (Topic, Body) FORMAT JSONEachRow {lines}")
    session.query("SET final = 1")
    return session


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def main():
    program, messages, queries = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    session = clickhouse(messages.read_text().splitlines())
    refused = session.query("SELECT count() FROM Refused", "TSV").data().strip()
    if refused != "2":
        sys.exit(f"{refused} messages are in Refused, not 2")
    with tempfile.TemporaryDirectory() as directory:
        store = f"{directory}/events.db"
        run = lambda *arguments: subprocess.run([program, *arguments], check=True, capture_output=True).stdout.decode()
        run("import", "--db", store, "--device", DEVICE, "--hub", HUB, str(messages))
        everything = ("SecurityIoTRawEvent | project DeviceId, AssociatedResourceId, RawEventName, RawEventCategory, "
                      "RawEventType, IsEmpty, EventDetails, IoTRawEventId, AgentVersion, Type, PayloadIndex, TimeStamp")
        compared = 0
        for name, text in [("every row", everything), *((path.name, path.read_text()) for path in sorted(queries.glob("*.kql")))]:
            ours = json.loads(run("query", "--db", store, "--format", "json", text))
            session.query("SET dialect = 'kusto'")
            theirs = rows(session.query(text, "JSONEachRow").data())
            session.query("SET dialect = 'clickhouse'")
            why = difference(ours, theirs)
            if why:
                sys.exit(f"{name}: {why}")
            compared += len(ours)
        print(f"{compared} rows of the events and of {len(list(queries.glob('*.kql')))} queries are the same in ClickHouse")


main()
