//! What a server cannot do, as it finds out itself.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::support::{SCRIPT, Version, manifest, says};

async fn facts(version: &Version) -> (Value, Vec<String>) {
    let server = version.start().await;
    let facts = serde_json::from_str(&says(&server, "facts", "").await).unwrap();
    (facts, server.sandbox().applied.clone())
}

fn with_targets() -> Version {
    // The paths are known only when the directory is there: a fixed place outside, and the secret beside the version.
    Version::python(
        "plain",
        "environment = { OUTSIDE = \"/tmp/plinth-test-outside\", HIDDEN = \"{model_dir}/../secret/key\", OMP_NUM_THREADS = \"2\" }",
    )
}

#[tokio::test]
async fn nothing_of_the_nodes_environment_goes_along() {
    let (facts, _) = facts(&with_targets()).await;
    let names: Vec<&str> = facts["env"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec!["HIDDEN", "HOME", "LANG", "OMP_NUM_THREADS", "OUTSIDE", "PATH", "TMPDIR"];
    // Python sets it for itself when the locale is C.
    expected.extend(names.contains(&"LC_CTYPE").then_some("LC_CTYPE"));
    let mut sorted = names.clone();
    sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(facts["env"]["OMP_NUM_THREADS"], "2");
}

#[tokio::test]
async fn files_are_read_only_but_in_one_place_and_some_are_hidden() {
    let version = with_targets();
    let (facts, walls) = facts(&version).await;
    assert!(walls.iter().any(|wall| wall == "landlock"), "{walls:?}");
    assert_eq!(facts["in_tmp"], "written");
    assert_eq!(facts["in_cwd"], "PermissionError");
    assert_eq!(facts["outside"], "PermissionError");
    assert_eq!(facts["hidden"], "PermissionError");
    let cwd = std::fs::canonicalize(version.root.path().join("version")).unwrap();
    assert_eq!(facts["cwd"], cwd.to_str().unwrap());
}

#[tokio::test]
async fn it_has_no_rights_and_no_descriptors_of_the_node() {
    let (facts, walls) = facts(&with_targets()).await;
    assert_eq!((facts["caps"].as_str(), facts["no_new_privs"].as_str()), (Some("0000000000000000"), Some("1")));
    assert_eq!(facts["leader"], true);
    // Standard streams, the listener, this connection, the selector, and the directory that is being listed.
    assert!(facts["fds"].as_array().unwrap().len() <= 8, "{facts}");
    if walls.iter().any(|wall| wall == "process namespace") {
        assert_eq!(facts["processes"], serde_json::json!([1, 2]), "it sees nobody but itself and its parent");
    }
}

#[tokio::test]
async fn where_directories_are_open_root_becomes_somebody_else() {
    let version = with_targets();
    for name in ["", "version", "scratch"] {
        std::fs::set_permissions(version.root.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut spec = version.spec();
    // The tests' own Python may lie in a directory that is closed to others; the machine's does not.
    let machines = tempfile::tempdir().unwrap();
    std::fs::set_permissions(machines.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if std::path::Path::new("/usr/bin/python3").exists() {
        std::os::unix::fs::symlink("/usr/bin/python3", machines.path().join("python")).unwrap();
        spec.program_allow = vec![machines.path().join("python")];
    }
    let server = super::support::start(spec).await.unwrap();
    let facts: Value = serde_json::from_str(&says(&server, "facts", "").await).unwrap();
    let walls = &server.sandbox().applied;
    if walls.iter().any(|wall| wall == "unprivileged user") {
        assert_ne!(facts["uid"], 0);
    }
    assert_eq!((facts["in_tmp"].as_str(), facts["hidden"].as_str()), (Some("written"), Some("PermissionError")));
}

#[tokio::test]
async fn what_it_writes_to_the_shared_place_lands_in_its_own() {
    let name = format!("/tmp/plinth-test-{}", std::process::id());
    let text = manifest("oip-http", "plain", &format!("environment = {{ OUTSIDE = \"{name}\" }}"));
    // A version in the shared place itself would hide its own files.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let version = Version::at(root, &[("process.toml", text.as_bytes()), ("server.py", SCRIPT)]);
    let (facts, walls) = facts(&version).await;
    if walls.iter().any(|wall| wall == "temporary directory of its own") {
        assert_eq!(facts["outside"], "written");
    }
    assert!(!std::path::Path::new(&name).exists());
}
