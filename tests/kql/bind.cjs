// Microsoft's own language service reads our queries against our tables: what it does not understand is no KQL.
//
//     bind.cjs TABLES FILE...
//
// TABLES is a file with `.create-merge table NAME (COLUMN: type, ...)` and functions that are checked as well. A FILE is
// one query or several apart by ====; or the cases of our tests (.txt), of which those count that our hub runs and that do
// not say `// ours`; or a page (.md) with queries between ```kql and ```.
"use strict";
const { readFileSync } = require("node:fs");

require("@kusto/language-service-next/bridge.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.js");
const { KustoCode, GlobalState, Symbols } = globalThis.Kusto.Language;

const [tablesFile, ...files] = process.argv.slice(2);
if (files.length === 0) {
    console.error("usage: bind.cjs TABLES FILE...");
    process.exit(2);
}
const definitions = readFileSync(tablesFile, "utf8");
const tables = [...definitions.matchAll(/^\.create-merge table (\w+) (\(.*\))$/gm)].map(([, name, columns]) =>
    Symbols.TableSymbol.From(columns).WithName(name));
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor("edgewarden", tables));
const bodies = [...definitions.matchAll(/^\.create-or-alter (?:function|materialized-view) (\w+).*\{\n([^]*?)\n\}$/gm)];

let faults = 0;
function check(name, text) {
    const found = KustoCode.ParseAndAnalyze(text, globals).GetDiagnostics();
    for (let n = 0; n < found.Count; n++) {
        const { Code, Message, Start } = found.getItem(n);
        const before = text.slice(0, Start).split("\n");
        console.error(`${name}:${before.length}:${before.at(-1).length + 1}: ${Code} ${Message}`);
        faults++;
    }
}
for (const [, name, text] of bodies) check(`${tablesFile} ${name}`, text);
// The queries of a file with their names.
function* queries(file) {
    const text = readFileSync(file, "utf8");
    let parts = text.split(/^====\n/m);
    if (file.endsWith(".md")) parts = [...text.matchAll(/^```kql\n([^]*?)^```$/gm)].map(([, query]) => query);
    if (file.endsWith(".txt")) {
        const cases = parts.map((part) => part.split(/^----\n/m)).filter(([, answer]) => answer !== undefined);
        parts = cases.filter(([query, answer]) => !/^! \d+:/.test(answer) && !query.includes("// ours")).map(([query]) => query);
    }
    for (const [n, part] of parts.entries()) {
        yield [parts.length === 1 ? file : `${file} #${n + 1}`, part.replace("kind=KIND", "kind=fullouter")];
    }
}

let count = 0;
for (const file of files) {
    const before = count;
    for (const [name, text] of queries(file)) {
        check(name, text);
        count++;
    }
    if (count === before) {
        console.error(`${file}: there is no query in it`);
        faults++;
    }
}
if (faults > 0) process.exit(1);
console.log(`${count} queries and ${bodies.length} functions bind to ${tables.length} tables without a remark`);
