//! What an investigator asks of the store: two queries of the investigation guide, word for word, with the names of the
//! device and its hub where the guide leaves them to its reader.

use serde_json::{Map, Value};

use super::{HUB, table};
use crate::kql::Limits;
use crate::query::{self, Format};
use crate::store::Store;

/// A question, its query, and the columns that fit onto a screen.
struct Question {
    words: &'static str,
    kql: &'static str,
    columns: &'static [&'static str],
}

const LOGINS: Question = Question {
    words: "Who logged in over the network, how often, from where?",
    kql: include_str!("../../../tests/fixtures/kql/guide/4_user_logins.kql"),
    columns: &["UserName", "Result", "LoginHandler", "CntLoginAttempts", "IPAddress"],
};

const ALERTS: Question = Question {
    words: "Is there an alert about this device?",
    kql: include_str!("../../../tests/fixtures/kql/guide/1_related_alerts.kql"),
    columns: &["AlertSeverity", "AlertName", "Description"],
};

/// The questions and their answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// For the screen.
    pub text: String,
    /// How many alerts there are.
    pub alerts: usize,
}

/// Asks.
///
/// # Errors
///
/// A sentence, when a query fails.
pub fn ask(store: &Store, device: &str) -> Result<Answers, String> {
    let mut text = "\nWhat the investigation guide asks, answered by `edgewarden-hub query`\n".to_owned();
    let mut alerts = 0;
    for question in [LOGINS, ALERTS] {
        let rows = answer(&question, store, device)?;
        text += &format!("\n{}\n{}", question.words, table::of_answer(question.columns, &rows));
        alerts = rows.len();
    }
    Ok(Answers { text, alerts })
}

fn answer(question: &Question, store: &Store, device: &str) -> Result<Vec<Map<String, Value>>, String> {
    let kql = question.kql.replace("YOUR_DEVICE_ID", device).replace("YOUR_HUB_NAME", HUB);
    let mut json = Vec::new();
    query::print(&kql, store, Format::Json, Limits::default(), &mut json).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| format!("cannot read the answer of a query: {error}"))
}
