// Microsoft's own language service reads our queries against our tables: what it does not understand is no KQL.
//
//     bind.cjs TABLES QUERY...
//
// TABLES is a file with `.create-merge table NAME (COLUMN: type, ...)` and functions that are checked as well.
"use strict";
const { readFileSync } = require("node:fs");

require("@kusto/language-service-next/bridge.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.js");
const { KustoCode, GlobalState, Symbols } = globalThis.Kusto.Language;

const [tablesFile, ...queries] = process.argv.slice(2);
if (queries.length === 0) {
    console.error("usage: bind.cjs TABLES QUERY...");
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
for (const file of queries) check(file, readFileSync(file, "utf8"));
if (faults > 0) process.exit(1);
console.log(`${queries.length} queries and ${bodies.length} functions bind to ${tables.length} tables without a remark`);
