//! Placements from parameters, and tensors there and back.

use plinth_serving::RegionOptions;
use plinth_types::ByteSize;
use plinth_types::tensor::push_byte_element;
use proptest::prelude::*;

use super::*;

struct World {
    directory: tempfile::TempDir,
    regions: Regions,
    memory: BodyMemory,
    tenant: TenantName,
}

/// A registered region `r` with these bytes.
fn world(bytes: &[u8]) -> World {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("object"), bytes).unwrap();
    let options = RegionOptions { enabled: true, directory: directory.path().to_owned(), ..RegionOptions::default() };
    let world =
        World { directory, regions: Regions::new(options), memory: BodyMemory::new(ByteSize::mib(1)), tenant: "a".parse().unwrap() };
    world.regions.register(&world.tenant, "r", "/object", 0, bytes.len() as u64).unwrap();
    world
}

impl World {
    async fn read(&self, datatype: DataType, dims: &[u64], offset: u64, byte_size: u64) -> Result<Tensor> {
        let place = Placement { region: "r".into(), byte_size, offset };
        let input = SharedInput { name: "x".into(), datatype, shape: Shape::new(dims.to_vec()).unwrap(), place };
        let mut inputs = Vec::new();
        read_inputs(&self.regions, &self.memory, &self.tenant, vec![(0, input)], &mut inputs).await?;
        Ok(inputs.remove(0))
    }

    async fn write(&self, byte_size: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = Placement { region: "r".into(), byte_size, offset };
        let targets = Targets::find(&self.regions, &self.tenant, [("x", None), ("y", Some(&place))])?;
        let shape = Shape::new(vec![bytes.len() as u64]).unwrap();
        targets.write(&[Tensor::new("y", DataType::Uint8, shape, Bytes::copy_from_slice(bytes)).unwrap()]).await
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("object")).unwrap()
    }
}

#[tokio::test]
async fn inputs_come_out_of_a_region_and_count_as_a_body() {
    let world = world(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let tensor = world.read(DataType::Uint8, &[2, 2], 3, 4).await.unwrap();
    assert_eq!((&tensor.data()[..], world.memory.used()), (&[4, 5, 6, 7][..], 4));
    drop(tensor);
    assert_eq!(world.memory.used(), 0);
    for (dims, offset, size, reason, text) in [
        (&[2][..], 0, 4, Reason::InvalidTensor, "input byte size mismatch for input 'x': expected 2 bytes, got 4 bytes"),
        (&[8][..], 1, 8, Reason::InvalidSharedMemory, "Invalid offset + byte size"),
        (&[8][..], 9, 8, Reason::InvalidSharedMemory, "Invalid offset for"),
    ] {
        let error = world.read(DataType::Uint8, dims, offset, size).await.unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (reason, Some("inputs[0]")));
        assert!(error.public_text().starts_with(text), "{error}");
    }
    world.regions.unregister(&world.tenant, None);
    assert_eq!(world.read(DataType::Uint8, &[1], 0, 1).await.unwrap_err().reason(), Reason::SharedMemoryNotFound);
}

#[tokio::test]
async fn memory_is_bounded_and_taken_only_for_what_was_registered() {
    let world = world(&vec![1; 3 << 20]);
    let refused = world.read(DataType::Uint8, &[2 << 20], 0, 2 << 20).await.unwrap_err();
    assert_eq!((refused.reason(), world.memory.used()), (Reason::OverCapacity, 0));
    // Also on a blocking thread.
    assert!(world.read(DataType::Uint8, &[512 << 10], 0, 512 << 10).await.is_ok());
}

#[tokio::test]
async fn texts_in_a_region_must_add_up() {
    let mut elements = Vec::new();
    push_byte_element(&mut elements, b"hello").unwrap();
    push_byte_element(&mut elements, b"").unwrap();
    let world = world(&elements);
    let tensor = world.read(DataType::Bytes, &[2], 0, elements.len() as u64).await.unwrap();
    assert_eq!(tensor.byte_elements().collect::<Vec<_>>(), [&b"hello"[..], b""]);
    for (dims, size) in [(1, 13), (2, 12), (3, 13)] {
        assert_eq!(world.read(DataType::Bytes, &[dims], 0, size).await.unwrap_err().reason(), Reason::InvalidTensor);
    }
}

