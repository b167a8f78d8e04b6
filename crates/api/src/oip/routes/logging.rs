//! What the node logs (logging extension).

use plinth_net::Response;
use plinth_types::{Error, Reason, Result};
use serde_json::{Map, Value};

use super::settings_body;
use crate::Services;
use crate::call::Call;
use crate::oip::logging::{self, LogValue};
use crate::reply;

pub async fn get(services: Services, _call: Call) -> Result<Response> {
    let member = |(name, value): (&str, LogValue)| {
        let value = match value {
            LogValue::Bool(on) => Value::from(on),
            LogValue::Number(n) => Value::from(n),
            LogValue::Text(text) => Value::from(text),
        };
        (name.to_owned(), value)
    };
    reply::json(&logging::current(&services.logs).into_iter().map(member).collect::<Map<_, _>>())
}

pub async fn set(services: Services, mut call: Call) -> Result<Response> {
    let change = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(on) => Some(LogValue::Bool(on)),
            Value::Number(n) => n.as_u64().map(LogValue::Number),
            Value::String(text) => Some(LogValue::Text(text)),
            _ => None,
        };
        let wrong = || {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            Error::new(Reason::MalformedRequest, format!("{shown} must be true, false, a whole number from 0 on, or a string")).field(shown)
        };
        Ok((name.clone(), value.ok_or_else(wrong)?))
    };
    let changes = settings_body(&mut call).await?.into_iter().map(change).collect::<Result<Vec<_>>>()?;
    logging::update(&services.logs, &changes)?;
    get(services, call).await
}
