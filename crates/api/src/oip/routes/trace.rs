//! Which requests leave a record (trace extension).

use plinth_net::Response;
use plinth_types::{Error, ModelName, Reason, Result};
use serde_json::{Map, Value};

use super::settings_body;
use crate::Services;
use crate::call::Call;
use crate::oip::trace::{Change, Shown};
use crate::reply;

/// The model that the path names, which must be there; `None` for the global settings.
fn model(services: &Services, call: &Call) -> Result<Option<ModelName>> {
    if call.params.get("model").is_none() {
        return Ok(None);
    }
    let model = call.model()?;
    services.serving.resolve(&call.principal.tenant, &model, None)?;
    Ok(Some(model))
}

pub async fn get(services: Services, call: Call) -> Result<Response> {
    let model = model(&services, &call)?;
    answer(&services.traces.get(&call.principal.tenant, model.as_ref()))
}

pub async fn set(services: Services, mut call: Call) -> Result<Response> {
    let model = model(&services, &call)?;
    let changes = settings_body(&mut call).await?.into_iter().map(change).collect::<Result<Vec<_>>>()?;
    answer(&services.traces.update(&call.principal.tenant, model.as_ref(), &changes)?)
}

/// A member of the body as a change: `null` clears, a string is one value, an array of strings several.
fn change((name, value): (String, Value)) -> Result<Change> {
    let wrong = |name: &str| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let text = format!("{shown} must be a string, an array of strings, or null to follow the global setting");
        Error::new(Reason::MalformedRequest, text).field(shown)
    };
    let values = match value {
        Value::Null => None,
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => {
            let texts = list.into_iter().map(|value| if let Value::String(text) = value { Some(text) } else { None });
            Some(texts.collect::<Option<Vec<_>>>().ok_or_else(|| wrong(&name))?)
        }
        _ => return Err(wrong(&name)),
    };
    Ok((name, values))
}

fn answer(shown: &Shown) -> Result<Response> {
    let member = |(name, values): (&'static str, Vec<String>)| {
        let value = match (name, values.as_slice()) {
            ("trace_level", _) => Value::from(values),
            (_, [value]) => Value::from(value.as_str()),
            _ => Value::from(values),
        };
        (name.to_owned(), value)
    };
    reply::json(&shown.entries().into_iter().map(member).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_become_changes() {
        let change = |value: Value| change(("trace_rate".to_owned(), value)).map(|(_, values)| values);
        assert_eq!(change(Value::Null).unwrap(), None);
        assert_eq!(change(json!("7")).unwrap(), Some(vec!["7".to_owned()]));
        assert_eq!(change(json!(["a", "b"])).unwrap(), Some(vec!["a".to_owned(), "b".to_owned()]));
        for bad in [json!(7), json!(true), json!([7]), json!({}), json!([["a"]])] {
            assert_eq!(change(bad).unwrap_err().reason(), Reason::MalformedRequest);
        }
    }
}
