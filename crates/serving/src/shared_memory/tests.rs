//! Hostile clients, and clients that change their minds.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct World {
    directory: tempfile::TempDir,
    regions: Regions,
    tenant: TenantName,
}

fn world(prefix: &str, max_regions: usize) -> World {
    let directory = tempfile::tempdir().unwrap();
    let options = RegionOptions { enabled: true, prefix: prefix.into(), max_regions, directory: directory.path().to_owned() };
    World { directory, regions: Regions::new(options), tenant: "a".parse().unwrap() }
}

impl World {
    fn object(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).unwrap();
    }

    fn register(&self, name: &str, key: &str, offset: u64, size: u64) -> Result<(), Reason> {
        self.regions.register(&self.tenant, name, key, offset, size).map_err(|e| e.reason())
    }
}

#[test]
fn bytes_go_there_and_back_inside_what_was_registered() {
    let world = world("", 4);
    world.object("in", b"0123456789");
    world.register("r", "/in", 2, 6).unwrap();
    let region = world.regions.find(&world.tenant, "r").unwrap();
    let mut buffer = [0; 3];
    region.read(1, &mut buffer).unwrap();
    assert_eq!(&buffer, b"345");
    region.write(4, b"xy").unwrap();
    assert_eq!(fs::read(world.directory.path().join("in")).unwrap(), b"012345xy89");
    let status = world.regions.status(&world.tenant, Some("r")).unwrap();
    assert_eq!(status, [RegionStatus { name: "r".into(), key: "/in".into(), offset: 2, byte_size: 6 }]);
    for (offset, size, text) in [
        (7, 0, "Invalid offset for shared memory region"),
        (0, 7, "Invalid offset + byte size"),
        (6, 1, "Invalid offset + byte size"),
        (1, u64::MAX, "Invalid offset + byte size"),
        (u64::MAX, 1, "Invalid offset for shared memory region"),
    ] {
        let refused = region.check(offset, size).unwrap_err();
        assert_eq!(refused.reason(), Reason::InvalidSharedMemory);
        assert!(refused.public_text().starts_with(text), "{offset} {size}: {refused}");
    }
    region.check(6, 0).unwrap();
}

#[test]
fn hostile_registrations_are_refused() {
    let world = world("", 4);
    world.object("in", b"0123456789");
    fs::create_dir(world.directory.path().join("directory")).unwrap();
    symlink("/etc/passwd", world.directory.path().join("link")).unwrap();
    symlink("in", world.directory.path().join("inner")).unwrap();
    let pipe = world.directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let long = "n".repeat(257);
    for (name, key, offset, size) in [
        ("r", "/none", 0, 1),
        ("r", "/../in", 0, 1),
        ("r", "//in", 0, 1),
        ("r", "in/", 0, 1),
        ("r", "/in\0", 0, 1),
        ("r", "", 0, 1),
        ("r", "/link", 0, 1),
        ("r", "/inner", 0, 1),
        ("r", "/directory", 0, 1),
        ("r", "/pipe", 0, 1),
        ("r", "/in", 0, 11),
        ("r", "/in", 10, 1),
        ("r", "/in", 0, 0),
        ("r", "/in", u64::MAX, 1),
        ("r", "/in", 1, u64::MAX),
        ("r", "/in", i64::MAX as u64, 1),
        ("", "/in", 0, 1),
        ("a\nb", "/in", 0, 1),
        (&long, "/in", 0, 1),
    ] {
        assert_eq!(world.register(name, key, offset, size), Err(Reason::InvalidSharedMemory), "{name:?} {key:?} {offset} {size}");
    }
    assert_eq!(world.regions.status(&world.tenant, None).unwrap(), []);
    world.register("r", "/in", 0, 10).unwrap();
    assert_eq!(world.register("r", "/in", 0, 10), Err(Reason::AlreadyExists));
}

