//! Decisions about programs.
//!
//! A miner is known by words nobody else uses: the names of the programs, their options, the scheme of the protocol
//! they speak to a pool (stratum), and the pools. Whoever renames the program and hides its arguments is not seen by
//! this rule; what ran is in the rows all the same.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Number;

use super::{Finding, hour, shown};

/// A program that was executed.
#[derive(Clone, Debug)]
pub struct Process {
    /// When.
    pub at: Timestamp,
    /// What the row says.
    pub item: ProcessItem,
}

/// The keys of a `ProcessCreate` item that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessItem {
    /// The program's path.
    pub executable: String,
    /// Its arguments.
    pub command_line: String,
    /// Whose it is.
    pub user_id: String,
    /// The process.
    pub process_id: Option<Number>,
    /// Its parent.
    pub parent_process_id: Option<Number>,
}

/// A word that is one of these, or begins with one and goes on with a `-`, `_`, `.`, `+` or digit.
const WORDS: &[&str] = &[
    "bfgminer",
    "ccminer",
    "cgminer",
    "cpuminer",
    "cryptonight",
    "cryptonote",
    "ethminer",
    "gminer",
    "kawpow",
    "lolminer",
    "minerd",
    "minergate",
    "nanominer",
    "nbminer",
    "nheqminer",
    "phoenixminer",
    "randomx",
    "rainbowminer",
    "srbminer",
    "stratum+ssl",
    "stratum+tcp",
    "stratum+tls",
    "stratum+udp",
    "stratum1+tcp",
    "stratum2+tcp",
    "sugarmaker",
    "teamredminer",
    "wildrig",
    "xmr-stak",
    "xmrig",
    "xmrigdaemon",
    "xmrminer",
    "--donate-level",
    "--nicehash",
    "--randomx-mode",
];

/// A word that is one of these hosts, or a host below one.
const POOLS: &[&str] = &[
    "2miners.com",
    "c3pool.com",
    "c3pool.org",
    "f2pool.com",
    "hashvault.pro",
    "herominers.com",
    "minexmr.com",
    "minergate.com",
    "moneroocean.stream",
    "monerohash.com",
    "nanopool.org",
    "nicehash.com",
    "supportxmr.com",
    "unmineable.com",
    "xmrpool.eu",
];

/// A miner's word in the path or the command line.
pub fn crypto_miner(process: &Process) -> Option<Finding> {
    let item = &process.item;
    let word = miner_word(&item.executable).or_else(|| miner_word(&item.command_line))?;
    Some(Finding {
        facts: vec![word.to_owned(), item.executable.clone(), item.user_id.clone(), hour(process.at)],
        from: process.at,
        to: process.at,
        sentence: format!("{word} is in {} of {}.", shown(&item.command_line), shown(&item.executable)),
        properties: vec![
            ("Executable", item.executable.clone()),
            ("Command Line", item.command_line.clone()),
            ("User Id", item.user_id.clone()),
            ("Process Id", number(&item.process_id)),
            ("Parent Process Id", number(&item.parent_process_id)),
            ("Word", word.to_owned()),
        ],
    })
}

fn number(number: &Option<Number>) -> String {
    number.as_ref().map(Number::to_string).unwrap_or_default()
}

/// The first word of a miner in a text. One pass over the text, which is bounded by the message.
fn miner_word(text: &str) -> Option<&'static str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.+".contains(c)))
        // A hidden file's name begins with a dot.
        .map(|word| word.trim_start_matches(['.', '_']))
        .filter(|word| word.len() >= SHORTEST)
        .find_map(|word| {
            let is_one = |known: &&&str| is_word(word.as_bytes(), known.as_bytes());
            let is_pool = |known: &&&str| is_host_below(word.as_bytes(), known.as_bytes());
            WORDS.iter().find(is_one).or_else(|| POOLS.iter().find(is_pool)).copied()
        })
}

/// No known word is shorter.
const SHORTEST: usize = 5;

fn is_word(word: &[u8], known: &[u8]) -> bool {
    let begins = word.get(..known.len()).is_some_and(|head| head.eq_ignore_ascii_case(known));
    begins && word.get(known.len()).is_none_or(|next| !next.is_ascii_alphabetic())
}

fn is_host_below(word: &[u8], known: &[u8]) -> bool {
    let Some(start) = word.len().checked_sub(known.len()) else { return false };
    word[start..].eq_ignore_ascii_case(known) && (start == 0 || word[start - 1] == b'.')
}
