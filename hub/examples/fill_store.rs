//! Fills a new store for measuring queries: one device with many processes among a thousand others.
//!
//! `fill_store DIR`: the device `YOUR_DEVICE_ID` has 250,000 ProcessCreate rows of 200,000 different command lines, 50
//! users, 200 ports and 2,000 logins; 1,000 others have 1,000 rows each.

use std::path::Path;
use std::process::ExitCode;

use edgewarden_hub::schema::{Event, Message};
use edgewarden_hub::store::{Entry, Store};
use jiff::Timestamp;
use uuid::Uuid;

/// Rows of an event; a message has one.
const ITEMS: usize = 100;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: fill_store DIR");
        return ExitCode::FAILURE;
    };
    match fill(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn fill(dir: &Path) -> Result<(), String> {
    let mut store = Store::open(dir).map_err(|error| error.to_string())?;
    let mut id = 0;
    let mut write = |device: &str, name: &'static str, items: Vec<String>| {
        let batch: Vec<Entry> = items.chunks(ITEMS).map(|items| entry(device, name, items, &mut id)).collect();
        for batch in batch.chunks(200) {
            store
                .write("/edgewarden/hubs/your_hub_name", Timestamp::now(), batch)
                .map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    };
    write("YOUR_DEVICE_ID", "LocalUsers", (0..50).map(user).collect())?;
    write("YOUR_DEVICE_ID", "ListeningPorts", (0..200).map(port).collect())?;
    write("YOUR_DEVICE_ID", "Login", (0..2_000).map(login).collect())?;
    write("YOUR_DEVICE_ID", "ProcessCreate", (0..250_000).map(process).collect())?;
    for other in 0..1_000 {
        write(&format!("press-{other}"), "ProcessCreate", (0..1_000).map(process).collect())?;
    }
    Ok(())
}

fn entry(device: &str, name: &'static str, items: &[String], id: &mut u128) -> Entry {
    *id += 1;
    let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(i64::try_from(*id).unwrap_or(0));
    let event = Event {
        id: Uuid::from_u128(*id),
        timestamp_local: "2026-11-24T09:00:00.123+01:00".to_owned(),
        timestamp_utc: "2026-11-24T08:00:00.123Z".to_owned(),
        at,
        name,
        category: "Triggered",
        event_type: "Security",
        items: items.to_vec(),
    };
    let message = Message { agent_version: "0.1.0".to_owned(), events: vec![event] };
    Entry { topic: String::new(), payload: Vec::new(), speaker: None, verdict: Ok((device.to_owned(), message)) }
}

fn user(n: usize) -> String {
    format!(r#"{{"UserName":"user{n}","UserId":"{}","GroupNames":"users;group{n}","GroupIds":"100;{n}"}}"#, 1000 + n)
}

fn port(n: usize) -> String {
    format!(
        r#"{{"Protocol":"TCP","LocalAddress":"0.0.0.0","LocalPort":"{}","RemoteAddress":"192.0.2.{}","RemotePort":"{}"}}"#,
        n % 20 + 20,
        n % 250,
        40_000 + n
    )
}

fn login(n: usize) -> String {
    format!(
        r#"{{"ProcessId":{n},"UserId":"{0}","UserName":"user{1}","Executable":"/usr/sbin/sshd","Operation":"Login","Result":"Success","RemoteAddress":"192.0.2.{2}"}}"#,
        1000 + n % 50,
        n % 50,
        n % 250
    )
}

fn process(n: usize) -> String {
    format!(
        r#"{{"Executable":"/usr/bin/tool{0}","ProcessId":{n},"ParentProcessId":1,"UserId":"{1}","CommandLine":"tool{0} --number {2} --output /var/lib/tool/results-of-the-day.json --verbose","ExtraDetails":{{"ParentExecutable":"/usr/lib/systemd/systemd","LoginUserId":"4294967295"}}}}"#,
        n % 300,
        1000 + n % 50,
        n % 200_000
    )
}
