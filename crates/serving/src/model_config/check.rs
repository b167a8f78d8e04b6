//! What a configuration must be by itself, before any graph is known.
//!
//! Refuses values out of range, and every field that would change answers if it were ignored.

use std::collections::BTreeSet;

use plinth_types::tensor::MAX_RANK;
use plinth_types::{ArtifactPath, Error, VersionNumber};

use super::schema::pb;
use super::{invalid, unsupported};

/// The most copies of a model.
pub(super) const MAX_INSTANCES: u32 = 256;

/// Checks all fields.
pub(super) fn check(config: &pb::ModelConfig) -> Result<(), Error> {
    if config.max_batch_size < 0 {
        return Err(invalid("max_batch_size", format!("want 0 or more, got {}", config.max_batch_size)));
    }
    let inputs = config.input.iter().map(|i| (&i.name, i.data_type, &i.dims, &i.reshape));
    check_tensors("input", inputs)?;
    let outputs = config.output.iter().map(|o| (&o.name, o.data_type, &o.dims, &o.reshape));
    check_tensors("output", outputs)?;
    for (i, output) in config.output.iter().enumerate() {
        check_path(&format!("output[{i}].label_filename"), &output.label_filename)?;
    }
    check_path("default_model_filename", &config.default_model_filename)?;
    check_instances(&config.instance_group)?;
    check_versions(config)?;
    check_warmup(config)?;
    if let Some(pb::model_config::SchedulingChoice::SequenceBatching(sequence)) = &config.scheduling_choice {
        super::sequence::check(sequence)?;
    }
    check_unsupported(config)?;
    super::ensemble::check(config)
}

type TensorParts<'a> = (&'a String, i32, &'a Vec<i64>, &'a Option<pb::ModelTensorReshape>);

fn check_tensors<'a>(kind: &str, tensors: impl Iterator<Item = TensorParts<'a>>) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for (i, (name, data_type, dims, reshape)) in tensors.enumerate() {
        if name.is_empty() {
            return Err(invalid(&format!("{kind}[{i}].name"), "a tensor needs a name"));
        }
        if !names.insert(name) {
            return Err(invalid(&format!("{kind}[{i}].name"), format!("'{}' is declared twice", super::schema::excerpt(name))));
        }
        check_data_type(&format!("{kind}[{i}].data_type"), data_type)?;
        check_dims(&format!("{kind}[{i}].dims"), dims, -1)?;
        if reshape.is_some() {
            return Err(unsupported(&format!("{kind}[{i}].reshape"), "reshaping is not implemented; declare the graph's own shape"));
        }
    }
    Ok(())
}

fn check_data_type(field: &str, data_type: i32) -> Result<(), Error> {
    pb::DataType::try_from(data_type).map(drop).map_err(|_| invalid(field, format!("there is no data type {data_type}")))
}

fn check_dims(field: &str, dims: &[i64], least: i64) -> Result<(), Error> {
    // One place is left for the batch dimension.
    if dims.len() >= MAX_RANK {
        return Err(invalid(field, format!("want at most {} dimensions, got {}", MAX_RANK - 1, dims.len())));
    }
    match dims.iter().find(|d| **d < least) {
        Some(dim) if least < 0 => Err(invalid(field, format!("a dimension is -1 (any size) or at least 0, got {dim}"))),
        Some(dim) => Err(invalid(field, format!("a dimension is at least {least} here, got {dim}"))),
        None => Ok(()),
    }
}

fn check_path(field: &str, path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Ok(());
    }
    path.parse::<ArtifactPath>().map(drop).map_err(|e| invalid(field, e))
}

