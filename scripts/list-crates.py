#!/usr/bin/env python3
"""What is linked into a binary, and on what terms: list-crates.py PACKAGE TARGET FOLDER

    FOLDER/PACKAGE.copyright   a Debian copyright file (DEP 5): our terms, and the name of those of each crate
    FOLDER/PACKAGE.licences    the texts of the crates' licences as their sources have them, each once

Crates that only build, such as derive macros, are not in the binary and are not named.
"""

import json
import pathlib
import re
import subprocess
import sys

OWN = pathlib.Path(__file__).resolve().parent.parent / "packaging/debian/copyright"
FILES = re.compile(r"(licen[cs]e|copying|copyright|notice)", re.IGNORECASE)


def linked(package, target):
    """The crates of a binary: what normal dependencies reach, without macros, which run in the compiler."""
    cargo = ["cargo", "tree", "--locked", "--package", package, "--target", target]
    cargo += ["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    tree = subprocess.run(cargo, check=True, stdout=subprocess.PIPE, text=True).stdout
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    cargo = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    crates = json.loads(subprocess.run(cargo, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    # Without a source it is ours.
    crates = [crate for crate in crates if crate["source"] and (crate["name"], "v" + crate["version"]) in names]
    return sorted(crates, key=lambda crate: (crate["name"], crate["version"]))


def texts(crate):
    """Every licence file of a crate, as (name, text)."""
    folder = pathlib.Path(crate["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and FILES.search(path.name) and path.suffix != ".rs":
            yield path.name, path.read_text(encoding="utf-8", errors="replace").strip()


def main():
    package, target, folder = sys.argv[1:]
    copyright_file, holders = OWN.read_text(), {}
    for crate in linked(package, target):
        name = f"{crate['name']}-{crate['version']}"
        terms = (crate["license"] or "as its sources say").replace("/", " OR ")
        authors = ", ".join(crate["authors"]) or "its authors"
        copyright_file += f"\nFiles: {name}/*\nCopyright: {authors}\nLicense: {terms}\n"
        for file, text in texts(crate):
            holders.setdefault(text, []).append(f"{name}/{file}")
    licences = "".join(f"{', '.join(files)}:\n\n{text}\n\n{'-' * 72}\n\n" for text, files in holders.items())
    pathlib.Path(folder, package + ".copyright").write_text(copyright_file)
    pathlib.Path(folder, package + ".licences").write_text(licences)


if __name__ == "__main__":
    main()
