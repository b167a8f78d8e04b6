//! What is shown, what is chosen, and who shares a count with whom.

use proptest::prelude::*;

use super::*;

fn change(name: &str, values: &[&str]) -> Change {
    (name.to_owned(), (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()))
}

fn world() -> (Traces, TenantName, ModelName) {
    (Traces::new(World::real()), "a".parse().unwrap(), "m".parse().unwrap())
}

/// How many of so many requests are traced.
fn traced(traces: &Traces, tenant: &TenantName, model: &ModelName, requests: usize) -> usize {
    let request = "r".parse().unwrap();
    (0..requests).filter(|_| traces.begin(tenant, model, &request).is_some()).count()
}

#[test]
fn every_so_many_th_request_is_traced_until_the_count_is_used_up() {
    let (traces, tenant, model) = world();
    assert_eq!(traced(&traces, &tenant, &model, 5000), 0, "off by default");
    let shown = traces.get(&tenant, None);
    assert_eq!((shown.trace_level, shown.trace_rate, shown.trace_count, shown.log_frequency), (vec!["OFF"], 1000, -1, 0));
    traces.update(&tenant, None, &[change("trace_level", &["TIMESTAMPS"]), change("trace_rate", &["3"])]).unwrap();
    assert_eq!(traced(&traces, &tenant, &model, 30), 10);
    traces.update(&tenant, None, &[change("trace_count", &["4"])]).unwrap();
    assert_eq!(traced(&traces, &tenant, &model, 6), 2);
    assert_eq!(traces.get(&tenant, Some(&model)).trace_count, 2);
    assert_eq!(traced(&traces, &tenant, &model, 600), 2);
    assert_eq!(traces.get(&tenant, None).trace_count, 0);
    for off in [change("trace_rate", &["0"]), change("trace_level", &["OFF"])] {
        traces.update(&tenant, None, &[change("trace_count", &[]), change("trace_rate", &["1"]), off]).unwrap();
        assert_eq!(traced(&traces, &tenant, &model, 10), 0);
    }
}

#[test]
fn a_model_follows_the_global_settings_in_what_it_does_not_set() {
    let (traces, tenant, model) = world();
    let other: ModelName = "n".parse().unwrap();
    traces.update(&tenant, Some(&model), &[change("trace_rate", &["5"])]).unwrap();
    assert_eq!(traces.get(&tenant, None).trace_rate, 1000);
    traces.update(&tenant, None, &[change("trace_level", &["TIMESTAMPS"]), change("trace_rate", &["2"])]).unwrap();
    let shown = traces.get(&tenant, Some(&model));
    assert_eq!((shown.trace_level, shown.trace_rate), (vec!["TIMESTAMPS"], 5));
    assert_eq!((traced(&traces, &tenant, &model, 10), traced(&traces, &tenant, &other, 10)), (2, 5));
    let shown = traces.update(&tenant, Some(&model), &[change("trace_level", &["OFF"])]).unwrap();
    assert_eq!(shown.trace_level, ["OFF"]);
    assert_eq!((traced(&traces, &tenant, &model, 10), traced(&traces, &tenant, &other, 10)), (0, 5));
    let cleared = [change("trace_level", &[]), change("trace_rate", &[])];
    assert_eq!(traces.update(&tenant, Some(&model), &cleared).unwrap(), traces.get(&tenant, None));
    assert_eq!(traced(&traces, &tenant, &model, 10), 5);
}

#[test]
fn tenants_have_their_own_settings() {
    let (traces, tenant, model) = world();
    let other: TenantName = "b".parse().unwrap();
    traces.update(&tenant, None, &[change("trace_level", &["TIMESTAMPS"]), change("trace_rate", &["1"])]).unwrap();
    assert_eq!(traced(&traces, &other, &model, 10), 0);
    assert_eq!(traces.get(&other, None).trace_level, ["OFF"]);
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let (traces, tenant, _) = world();
    for (bad, reason) in [
        (change("trace_level", &["TENSORS"]), Reason::NotImplemented),
        (change("trace_level", &["TIMESTAMPS", "TENSORS"]), Reason::NotImplemented),
        (change("trace_level", &["OFF", "TIMESTAMPS"]), Reason::MalformedRequest),
        (change("trace_level", &["LOUD\n"]), Reason::MalformedRequest),
        (change("trace_rate", &["-1"]), Reason::MalformedRequest),
        (change("trace_rate", &["1", "2"]), Reason::MalformedRequest),
        (change("trace_rate", &["99999999999999999999"]), Reason::MalformedRequest),
        (change("trace_count", &["-2"]), Reason::MalformedRequest),
        (change("log_frequency", &["x"]), Reason::MalformedRequest),
        (change("trace_file", &["/tmp/x"]), Reason::NotImplemented),
        (change("trace_file", &[]), Reason::NotImplemented),
        (change("trace_mode", &["opentelemetry"]), Reason::NotImplemented),
        (change("trace_rat", &["1"]), Reason::MalformedRequest),
    ] {
        let refused = traces.update(&tenant, None, &[change("trace_rate", &["7"]), bad.clone()]).unwrap_err();
        assert_eq!(refused.reason(), reason, "{bad:?}");
        assert_eq!(traces.get(&tenant, None).trace_rate, 1000, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_change_is_judged_without_a_panic(name in "trace_(level|rate|count)|log_frequency|.{0,20}", values in proptest::collection::vec(".{0,8}|-?[0-9]{1,22}", 0..3)) {
        let (traces, tenant, model) = world();
        let _ = traces.update(&tenant, Some(&model), &[(name, Some(values))]);
        let _ = traces.begin(&tenant, &model, &"r".parse().unwrap());
    }
}
