"""Validates messages, one JSON document a line on stdin, against a folder with the published message schemas.

The files refer to each other by bare file name and carry ids that clash, so they are read under one made-up base with
their ids taken away, which changes nothing they demand.
"""
import json
import pathlib
import sys

from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

BASE = "urn:published:"


def rebase(node, file):
    if isinstance(node, list):
        return [rebase(item, file) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            target, _, fragment = value.partition("#")
            out[key] = f"{BASE}{target or file}#{fragment}"
        elif key != "$id" or not isinstance(value, str):
            out[key] = rebase(value, file)
    return out


def main():
    folder = pathlib.Path(sys.argv[1])
    registry = Registry().with_resources(
        (BASE + path.name, Resource(rebase(json.loads(path.read_text()), path.name), DRAFT7))
        for path in folder.glob("*.json")
    )
    validator = Draft7Validator({"$ref": BASE + "messageRoot.json"}, registry=registry, format_checker=FormatChecker())
    faults = count = 0
    for count, line in enumerate(sys.stdin, 1):
        for error in validator.iter_errors(json.loads(line)):
            faults += 1
            print(f"message {count}: {error.message[:300]}")
    print(f"{count} messages, {faults} faults")
    return 1 if faults or not count else 0


sys.exit(main())
