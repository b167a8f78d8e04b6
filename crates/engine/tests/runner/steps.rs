//! Built-in steps behind the walls of a real runner: no file, no thread pool and little memory is needed.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use plinth_engine::testing::{ModelDirectory, strings, tensor};
use plinth_engine::{BackendKind, RunnerError};
use plinth_types::tensor::push_byte_element;
use plinth_types::{ByteSize, DataType, Tensor};

use crate::support::{SOON, spec, start};

fn picture(size: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(size, size, Rgb([255, 0, 0])).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn encoded(files: &[Vec<u8>]) -> Tensor {
    let mut data = Vec::new();
    files.iter().for_each(|file| push_byte_element(&mut data, file).unwrap());
    tensor("image", DataType::Bytes, &[files.len() as u64], data)
}

#[tokio::test]
async fn pictures_are_decoded_behind_the_walls() {
    let text = b"kind = 'image'\nmax_pixels = 2000000\nlayout = 'nhwc'\n[resize]\nmode = 'exact'\nwidth = 4\nheight = 4";
    let model = ModelDirectory::new(BackendKind::Step, &[("step.toml", text)]);
    let mut spec = spec(&model);
    spec.memory = Some(ByteSize::mib(64));
    let runner = start(spec).await;
    assert_eq!(runner.metadata().platform, "step");
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let out = runner.infer(vec![encoded(&[picture(1000, format), picture(3, format)])], vec![], SOON).await.unwrap();
        assert_eq!(out[0].shape().dims(), [2, 4, 4, 3], "{format:?}");
        let red = f32::from_le_bytes(out[0].data()[..4].try_into().unwrap());
        assert!((red - 1.0).abs() < 0.02, "{format:?} {red}");
    }
    let mut damaged = picture(50, ImageFormat::Jpeg);
    damaged.truncate(300);
    for hostile in [damaged, picture(1500, ImageFormat::Png), b"\x89PNG\r\n\x1a\n".to_vec()] {
        let refused = runner.infer(vec![encoded(&[hostile])], vec![], SOON).await;
        assert!(matches!(refused, Err(RunnerError::Input(_))), "{refused:?}");
    }
    assert!(runner.infer(vec![encoded(&[picture(3, ImageFormat::Png)])], vec![], SOON).await.is_ok(), "nothing of it has ended the runner");
}

#[tokio::test]
async fn texts_are_tokenised_behind_the_walls() {
    let tokenizer = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"Lowercase"},
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":1,"pipeline":2,"of":3,"steps":4}}}"#;
    let files: &[(&str, &[u8])] = &[("step.toml", b"kind = 'tokenize'"), ("tokenizer.json", tokenizer.as_bytes())];
    let model = ModelDirectory::new(BackendKind::Step, files);
    let runner = start(spec(&model)).await;
    let many: Vec<String> = (0..200).map(|i| format!("A pipeline of {i} steps")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let out = runner.infer(vec![strings("text", &many)], vec!["input_ids".to_owned()], SOON).await.unwrap();
    assert_eq!(out[0].shape().dims(), [200, 5]);
    let first: Vec<i64> = out[0].data()[..40].chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(first, [1, 2, 3, 0, 4]);
}

#[tokio::test]
async fn a_step_that_makes_no_sense_says_so() {
    let model = ModelDirectory::new(BackendKind::Step, &[("step.toml", b"kind = 'image'\nsise = 3")]);
    let error = crate::support::try_start(spec(&model)).await.unwrap_err();
    let RunnerError::Load(text) = &error else { panic!("{error:?}") };
    assert!(text.starts_with("step.toml: line 2: unknown field `sise`"), "{text}");
}
