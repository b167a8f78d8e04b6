//! Keys of shared-memory objects: names as `shm_open` takes them.
//!
//! Invariant: what passes is the name of one entry directly in the shared-memory file system.

/// The longest name that a file system takes, in bytes.
const MAX_KEY: usize = 255;

/// The file's name that `key` stands for. The error says what is wrong with the key.
pub fn file_name<'k>(key: &'k str, prefix: &str) -> Result<&'k str, String> {
    let name = key.strip_prefix('/').unwrap_or(key);
    if name.is_empty() || name.len() > MAX_KEY {
        return Err(format!("a key has 1 to {MAX_KEY} bytes after its slash"));
    }
    if name.contains('/') {
        return Err("a key has one slash at most, at its beginning".to_owned());
    }
    if name == "." || name.contains("..") || name.chars().any(char::is_control) {
        return Err("a key is the plain name of a shared memory object".to_owned());
    }
    let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
    if !name.starts_with(prefix) {
        return Err(format!("on this server a key begins with '{prefix}' (shared_memory.prefix)"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_pass_with_and_without_a_slash() {
        for (key, name) in [("/in", "in"), ("in", "in"), ("/psm_3f.2", "psm_3f.2"), ("/ä b", "ä b")] {
            assert_eq!(file_name(key, "").unwrap(), name);
        }
        assert_eq!(file_name("/app_1", "app_").unwrap(), "app_1");
        assert_eq!(file_name("/app_1", "/app_").unwrap(), "app_1");
    }

    #[test]
    fn hostile_names_do_not() {
        let long = format!("/{}", "a".repeat(256));
        for key in ["", "/", "//in", "/a/b", "a/", "../etc/passwd", "/..", "..", ".", "/.", "/a..b", "a\0b", "/a\n", "\u{7f}", &long] {
            assert!(file_name(key, "").is_err(), "{key:?}");
        }
        for key in ["/other", "/ap", "/xapp_"] {
            assert!(file_name(key, "app_").is_err(), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_never_leaves_the_directory(key in "[/.a\\x00\u{2044}]{0,6}|.{0,300}") {
            if let Ok(name) = file_name(&key, "") {
                let path = std::path::Path::new("/base").join(name);
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/base")));
                let plain = matches!(path.components().next_back(), Some(std::path::Component::Normal(last)) if last == name);
                prop_assert!(plain);
            }
        }
    }
}
