//! Pictures made here, with results that Pillow 12 and arithmetic by hand give.

use std::io::Cursor;

use ::image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use plinth_types::tensor::push_byte_element;
use plinth_types::{DataType, Tensor};
use proptest::prelude::*;

use super::super::tests::{load, refused, run};
use crate::backend::step::Step;
use crate::backend::{Backend, BackendError};
use crate::conformance;
use crate::testing::tensor;

fn step(text: &str) -> Step {
    load(&[("step.toml", format!("kind = 'image'\n{text}").as_bytes())])
}

/// 7 wide, 5 high, every pixel another.
fn picture() -> RgbImage {
    let value = |n: u32| u8::try_from(n % 256).unwrap();
    RgbImage::from_fn(7, 5, |x, y| Rgb([value(31 * x + 7 * y), value(13 * x * y), value(255 - (x * x * 5 + y))]))
}

fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn encoded(files: &[Vec<u8>]) -> Tensor {
    let mut data = Vec::new();
    files.iter().for_each(|file| push_byte_element(&mut data, file).unwrap());
    tensor("image", DataType::Bytes, &[files.len() as u64], data)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    super::super::values::floats(tensor).collect()
}

fn says(step: &Step, input: Tensor) -> String {
    match run(step, vec![input]) {
        Err(BackendError::Input(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Filter, width, height, and the first rows that Pillow's `resize` gives, RGB after RGB.
const PILLOW: &[(&str, u32, u32, &[u8])] = &[
    ("bilinear", 3, 2, &[34, 11, 248, 100, 39, 204, 166, 67, 119, 48, 33, 246, 114, 112, 202, 180, 137, 117]),
    (
        "bilinear",
        10,
        4,
        &[
            2, 0, 255, 19, 2, 252, 41, 4, 246, 62, 7, 236, 84, 9, 219, 106, 11, 198, 128, 13, 173, 149, 15, 141, 171, 18, 105, 188, 20, 75,
            10, 0, 254, 27, 10, 251, 49, 23, 245, 70, 36, 235, 92, 49, 218, 114, 62, 197, 136, 75, 172, 157, 88, 140, 179, 101, 104, 196,
            111, 74,
        ],
    ),
    ("bicubic", 3, 2, &[28, 8, 251, 99, 34, 207, 170, 65, 114, 44, 30, 249, 115, 121, 205, 186, 143, 112]),
    (
        "bicubic",
        10,
        4,
        &[
            0, 0, 255, 16, 1, 253, 40, 3, 247, 61, 4, 236, 83, 5, 220, 105, 6, 199, 127, 7, 173, 148, 9, 142, 172, 10, 101, 189, 11, 72, 8,
            0, 254, 25, 8, 252, 49, 22, 246, 70, 34, 235, 92, 47, 219, 114, 59, 198, 136, 72, 172, 157, 84, 141, 181, 98, 100, 198, 107,
            71,
        ],
    ),
    ("lanczos", 3, 2, &[26, 7, 252, 99, 31, 209, 172, 69, 111, 42, 27, 250, 115, 125, 207, 188, 147, 109]),
    (
        "lanczos",
        10,
        4,
        &[
            0, 0, 255, 14, 1, 253, 41, 2, 247, 62, 3, 236, 84, 4, 219, 104, 6, 199, 126, 7, 173, 147, 9, 145, 174, 10, 99, 189, 10, 72, 7,
            0, 254, 22, 8, 252, 49, 23, 246, 70, 34, 235, 92, 47, 218, 112, 59, 198, 134, 71, 172, 155, 80, 144, 182, 95, 98, 197, 103, 71,
        ],
    ),
];

#[test]
fn resizing_is_that_of_pillow() {
    for (filter, width, height, want) in PILLOW {
        let text = format!(
            "layout = 'nhwc'\ndatatype = 'UINT8'\n[resize]\nmode = 'exact'\nwidth = {width}\nheight = {height}\nfilter = '{filter}'"
        );
        let out = run(&step(&text), vec![encoded(&[file(picture(), ImageFormat::Png)])]).unwrap();
        assert_eq!(out[0].shape().dims(), [1, u64::from(*height), u64::from(*width), 3]);
        for (i, (got, want)) in out[0].data().iter().zip(*want).enumerate() {
            assert!(got.abs_diff(*want) <= 1, "{filter} {width}x{height}: byte {i} is {got}, not {want}");
        }
    }
}

#[test]
fn values_are_scaled_and_normalised_channel_by_channel() {
    let text = "mean = [0.5, 0.25, 0.0]\ndeviation = [0.5, 0.25, 2.0]";
    let pixels = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([255, 0, 51]) } else { Rgb([0, 255, 102]) });
    let out = run(&step(text), vec![encoded(&[file(pixels.clone(), ImageFormat::Png)])]).unwrap();
    let want = [1.0, -1.0, -1.0, 3.0, 0.1, 0.2];
    assert_eq!(out[0].shape().dims(), [1, 3, 1, 2], "channel, row, column");
    assert!(floats(&out[0]).iter().zip(want).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{:?}", floats(&out[0]));
    let out = run(&step("layout = 'nhwc'\ncolour = 'bgr'\nscale = 1.0"), vec![encoded(&[file(pixels.clone(), ImageFormat::Png)])]).unwrap();
    assert_eq!((floats(&out[0]), out[0].shape().dims()), (vec![51.0, 0.0, 255.0, 102.0, 255.0, 0.0], &[1, 1, 2, 3][..]));
    let out = run(&step("datatype = 'FP16'\nscale = 1.0"), vec![encoded(&[file(pixels, ImageFormat::Png)])]).unwrap();
    assert_eq!(out[0].data()[..4], [half::f16::from_f32(255.0).to_le_bytes(), half::f16::from_f32(0.0).to_le_bytes()].concat());
}

#[test]
fn every_format_becomes_rgb() {
    let raw = step("layout = 'nhwc'\ndatatype = 'UINT8'");
    let grey = ::image::GrayImage::from_fn(2, 2, |x, y| ::image::Luma([u8::try_from(x * 100 + y).unwrap()]));
    let deep = ::image::ImageBuffer::<Rgb<u16>, _>::from_fn(1, 1, |_, _| Rgb([0xffffu16, 0, 0x8080]));
    let clear = ::image::RgbaImage::from_fn(1, 1, |_, _| ::image::Rgba([9, 8, 7, 0]));
    for (file, want) in [
        (file(grey.clone(), ImageFormat::Png), vec![0, 0, 0, 100, 100, 100, 1, 1, 1, 101, 101, 101]),
        (file(DynamicImage::from(deep), ImageFormat::Png), vec![255, 0, 128]),
        (file(clear, ImageFormat::Png), vec![9, 8, 7]),
        (file(picture(), ImageFormat::WebP), picture().into_raw()),
    ] {
        let out = run(&raw, vec![encoded(&[file])]).unwrap();
        assert_eq!(out[0].data().to_vec(), want);
    }
    let flat = RgbImage::from_pixel(16, 16, Rgb([200, 100, 50]));
    let out = run(&raw, vec![encoded(&[file(flat, ImageFormat::Jpeg)])]).unwrap();
    assert!(out[0].data().chunks(3).all(|p| p[0].abs_diff(200) < 4 && p[1].abs_diff(100) < 4 && p[2].abs_diff(50) < 4));
}

/// A JPEG file with an EXIF orientation.
fn turned(orientation: u8) -> Vec<u8> {
    // The left half is white, the right one black.
    let pixels = RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([255; 3]) } else { Rgb([0; 3]) });
    let plain = file(pixels, ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat()
}

#[test]
fn pictures_are_turned_as_their_exif_data_says() {
    let raw = step("layout = 'nhwc'\ndatatype = 'UINT8'");
    let look = |orientation| {
        let out = run(&raw, vec![encoded(&[turned(orientation)])]).unwrap();
        let [_, height, width, _] = out[0].shape().dims()[..] else { panic!() };
        let (w, h) = (usize::try_from(width).unwrap(), usize::try_from(height).unwrap());
        let light = |x: usize, y: usize| out[0].data()[(y * w + x) * 3] > 128;
        (w, h, [light(2, 2), light(w - 3, 2), light(2, h - 3), light(w - 3, h - 3)])
    };
    // Top left, top right, bottom left, bottom right.
    assert_eq!(look(1), (32, 16, [true, false, true, false]));
    assert_eq!(look(3), (32, 16, [false, true, false, true]), "turned round");
    assert_eq!(look(6), (16, 32, [true, true, false, false]), "a quarter to the right");
    assert_eq!(look(8), (16, 32, [false, false, true, true]), "a quarter to the left");
    assert_eq!(look(77), (32, 16, [true, false, true, false]), "nonsense is left alone");
}

#[test]
fn pictures_of_all_sizes_become_one() {
    let crop = step("[resize]\nmode = 'shortest'\nsize = 4\n[crop]\nwidth = 4\nheight = 3");
    let small = RgbImage::from_pixel(2, 9, Rgb([255; 3]));
    let files = [file(picture(), ImageFormat::Png), file(small, ImageFormat::Png)];
    let out = run(&crop, vec![encoded(&files)]).unwrap();
    assert_eq!(out[0].shape().dims(), [2, 3, 3, 4]);
    assert!(floats(&out[0])[36..].iter().all(|v| (*v - 1.0).abs() < 1e-6));
    let alone = run(&crop, vec![encoded(&files[..1])]).unwrap();
    assert_eq!(floats(&alone[0]), floats(&out[0])[..36], "a batch changes nothing");
    let boxed = step("scale = 1.0\n[resize]\nmode = 'letterbox'\nwidth = 4\nheight = 4\nfill = 7");
    let wide = RgbImage::from_pixel(8, 4, Rgb([255; 3]));
    let out = run(&boxed, vec![encoded(&[file(wide, ImageFormat::Png)])]).unwrap();
    assert_eq!(floats(&out[0])[..16], [[7.0; 4], [255.0; 4], [255.0; 4], [7.0; 4]].concat());
    let same = step("[crop]\nwidth = 3\nheight = 3");
    assert_eq!(run(&same, vec![encoded(&files[..1])]).unwrap()[0].shape().dims(), [1, 3, 3, 3]);
    assert!(says(&same, encoded(&files)).contains("picture 1: a picture of 2x9 is too small; want at least 3x3"));
    let as_is = step("");
    assert!(says(&as_is, encoded(&files)).contains("picture 1 becomes 2x9, but the one before 7x5"));
}

#[test]
fn raw_pixels_are_taken_too() {
    let raw = step("source = 'raw'\nscale = 1.0\n[resize]\nmode = 'exact'\nwidth = 1\nheight = 1");
    let pixels: Vec<u8> = vec![10, 20, 30, 20, 30, 40, 100, 100, 100, 100, 100, 100];
    let out = run(&raw, vec![tensor("image", DataType::Uint8, &[2, 1, 2, 3], pixels)]).unwrap();
    assert_eq!(floats(&out[0]), [15.0, 25.0, 35.0, 100.0, 100.0, 100.0]);
    assert!(says(&raw, tensor("image", DataType::Uint8, &[1, 0, 2, 3], vec![])).contains("no pictures of 2x0"));
    let empty = run(&raw, vec![tensor("image", DataType::Uint8, &[0, 5, 2, 3], vec![])]).unwrap();
    assert_eq!(empty[0].shape().dims(), [0, 3, 1, 1]);
}

#[test]
fn hostile_files_are_refused_before_they_cost() {
    let careful = step("max_pixels = 1000\nmax_bytes = 4000\nmax_batch = 2");
    // A PNG header that promises 60000 x 60000 pixels, with its checksum.
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bomb.extend_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 8, 2, 0, 0, 0]);
    let mut crc = flate2_crc(&bomb[12..]);
    bomb.append(&mut crc);
    bomb.extend_from_slice(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let whole = file(picture(), ImageFormat::Png);
    for (input, why) in [
        (vec![bomb], "60000x60000 has more than 1000 pixels"),
        (vec![vec![0; 4001]], "more than 4000 bytes"),
        (vec![b"GIF89a".to_vec()], "send JPEG, PNG or WebP"),
        (vec![vec![]], "send JPEG, PNG or WebP"),
        (vec![whole[..whole.len() / 2].to_vec()], "damaged"),
        (vec![whole[..20].to_vec()], "damaged"),
        (vec![whole.clone(), b"x".to_vec()], "picture 1: this is no picture"),
        (vec![whole.clone(), whole.clone(), whole], "3 pictures in one request; at most 2"),
    ] {
        let text = says(&careful, encoded(&input));
        assert!(text.contains(why), "{text}");
    }
    let narrow = step("[resize]\nmode = 'shortest'\nsize = 8192\n[crop]\nwidth = 1\nheight = 1");
    assert!(says(&narrow, encoded(&[file(RgbImage::new(1, 1000), ImageFormat::Png)])).contains("too narrow"));
    let many = step("[resize]\nmode = 'exact'\nwidth = 8192\nheight = 8192");
    assert!(says(&many, encoded(&[file(picture(), ImageFormat::Png)])).contains("more than 256 MiB"));
}

/// The checksum of PNG chunks.
fn flate2_crc(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 });
    }
    (!crc).to_be_bytes().to_vec()
}

