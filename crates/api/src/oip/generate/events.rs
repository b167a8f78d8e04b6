//! Answers as server-sent events: `data: {…}` and an empty line for each.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, future, stream};
use plinth_net::Body;
use plinth_types::{Error, Result};

use crate::oip::error;

/// The body of a stream of answers. The first decides: an error before any answer is the request's own, with its status; one
/// that comes later is the last event. A client that goes away drops the stream, and with it what is still to come.
///
/// # Errors
/// That of the first answer.
pub async fn events(mut answers: BoxStream<'static, Result<Vec<u8>>>) -> Result<Body> {
    let first = match answers.next().await {
        None => return Err(Error::internal("a model gave no answer at all")),
        Some(first) => first?,
    };
    let rest = answers.scan(false, |ended, answer| {
        if *ended {
            return future::ready(None);
        }
        *ended = answer.is_err();
        future::ready(Some(answer.unwrap_or_else(|e| error::body(&e))))
    });
    let all = stream::once(future::ready(first)).chain(rest);
    Ok(Body::stream(all.map(|json| Ok(event(&json)))))
}

/// JSON as it is written here has no line breaks, so one line is enough.
fn event(json: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(json.len() + 8);
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(json);
    event.extend_from_slice(b"\n\n");
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::Reason;

    fn answers(list: Vec<Result<Vec<u8>>>) -> BoxStream<'static, Result<Vec<u8>>> {
        stream::iter(list).boxed()
    }

    fn failed() -> Error {
        Error::new(Reason::ModelExecutionFailed, "it failed\n")
    }

    #[tokio::test]
    async fn each_answer_is_an_event_and_an_error_is_the_last() {
        let body = events(answers(vec![Ok(b"{\"a\":1}".to_vec()), Ok(b"{}".to_vec()), Err(failed()), Ok(b"{}".to_vec())])).await.unwrap();
        let text = body.into_bytes().await.unwrap();
        assert_eq!(text, "data: {\"a\":1}\n\ndata: {}\n\ndata: {\"error\":\"it failed\\n\"}\n\n");
    }

    #[tokio::test]
    async fn an_error_before_any_answer_keeps_its_status() {
        assert_eq!(events(answers(vec![Err(failed())])).await.unwrap_err().reason(), Reason::ModelExecutionFailed);
        assert_eq!(events(answers(vec![])).await.unwrap_err().reason(), Reason::Internal);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_what_is_still_to_come() {
        let held = std::sync::Arc::new(());
        let keep = held.clone();
        let endless = stream::once(future::ready(Ok(b"{}".to_vec()))).chain(stream::pending().map(move |x: Result<Vec<u8>>| {
            let _ = &keep;
            x
        }));
        let body = events(endless.boxed()).await.unwrap();
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
