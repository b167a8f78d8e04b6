//! The configuration from outside: files, variables, what is refused and what is shown.

use std::path::Path;

use proptest::prelude::*;

use crate::*;

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    Config::parse(Path::new("plinth.toml"), text, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(text, env).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_hold_and_are_shown() {
    let config = Config::default();
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:8000");
    assert_eq!(config.metadata.url, MetadataUrl::Sqlite(None));
    assert_eq!(config.http.max_body, plinth_types::ByteSize::mib(64));
    insta::assert_snapshot!(config.show());
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let shown = Config::default().show();
    let again = load(&shown, &[]).unwrap();
    let values = |config: &Config| config.shown().iter().map(|s| (s.path, s.value.clone())).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&Config::default()));
}

#[test]
fn the_environment_wins_over_the_file_and_origins_are_kept() {
    let text = "[listen]\nhttp = \"127.0.0.1:9000\"\nmetrics = \"\"\n[node]\nroles = [\"worker\"]\n";
    let env = [("PLINTH__LISTEN__HTTP", "[::1]:9001"), ("PLINTH__ENGINE__BACKENDS", "onnx, villain"), ("HOME", "/"), ("PLINTH_KEY", "x")];
    let config = load(text, &env).unwrap();
    assert_eq!(config.listen.http.to_string(), "[::1]:9001");
    assert_eq!(config.listen.metrics, None);
    assert_eq!(config.node.roles, vec![Role::Worker]);
    assert_eq!(config.engine.backends, vec![Backend::Onnx, Backend::Villain]);
    let origin = |path: &str| config.shown().iter().find(|s| s.path == path).unwrap().origin.to_string();
    assert_eq!(origin("listen.http"), "environment PLINTH__LISTEN__HTTP");
    assert_eq!(origin("node.roles"), "plinth.toml:5");
    assert_eq!(origin("log.level"), "default");
}

#[test]
fn misspelt_keys_are_refused_with_the_nearest_name() {
    let text = "[listen]\nhtttp = \"x\"\n\n[listne]\nhttp = \"\"\n[http]\ndrain = \"5s\"\n[zzzzzz]\n[node]\nqqqqqqqqqqqq = 1\n";
    let env = [("PLINTH__LISTEN__HTP", "x"), ("PLINTH__listen__http", "x")];
    assert_eq!(
        problems(text, &env),
        [
            "plinth.toml:2: unknown key 'listen.htttp'; did you mean 'listen.http'?",
            "plinth.toml:4: unknown section 'listne'; did you mean 'listen'?",
            "plinth.toml:7: unknown key 'http.drain'; did you mean 'shutdown.drain'?",
            "plinth.toml:8: unknown section 'zzzzzz'",
            "plinth.toml:10: unknown key 'node.qqqqqqqqqqqq'",
            "environment PLINTH__LISTEN__HTP: unknown variable; did you mean 'PLINTH__LISTEN__HTTP'?",
            "environment PLINTH__listen__http: unknown variable; did you mean 'PLINTH__LISTEN__HTTP'?",
        ]
    );
}

#[test]
fn wrong_values_name_the_key_the_form_and_the_source_all_at_once() {
    let text = "[http]\nmax_connections = \"many\"\nheader_timeout = 10\nmax_body = 1.5\n[node]\nroles = [\"chef\", 3]\n[listen]\nhttp = \"0.0.0.0\"\n\
                [metadata]\nurl = \"mysql://root:hunter2@h/d\"\n[bus]\nurl = \"kafka://h\"\n";
    let found = problems(text, &[("PLINTH__ENGINE__THREADS", "-1")]);
    assert_eq!(
        found,
        [
            "plinth.toml:2: 'http.max_connections' wants a whole number from 0 to 4294967295; found \"many\"",
            "plinth.toml:3: 'http.header_timeout' wants a duration such as \"10s\", \"5m\" or \"500ms\"; found a number",
            "plinth.toml:4: 'http.max_body' wants a size such as \"64MiB\" or a number of bytes; found a number with a fraction",
            "plinth.toml:6: 'node.roles' wants a list of texts; in the environment separated by commas; \
             the item \"chef\" is not one of \"gateway\", \"worker\", \"controller\"; found a list",
            "plinth.toml:8: 'listen.http' wants an IP address with a port, such as \"127.0.0.1:8000\" or \"[::1]:8000\"; found \"0.0.0.0\"",
            "plinth.toml:10: 'metadata.url' wants \"sqlite:\", \"sqlite:/path/to/file\" or \"postgres://user:password@host/database\"; found a text",
            "plinth.toml:12: 'bus.url' wants \"local:\" or \"nats://user:password@host:4222\"; found a text",
            "environment PLINTH__ENGINE__THREADS: 'engine.threads' wants a whole number from 0 to 65535; found \"-1\"",
        ]
    );
    assert!(!found.concat().contains("hunter2"));
}