#[test]
fn files_that_make_no_sense_do_not_load() {
    for (text, why) in [
        ("max_pixels = 0", "max_pixels is 0"),
        ("max_batch = 100000", "max_batch is 100000"),
        ("layuot = 'nchw'", "line 2: unknown field"),
        ("datatype = 'INT8'", "not INT8"),
        ("datatype = 'UINT8'\nscale = 1.0", "UINT8 leaves values"),
        ("deviation = [1.0, 0.0, 1.0]", "cannot be 0"),
        ("mean = [nan, 0.0, 0.0]", "numbers up to a million"),
        ("mean = [1.0]", "line 2"),
        ("source = 'raw'\ncolumn = true", "column is for encoded"),
        ("[resize]\nmode = 'shortest'", "give size"),
        ("[resize]\nmode = 'shortest'\nsize = 4\nwidth = 3", "give size, and no width"),
        ("[resize]\nmode = 'exact'\nsize = 4", "give width and height"),
        ("[resize]\nmode = 'exact'\nwidth = 4\nheight = 10000", "resize.height is 10000"),
        ("[resize]\nmode = 'shortest'\nsize = 4\n[crop]\nwidth = 5\nheight = 2", "5x2 cannot be cut out of 4x4"),
        ("[resize]\nmode = 'exact'\nwidth = 4\nheight = 4\nfiltre = 'bilinear'", "unknown field"),
        ("[crop]\nwidth = 0\nheight = 2", "crop.width is 0"),
    ] {
        let got = refused(&[("step.toml", format!("kind = 'image'\n{text}").as_bytes())]);
        assert!(got.contains(why), "{text}: {got}");
    }
}