#[test]
fn errors_tell_no_paths() {
    let world = world("", 4);
    for key in ["/none", "/../x"] {
        let error = world.regions.register(&world.tenant, "r", key, 0, 1).unwrap_err();
        assert!(!error.public_text().contains(world.directory.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_prefix_and_a_number_bound_what_is_registered() {
    let world = world("app_", 2);
    for name in ["app_1", "other"] {
        world.object(name, b"x");
    }
    assert_eq!(world.register("o", "/other", 0, 1), Err(Reason::InvalidSharedMemory));
    world.register("a", "/app_1", 0, 1).unwrap();
    let other: TenantName = "b".parse().unwrap();
    world.regions.register(&other, "a", "/app_1", 0, 1).unwrap();
    assert_eq!(world.register("b", "/app_1", 0, 1), Err(Reason::OverCapacity));
    world.regions.unregister(&other, None);
    world.register("b", "/app_1", 0, 1).unwrap();
}

#[test]
fn tenants_do_not_see_each_other() {
    let world = world("", 4);
    world.object("in", b"x");
    let other: TenantName = "b".parse().unwrap();
    world.register("r", "/in", 0, 1).unwrap();
    assert_eq!(world.regions.find(&other, "r").unwrap_err().reason(), Reason::SharedMemoryNotFound);
    assert_eq!(world.regions.status(&other, None).unwrap(), []);
    assert_eq!(world.regions.status(&other, Some("r")).unwrap_err().reason(), Reason::SharedMemoryNotFound);
    world.regions.unregister(&other, None);
    world.regions.unregister(&other, Some("r"));
    assert_eq!(world.regions.status(&world.tenant, None).unwrap().len(), 1);
}

#[test]
fn a_region_that_its_owner_shortens_is_an_error_and_stays_short() {
    let world = world("", 4);
    world.object("in", &[7; 8192]);
    world.register("r", "/in", 0, 8192).unwrap();
    let region = world.regions.find(&world.tenant, "r").unwrap();
    let path = world.directory.path().join("in");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let mut buffer = vec![0; 8192];
    for outcome in [region.read(0, &mut buffer), region.read(200, &mut buffer[..1]), region.write(99, b"ab")] {
        let error = outcome.unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidSharedMemory);
        assert!(error.public_text().contains("shorter"), "{error}");
    }
    region.read(0, &mut buffer[..100]).unwrap();
    region.write(98, b"ab").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 100);
}

#[test]
fn a_region_lives_as_long_as_somebody_uses_it() {
    let world = world("", 4);
    world.object("in", b"abc");
    world.register("r", "/in", 0, 3).unwrap();
    let region = world.regions.find(&world.tenant, "r").unwrap();
    world.regions.unregister(&world.tenant, Some("r"));
    world.regions.unregister(&world.tenant, Some("r"));
    fs::remove_file(world.directory.path().join("in")).unwrap();
    assert_eq!(world.regions.find(&world.tenant, "r").unwrap_err().reason(), Reason::SharedMemoryNotFound);
    let mut buffer = [0; 3];
    region.read(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abc");
}

#[test]
fn off_means_nothing_is_there() {
    let regions = Regions::new(RegionOptions::default());
    let tenant: TenantName = "a".parse().unwrap();
    for error in [regions.register(&tenant, "r", "/in", 0, 1).unwrap_err(), regions.find(&tenant, "r").unwrap_err()] {
        assert_eq!(error.reason(), Reason::NotImplemented);
        assert!(error.public_text().contains("shared_memory.enabled"));
    }
    assert_eq!(regions.status(&tenant, None).unwrap(), []);
    assert_eq!(regions.status(&tenant, Some("r")).unwrap(), []);
    regions.unregister(&tenant, None);
}

#[test]
fn root_does_not_open_what_others_keep_to_themselves() {
    use std::os::unix::fs::PermissionsExt;
    let world = world("", 4);
    world.object("in", b"abc");
    let path = world.directory.path().join("in");
    // Only root can give a file away; for everybody else the kernel refuses by itself.
    let theirs = rustix::fs::Uid::from_raw(54_321);
    if rustix::fs::chownat(rustix::fs::CWD, &path, Some(theirs), None, rustix::fs::AtFlags::empty()).is_err() {
        return;
    }
    for (mode, outcome) in [(0o600, Err(Reason::InvalidSharedMemory)), (0o644, Err(Reason::InvalidSharedMemory)), (0o666, Ok(()))] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(world.register("r", "/in", 0, 3), outcome, "{mode:o}");
    }
}