#[tokio::test]
async fn outputs_go_where_they_were_asked_for_or_nowhere() {
    let world = world(&[0; 8]);
    world.write(4, 3, &[1, 2, 3]).await.unwrap();
    assert_eq!(world.bytes(), [0, 0, 0, 1, 2, 3, 0, 0]);
    let error = world.write(2, 0, &[9, 9, 9]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidSharedMemory);
    assert!(error.public_text().contains("(2 bytes) should be at least 3 bytes"), "{error}");
    assert_eq!(world.write(9, 0, &[9]).await.unwrap_err().field_name(), Some("outputs[1]"));
    assert_eq!(world.bytes()[..3], [0, 0, 0]);
}

#[tokio::test]
async fn a_region_may_go_while_a_request_uses_it() {
    let world = world(&[0; 4]);
    let place = Placement { region: "r".into(), byte_size: 4, offset: 0 };
    let targets = Targets::find(&world.regions, &world.tenant, [("y", Some(&place))]).unwrap();
    world.regions.unregister(&world.tenant, Some("r"));
    let answer = |n: u64| [Tensor::new("y", DataType::Uint8, Shape::new(vec![n]).unwrap(), vec![7; n as usize].into()).unwrap()];
    targets.write(&answer(4)).await.unwrap();
    assert_eq!(world.bytes(), [7; 4]);
    world.regions.register(&world.tenant, "r", "/object", 0, 4).unwrap();
    let targets = Targets::find(&world.regions, &world.tenant, [("y", Some(&place))]).unwrap();
    std::fs::OpenOptions::new().write(true).open(world.directory.path().join("object")).unwrap().set_len(2).unwrap();
    assert_eq!(targets.write(&answer(4)).await.unwrap_err().reason(), Reason::InvalidSharedMemory);
    assert_eq!(world.bytes().len(), 2);
}

fn parameters(pairs: &[(&str, Parameter)]) -> Parameters {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

#[test]
fn a_placement_is_whole_or_absent() {
    let (text, uint) = (|t: &str| Parameter::Text(t.into()), Parameter::Uint);
    let mut all = parameters(&[
        ("shared_memory_region", text("r")),
        ("shared_memory_byte_size", uint(4)),
        ("shared_memory_offset", Parameter::Int(2)),
        ("mine", uint(1)),
    ]);
    assert!(Placement::is_in(&all));
    let place = Placement::take(&mut all).unwrap().unwrap();
    assert_eq!(place, Placement { region: "r".into(), byte_size: 4, offset: 2 });
    assert_eq!(all, parameters(&[("mine", uint(1))]));
    assert_eq!(Placement::take(&mut all).unwrap(), None);
    let shown = place.parameters(3);
    assert_eq!(shown["shared_memory_byte_size"], uint(3));
    assert_eq!(Placement::take(&mut shown.clone()).unwrap(), Some(Placement { byte_size: 3, ..place }));
    for bad in [
        parameters(&[("shared_memory_region", text("r"))]),
        parameters(&[("shared_memory_byte_size", uint(4))]),
        parameters(&[("shared_memory_offset", uint(4))]),
        parameters(&[("shared_memory_region", uint(4)), ("shared_memory_byte_size", uint(4))]),
        parameters(&[("shared_memory_region", text("r")), ("shared_memory_byte_size", text("4"))]),
        parameters(&[("shared_memory_region", text("r")), ("shared_memory_byte_size", Parameter::Int(-1))]),
    ] {
        assert_eq!(Placement::take(&mut bad.clone()).unwrap_err().reason(), Reason::MalformedRequest, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_offset_and_size_reach_beyond_a_region(offset in prop_oneof![0u64..12, any::<u64>()], size in prop_oneof![0u64..12, any::<u64>()]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = world(&[5; 8]);
        let dims = [size.min(1 << 40)];
        let read = runtime.block_on(world.read(DataType::Uint8, &dims, offset, size));
        prop_assert_eq!(read.is_ok(), offset.checked_add(size).is_some_and(|end| end <= 8));
        if let Ok(tensor) = read {
            prop_assert_eq!(tensor.data().len() as u64, size);
        }
    }
}
