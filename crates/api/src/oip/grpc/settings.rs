//! Trace and log settings: `TraceSetting` and `LogSettings`, which both show and change.
//!
//! Showing needs a viewer's key; changing traces an operator's and the log, which is the node's, one of an admin of the
//! default tenant, as over HTTP, where the two are two routes.

use std::collections::BTreeMap;

use plinth_identity::{Principal, authorise};
use plinth_net::Access;
use plinth_types::{Error, Reason, Result};

use super::pb::inference as pb;
use super::request::model;
use crate::Services;
use crate::oip::logging::{self, LogValue};

pub(super) async fn trace(services: Services, who: Principal, asked: pb::TraceSettingRequest) -> Result<pb::TraceSettingResponse> {
    let model = if asked.model_name.is_empty() { None } else { Some(model(&asked.model_name)?) };
    if let Some(model) = &model {
        who.must_use(model)?;
        services.serving.resolve(&who.tenant, model, None)?;
    }
    let shown = if asked.settings.is_empty() {
        services.traces.get(&who.tenant, model.as_ref())
    } else {
        authorise(&who, Access::Operate)?;
        // A setting without values is cleared.
        let changes: Vec<_> = asked.settings.into_iter().map(|(name, setting)| (name, Some(setting.value))).collect();
        services.traces.update(&who.tenant, model.as_ref(), &changes)?
    };
    let setting = |(name, value): (&str, Vec<String>)| (name.to_owned(), pb::trace_setting_response::SettingValue { value });
    Ok(pb::TraceSettingResponse { settings: shown.entries().into_iter().map(setting).collect() })
}

pub(super) async fn logging(services: Services, who: Principal, asked: pb::LogSettingsRequest) -> Result<pb::LogSettingsResponse> {
    if !asked.settings.is_empty() {
        authorise(&who, Access::Platform)?;
        logging::update(&services.logs, &changes(asked.settings)?)?;
    }
    let setting = |(name, value): (&str, LogValue)| {
        use pb::log_settings_response::setting_value::ParameterChoice;
        let choice = match value {
            LogValue::Bool(on) => ParameterChoice::BoolParam(on),
            LogValue::Number(number) => ParameterChoice::Uint32Param(u32::try_from(number).unwrap_or(u32::MAX)),
            LogValue::Text(text) => ParameterChoice::StringParam(text),
        };
        (name.to_owned(), pb::log_settings_response::SettingValue { parameter_choice: Some(choice) })
    };
    Ok(pb::LogSettingsResponse { settings: logging::current(&services.logs).into_iter().map(setting).collect() })
}

fn changes(settings: BTreeMap<String, pb::log_settings_request::SettingValue>) -> Result<Vec<(String, LogValue)>> {
    use pb::log_settings_request::setting_value::ParameterChoice;
    let change = |(name, setting): (String, pb::log_settings_request::SettingValue)| {
        let value = match setting.parameter_choice {
            Some(ParameterChoice::BoolParam(on)) => LogValue::Bool(on),
            Some(ParameterChoice::Uint32Param(number)) => LogValue::Number(u64::from(number)),
            Some(ParameterChoice::StringParam(text)) => LogValue::Text(text),
            None => {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(Error::new(Reason::MalformedRequest, format!("the log setting '{shown}' has no value")).field(shown));
            }
        };
        Ok((name, value))
    };
    settings.into_iter().map(change).collect()
}
