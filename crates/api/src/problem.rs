//! Errors of native routes: `application/problem+json` (RFC 9457).

use http::StatusCode;
use plinth_client::wire::{FieldProblem, Problem};
use plinth_net::Response;
use plinth_types::{Error, Flaw, RequestId};

use crate::reply;

/// The answer that says what went wrong.
#[must_use]
pub fn render(error: &Error, request_id: &RequestId) -> Response {
    let status = StatusCode::from_u16(error.class().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = Problem {
        kind: format!("/errors/{}", error.reason()),
        title: error.reason().title().to_owned(),
        status: status.as_u16(),
        detail: error.public_text().to_owned(),
        reason: error.reason().slug().to_owned(),
        field: error.field_name().map(str::to_owned),
        request_id: Some(request_id.to_string()),
        retriable: error.class().retriable(),
        problems: error.flaw_list().iter().map(field_problem).collect(),
    };
    // A struct of texts and numbers always becomes JSON.
    let text = serde_json::to_vec(&problem).unwrap_or_default();
    reply::with_body(status, "application/problem+json", text)
}

fn field_problem(flaw: &Flaw) -> FieldProblem {
    FieldProblem { field: flaw.field.clone(), reason: flaw.reason.slug().to_owned(), detail: flaw.text.clone() }
}