fn check_instances(groups: &[pb::ModelInstanceGroup]) -> Result<(), Error> {
    use pb::model_instance_group::Kind;
    let mut total = 0u32;
    for (i, group) in groups.iter().enumerate() {
        let field = format!("instance_group[{i}].count");
        let count = u32::try_from(group.count).map_err(|_| invalid(&field, format!("want 1 or more, got {}", group.count)))?;
        total = total.saturating_add(count.max(1));
        if total > MAX_INSTANCES {
            return Err(invalid(&field, format!("want at most {MAX_INSTANCES} copies over all groups")));
        }
        if groups.iter().flat_map(|g| &g.gpus).any(|gpu| Some(gpu) != groups.first().and_then(|g| g.gpus.first())) {
            return Err(unsupported(&format!("instance_group[{i}].gpus"), "all copies of a version share one GPU; name one"));
        }
        if group.gpus.iter().any(|gpu| *gpu < 0) {
            return Err(invalid(&format!("instance_group[{i}].gpus"), "want 0 or more"));
        }
        let field = format!("instance_group[{i}].kind");
        match Kind::try_from(group.kind) {
            Ok(Kind::Auto | Kind::Cpu | Kind::Gpu) if groups.iter().all(|g| (g.kind() == Kind::Gpu) == (group.kind() == Kind::Gpu)) => {}
            Ok(Kind::Auto | Kind::Cpu | Kind::Gpu) => {
                return Err(unsupported(&field, "all copies of a model run on the same kind of device; give every group the same"));
            }
            Ok(_) => return Err(unsupported(&field, "only KIND_CPU, KIND_GPU and KIND_AUTO are implemented")),
            Err(_) => return Err(invalid(&field, format!("there is no kind {}", group.kind))),
        }
    }
    Ok(())
}

fn check_versions(config: &pb::ModelConfig) -> Result<(), Error> {
    use pb::model_version_policy::PolicyChoice;
    match config.version_policy.as_ref().and_then(|p| p.policy_choice.as_ref()) {
        Some(PolicyChoice::Latest(latest)) if latest.num_versions == 0 => {
            Err(invalid("version_policy.latest.num_versions", "want 1 or more"))
        }
        Some(PolicyChoice::Specific(specific)) => specific.versions.iter().enumerate().try_for_each(|(i, version)| {
            let number = u64::try_from(*version).ok().and_then(|v| VersionNumber::try_from(v).ok());
            let field = format!("version_policy.specific.versions[{i}]");
            number.map(drop).ok_or_else(|| invalid(&field, format!("want 1 or more, got {version}")))
        }),
        _ => Ok(()),
    }
}

fn check_warmup(config: &pb::ModelConfig) -> Result<(), Error> {
    use pb::model_warmup::input::InputDataType;
    for (i, sample) in config.model_warmup.iter().enumerate() {
        for (name, input) in &sample.inputs {
            let field = format!("model_warmup[{i}].inputs[{}]", super::schema::excerpt(name));
            check_data_type(&format!("{field}.data_type"), input.data_type)?;
            check_dims(&format!("{field}.dims"), &input.dims, 0)?;
            match input.input_data_type {
                Some(InputDataType::ZeroData(true) | InputDataType::RandomData(true)) => {}
                Some(InputDataType::InputDataFile(_)) => {
                    let field = format!("{field}.input_data_file");
                    return Err(unsupported(&field, "warm-up from files is not implemented; use zero_data or random_data"));
                }
                _ => return Err(invalid(&field, "say zero_data: true or random_data: true")),
            }
        }
    }
    Ok(())
}

/// Refuses what would change answers, or weaken a promise, if it were ignored.
fn check_unsupported(config: &pb::ModelConfig) -> Result<(), Error> {
    let asked = [
        ("batch_input", !config.batch_input.is_empty()),
        ("batch_output", !config.batch_output.is_empty()),
        ("model_operations", config.model_operations.as_ref().is_some_and(|o| !o.op_library_filename.is_empty())),
        ("model_transaction_policy.decoupled", config.model_transaction_policy.is_some_and(|p| p.decoupled)),
        ("model_repository_agents", config.model_repository_agents.as_ref().is_some_and(|a| !a.agents.is_empty())),
    ];
    match asked.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(unsupported(field, "this is not implemented; remove it")),
        None => Ok(()),
    }
}