#[test]
fn it_is_a_backend() {
    let text = "kind = 'image'\ncolumn = true\n[resize]\nmode = 'exact'\nwidth = 4\nheight = 4";
    let mut data = Vec::new();
    push_byte_element(&mut data, &file(picture(), ImageFormat::Png)).unwrap();
    let bad = tensor("image", DataType::Bytes, &[1, 1], vec![1, 0, 0, 0, b'x']);
    conformance::backend(&conformance::Case {
        load: Box::new(move || Ok(Box::new(load(&[("step.toml", text.as_bytes())])) as Box<dyn Backend>)),
        good: vec![tensor("image", DataType::Bytes, &[1, 1], data)],
        failing: Some(vec![bad]),
    });
}

proptest! {
    #[test]
    fn damaged_files_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), kind in 0usize..4) {
        let format = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP][kind.min(2)];
        let mut bytes = if kind == 3 { turned(6) } else { file(picture(), format) };
        let place = at.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let step = step("max_pixels = 100000\n[resize]\nmode = 'exact'\nwidth = 2\nheight = 2");
        match run(&step, vec![encoded(&[bytes])]) {
            Ok(out) => prop_assert_eq!(out[0].shape().dims(), [1, 3, 2, 2]),
            Err(error) => prop_assert!(matches!(error, BackendError::Input(_)), "{:?}", error),
        }
    }
}
