#!/usr/bin/env python3
"""What is linked into a binary, and on what terms: list-crates.py PACKAGE TARGET

Prints a Debian copyright file (DEP 5) of our own terms and those of every crate that PACKAGE has linked in on TARGET,
with the texts of their licences as their sources have them. Crates that only build, such as derive macros, are not in
the binary and are not named.
"""

import json
import pathlib
import re
import subprocess
import sys

OWN = pathlib.Path(__file__).resolve().parent.parent / "packaging/debian/copyright"
# Of the texts a crate offers, the first one we may use; the longest names first, as MIT is in many others.
TERMS = ["MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "Unicode-3.0", "Zlib", "CDLA-Permissive-2.0", "Unlicense"]
FILES = re.compile(r"(licen[cs]e|copying|copyright|unlicense)", re.IGNORECASE)


def linked(package, target):
    """The crates of a binary: what normal dependencies reach, without macros, which run in the compiler."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--package", package, "--target", target, "--edges", "normal,no-proc-macro",
         "--prefix", "none", "--format", "{p}"],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    chosen = [p for p in packages.values() if (p["name"], "v" + p["version"]) in names and p["source"]]
    return sorted(chosen, key=lambda p: (p["name"], p["version"]))


def texts(package):
    """Every licence file of a crate, as (name, text)."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and FILES.search(path.name) and path.suffix not in (".rs", ".html"):
            yield path.name, path.read_text(encoding="utf-8", errors="replace")


def field(text):
    """A text as the lines of a field: indented by a space, empty lines as a dot."""
    return "".join(f" {line.rstrip() or '.'}\n" for line in text.strip("\n").splitlines())


def main():
    package, target = sys.argv[1:]
    out = OWN.read_text()
    # Debian has the full text of the Apache licence in /usr/share/common-licenses, and it is 11 KB of each crate.
    shared = {}
    for crate in linked(package, target):
        terms = (crate["license"] or "see its sources").replace("/", " OR ")
        out += f"\nFiles: {crate['name']}-{crate['version']}/*\n"
        out += f"Copyright: {', '.join(crate['authors']) or 'its authors'}\nLicense: {terms}\n"
        for name, text in texts(crate):
            if "Apache License" not in text or "Version 2.0, January 2004" not in text or len(text) > 13000:
                shared.setdefault(text.strip(), []).append(f"{crate['name']}-{crate['version']}/{name}")
    for number, (text, holders) in enumerate(shared.items(), 1):
        out += f"\nLicense: text-{number}\n Of {', '.join(holders)}:\n .\n{field(text)}"
    sys.stdout.write(out)


if __name__ == "__main__":
    main()
