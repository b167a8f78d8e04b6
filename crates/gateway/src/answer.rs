//! The last step: errors in their protocol's shape, and the headers that every answer carries.

use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use plinth_api::Dialect;
use plinth_net::Response;
use plinth_runtime::Random;
use plinth_types::{Class, Error, RequestId};

use crate::request_id;

/// The answer to a request that failed.
pub fn refuse(dialect: Dialect, error: &Error, id: &RequestId, random: &dyn Random) -> Response {
    let mut answer = dialect.render(error, id);
    if dialect == Dialect::Grpc {
        // Its code says all of this.
        return answer;
    }
    let headers = answer.headers_mut();
    if error.class() == Class::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(error.class(), Class::Unavailable | Class::OverQuota) {
        headers.insert(RETRY_AFTER, retry_after(error, random).into());
    }
    answer
}

/// Whole seconds, with up to half again as much by chance, so that those who were refused together do not come back
/// together.
fn retry_after(error: &Error, random: &dyn Random) -> u64 {
    let base = error.retry_delay().unwrap_or(Duration::from_secs(2)).as_secs().clamp(1, 30);
    base + random.next_u64() % (base / 2 + 2)
}

/// Adds what every answer carries.
pub fn finish(mut answer: Response, id: &RequestId) -> Response {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        answer.headers_mut().insert(HeaderName::from_static(request_id::HEADER), value);
    }
    // What a browser must not guess: an answer is what its content type says.
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_runtime::SeededRandom;
    use plinth_types::Reason;

    #[test]
    fn refusals_say_when_to_come_back_and_how_to_identify() {
        let (random, id) = (SeededRandom::new(5), "abc".parse().unwrap());
        let error = Error::new(Reason::QueueFull, "full").retry_after(Duration::from_secs(4));
        for _ in 0..50 {
            let answer = refuse(Dialect::OpenInference, &error, &id, &random);
            let seconds: u64 = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
            assert!((4..=7).contains(&seconds));
        }
        let answer = refuse(Dialect::Native, &Error::new(Reason::CredentialsMissing, "x"), &id, &random);
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}