#[test]
fn broken_toml_names_the_line() {
    let found = problems("[listen]\nhttp = \"a\"\nhttp = \"b\"\n[node\n", &[]);
    assert!(found.len() >= 2 && found[0].starts_with("plinth.toml:3: not TOML: duplicate key"), "{found:?}");
    assert_eq!(problems("listen = 3\nfoo = 1\n", &[]).len(), 2);
}

#[test]
fn an_open_node_stays_on_loopback() {
    let text = "[auth]\nmode = \"open\"\n[listen]\nhttp = \"0.0.0.0:8000\"\nmetrics = \"10.0.0.1:8002\"\n";
    let found = problems(text, &[]);
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("plinth.toml:4: 'listen.http' must be a loopback address"), "{found:?}");
    assert!(load("[auth]\nmode = \"open\"\n", &[]).is_ok());
    assert!(load("[listen]\nhttp = \"0.0.0.0:8000\"\n", &[]).is_ok());
}

#[test]
fn rules_between_keys() {
    for (text, key) in [
        ("[signing]\nrequire_signature = true", "signing.trusted_keys"),
        ("[listen]\nmetrics = \"127.0.0.1:8000\"", "listen.metrics"),
        ("[http]\nmax_body = \"512MiB\"", "engine.max_queue_bytes"),
        ("[http]\nheader_timeout = \"0s\"", "http.header_timeout"),
        ("[http]\nserver_name = \"a b\"", "http.server_name"),
        ("[http]\nallowed_hosts = [\"*.example.com\"]", "http.allowed_hosts"),
        ("[objects]\ns3_access_key = \"a\"", "objects.s3_access_key"),
        ("[objects]\ns3_endpoint = \"http://h\"", "objects.s3_endpoint"),
        ("[node]\nroles = []", "node.roles"),
        ("[node]\nname = \"../x\"", "node.name"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[testing]\ncrash_pass = 0", "testing.crash_pass"),
    ] {
        let found = load(text, &[]).err().unwrap_or_default();
        assert!(found.iter().any(|problem| problem.key == key), "{text}: {found:?}");
    }
    assert!(load("[log]\nlevel = \"info,plinth_net=debug\"", &[]).is_ok());
}

#[test]
fn secrets_are_not_shown() {
    let text =
        "[metadata]\nurl = \"postgres://plinth:hunter2@db/plinth\"\n[objects]\ns3_access_key = \"AKIA\"\ns3_secret_key = \"hunter2\"\n";
    let config = load(text, &[]).unwrap();
    let out = format!("{}{config:?}", config.show());
    assert!(!out.contains("hunter2") && !out.contains("AKIA"), "{out}");
    assert!(out.contains("postgres://plinth:***@db/plinth"));
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let found = Config::load(Some(Path::new("no/such/file.toml")), std::iter::empty()).unwrap_err();
    assert!(found[0].text.starts_with("cannot read the file"), "{found:?}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    std::fs::write(&path, "[node]\nname = \"n1\"\n").unwrap();
    assert_eq!(Config::load(Some(&path), std::iter::empty()).unwrap().node.name, "n1");
    std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    assert!(Config::load(Some(&path), std::iter::empty()).unwrap_err()[0].text.contains("larger than"));
}

#[test]
fn the_reference_names_every_key() {
    let text = reference_markdown();
    assert!(keys::all().count() > 40);
    for key in keys::all() {
        assert!(text.contains(&format!("### `{}`", key.path)), "{}", key.path);
        assert!(!key.doc.trim().is_empty() && key.doc.trim().ends_with('.'), "{}", key.path);
        assert_ne!((key.shown_default)(), "?", "{}", key.path);
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}") {
        let _ = load(&text, &[]);
    }

    #[test]
    fn random_toml_never_panics(
        section in prop::sample::select(keys::SECTIONS.iter().map(|s| s.name).collect::<Vec<_>>()),
        key in "[a-z_]{1,12}|http|url|mode|roles|max_body|threads",
        value in "[0-9]{1,30}|true|-?[0-9]+\\.[0-9]+|\"\\PC{0,20}\"|\\[[0-9,\" a-z]{0,10}\\]|\\{a=1\\}|1979-05-27",
        env in "\\PC{0,30}",
    ) {
        let _ = load(&format!("[{section}]\n{key} = {value}\n"), &[("PLINTH__NODE__NAME", &env), ("PLINTH__HTTP__MAX_BODY", &env)]);
    }
}
