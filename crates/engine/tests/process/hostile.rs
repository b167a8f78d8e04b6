//! Servers that answer what they should not.

use std::time::Duration;

use plinth_engine::RunnerError;

use super::support::{Version, ask, ask_within};

#[tokio::test]
async fn nonsense_fails_one_request_and_no_other() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    for deed in ["garbage", "nonsense", "missing", "huge"] {
        let outcome = ask(&server, deed, "").await;
        assert!(matches!(outcome, Err(RunnerError::BrokeProtocol(_))), "{deed}: {outcome:?}");
        assert!(ask(&server, "nothing", "").await.is_ok(), "after {deed}");
    }
    let half = ask(&server, "half", "").await;
    assert!(matches!(half, Err(RunnerError::Execution(_))), "{half:?}");
    assert!(server.healthy());
}

#[tokio::test]
async fn an_answer_without_end_ends_at_the_limit_and_a_slow_one_at_the_deadline() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    let endless = ask(&server, "endless", "").await;
    assert!(matches!(&endless, Err(RunnerError::BrokeProtocol(text)) if text.contains("longer than")), "{endless:?}");
    let slow = ask_within(&server, "trickle", "", Duration::from_millis(200)).await;
    assert!(matches!(slow, Err(RunnerError::Deadline("running"))), "{slow:?}");
    assert!(ask(&server, "nothing", "").await.is_ok());
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let version = Version::python("plain", "");
    let server = version.start().await;
    // Another server of the same kind: it would answer if it were asked.
    let other = Version::python("plain", "");
    let other = other.start().await;
    let port = super::start::port_of(&other).await;
    let outcome = ask(&server, "redirect", &format!("http://127.0.0.1:{port}/v2/models/m/infer")).await;
    assert!(matches!(&outcome, Err(RunnerError::BrokeProtocol(text)) if text.contains("307")), "{outcome:?}");
    assert!(super::support::says(&other, "state", "").await.contains("\"requests\": 1,"), "only this question came");
}
