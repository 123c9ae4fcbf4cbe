//! Any text is refused with a place inside it and a sentence, or is a query that can run.
#![no_main]

use std::time::Duration;

use edgewarden_hub::kql::value::{Type, Value};
use edgewarden_hub::kql::{Column, Limits, Scan, Schema, Source, Stop, compile};
use libfuzzer_sys::fuzz_target;

/// One table of one row.
struct One;

const COLUMNS: &[(&str, Type)] = &[
    ("TimeGenerated", Type::DateTime),
    ("DeviceId", Type::String),
    ("EventDetails", Type::String),
    ("IsEmpty", Type::Bool),
];

impl Schema for One {
    fn columns(&self, table: &str) -> Option<Vec<Column>> {
        (table == "T").then(|| COLUMNS.iter().map(|(name, ty)| Column::new(name, *ty)).collect())
    }

    fn tables(&self) -> Vec<String> {
        vec!["T".to_owned()]
    }
}

impl Source for One {
    fn scan(&self, _: &Scan, visit: &mut dyn FnMut(&[Value]) -> Result<bool, Stop>) -> Result<(), Stop> {
        let details = Value::text(r#"{"UserName":"pi","Ports":["22",80],"At":"2026-11-24T08:00:00Z"}"#);
        visit(&[Value::Null, Value::text("press-17"), details, Value::Bool(false)]).map(drop)
    }
}

fuzz_target!(|text: &str| {
    match compile(text, &One, 639_000_000_000_000_000) {
        Err(fault) => {
            assert!(!fault.message.is_empty());
            assert!((1..=text.matches('\n').count() + 1).contains(&fault.line), "{fault}");
            assert!(fault.column >= 1);
        }
        Ok(plan) => {
            let limits = Limits { memory_bytes: 1 << 16, time: Duration::from_millis(50) };
            let width = plan.columns().len();
            let mut rows = 0;
            drop(plan.run(&One, limits, &mut |row| {
                assert_eq!(row.len(), width);
                rows += 1;
                Ok(rows < 100)
            }));
        }
    }
});
