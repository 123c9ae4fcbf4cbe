use super::check::Want;
use super::check::tests::seen;
use super::*;

fn cause() -> Cause {
    Cause {
        what: "root logged in".to_owned(),
        kind: "Login",
        rows: vec![vec![("UserName", Want::Text("root".to_owned()))]],
    }
}

fn told(seen: &[Seen], stored: u64) -> (Result<(), String>, String) {
    let mut out = Vec::new();
    let counts = Counts { collected: 9, acknowledged: 8, lost: 1 };
    let result = report(&mut out, &[cause()], seen, counts, stored);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn a_missing_row_is_named_and_fails_the_demo() {
    let (result, text) = told(&[seen("Login", r#"{"UserName":"ann"}"#)], 8);
    assert_eq!(result.unwrap_err(), "1 rows that this demo caused are not in the store");
    assert!(text.contains("MISSING") && text.contains(r#"no row with UserName "root""#), "{text}");
}

#[test]
fn all_rows_there_is_a_success_with_the_counts() {
    let (result, text) = told(&[seen("Login", r#"{"UserName":"root"}"#)], 8);
    result.unwrap();
    assert!(text.ends_with("\n9 events collected, 8 acknowledged, 8 stored, 1 lost\n"), "{text}");
}

#[test]
fn an_acknowledged_event_that_is_nowhere_fails_the_demo() {
    let (result, _) = told(&[seen("Login", r#"{"UserName":"root"}"#)], 7);
    assert_eq!(result.unwrap_err(), "1 acknowledged events are not in the store");
}

#[test]
fn a_demo_without_an_alert_fails() {
    let answers = |alerts| Answers { text: String::new(), alerts };
    assert!(expect_alert(&answers(0)).unwrap_err().contains("no alert"));
    expect_alert(&answers(1)).unwrap();
}

#[test]
fn a_host_name_becomes_a_topic_level() {
    assert_eq!(device_id("board+1/ü#"), "demo-board-1---");
}

#[tokio::test]
async fn without_an_agent_it_says_which_file_is_missing() {
    let options = Options { keep: false, agent: Some(PathBuf::from("/nowhere/edgewarden")) };
    let error = run(&options, &mut Vec::new()).await.unwrap_err();
    assert!(error.contains("/nowhere/edgewarden") && error.contains("--agent"), "{error}");
}
