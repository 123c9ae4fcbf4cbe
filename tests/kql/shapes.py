"""The connector recipes can be read by their own format and say the same about topic, session and table.

    shapes.py FOLDER        packaging/hub

None of these programs can be installed everywhere, so this is the shape only; tables.sql is tested for real.
"""

import json
import pathlib
import sys
import tomllib

import yaml

FOLDER = pathlib.Path(sys.argv[1])
TOPIC = "edgewarden/+/security"


def expect(name, what, actual, wanted):
    if actual != wanted:
        sys.exit(f"{name}: {what} is {actual!r}, not {wanted!r}")


def read(name, parse):
    return parse((FOLDER / name).read_text())


vector = read("vector/edgewarden.toml", tomllib.loads)
expect("vector", "topic", vector["sources"]["edgewarden"]["topic"], TOPIC)
expect("vector", "table", vector["sinks"]["clickhouse"]["table"], "Envelope")
expect("vector", "way", [vector["transforms"]["envelope"]["inputs"], vector["sinks"]["clickhouse"]["inputs"]],
       [["edgewarden"], ["envelope"]])

telegraf = read("telegraf/edgewarden.conf", tomllib.loads)
[source] = telegraf["inputs"]["mqtt_consumer"]
expect("telegraf", "topics", source["topics"], [TOPIC])
expect("telegraf", "session", [source["qos"], source["persistent_session"], bool(source["client_id"])], [1, True, True])
expect("telegraf", "columns", [source["name_override"], source["topic_tag"], source["value_field_name"]],
       ["Envelope", "Topic", "Body"])

connect = read("redpanda-connect/edgewarden.yaml", yaml.safe_load)
source, target = connect["input"]["mqtt"], connect["output"]["sql_insert"]
expect("redpanda-connect", "topics", source["topics"], [TOPIC])
expect("redpanda-connect", "session", [source["qos"], source["clean_session"], bool(source["client_id"])], [1, False, True])
expect("redpanda-connect", "columns", [target["table"], target["columns"]], ["Envelope", ["Topic", "Body"]])

emqx = read("emqx/edgewarden.json", json.loads)
expect("emqx", "topic", f'FROM "{TOPIC}"' in emqx["rule"]["sql"], True)
expect("emqx", "action", emqx["rule"]["actions"], [f'{emqx["action"]["type"]}:{emqx["action"]["name"]}'])
expect("emqx", "columns", "INSERT INTO Envelope (Topic, Body)" in emqx["action"]["parameters"]["sql"], True)

print("4 connector recipes have the right shape")
