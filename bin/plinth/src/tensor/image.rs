//! Elements from a PNG or JPEG image, scaled to the shape of one input of a model.
//!
//! Where height, width and channels stand is read off the input's shape (a leading batch dimension may be there):
//! `[C,H,W]` and `[H,W,C]` with 1 or 3 channels, `[H,W]`, and `[N]` with N a square number, which is a square image row by
//! row. The image is stretched to that size (not cropped) with a triangle filter; an open height or width is the
//! image's own. One channel means grey. A pixel value v of 0..=255 becomes `v / 255 · white`, where white is 1 for
//! floats and 255 for integers unless the user says otherwise; integers are rounded. Inverting comes before scaling.
//! Means and deviations are not applied: prepare a `.npy` file for models that want them.

use std::io::Cursor;

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};
use plinth_types::{DataType, Dim, TensorSpec};

use super::{Elements, Scalar, Values};

/// The largest side of an image in pixels.
const MAX_SIDE: u32 = 16_384;
/// The most memory that decoding may take.
const MAX_MEMORY: u64 = 1 << 30;

/// How pixels become numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pixels {
    /// What white becomes.
    pub white: Option<f64>,
    /// Whether black and white change places.
    pub invert: bool,
}

/// How an input lays an image out, without the batch dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    ChannelsFirst(u64, Dim, Dim),
    ChannelsLast(Dim, Dim, u64),
    Grey(Dim, Dim),
    Flat(u64),
}

/// Reads an image file for an input.
///
/// # Errors
/// A sentence about what is wrong with the image, or why the input takes none.
pub fn parse(file: &[u8], spec: &TensorSpec, pixels: Pixels) -> Result<Elements, String> {
    let (layout, batched) = layout(spec.shape()).ok_or_else(|| {
        format!("is an image, but an input of the shape {} does not look like one; give a .npy file", super::list(spec.shape()))
    })?;
    if matches!(spec.datatype(), DataType::Bool | DataType::Bytes) {
        return Err(format!("is an image, but the input wants {}", spec.datatype()));
    }
    let decoded = decode(file)?;
    let (height, width) = size(layout, &decoded)?;
    let scaled = if (decoded.width(), decoded.height()) == (width, height) {
        decoded
    } else {
        decoded.resize_exact(width, height, FilterType::Triangle)
    };
    let convert = Convert::new(spec.datatype(), pixels);
    let (shape, values) = lay_out(layout, &scaled, &convert);
    let shape = if batched { std::iter::once(1).chain(shape).collect() } else { shape };
    Ok(Elements { shape, flat: false, values: Values::Scalars(values) })
}

/// The layout and whether a batch dimension stands before it.
fn layout(shape: &[Dim]) -> Option<(Layout, bool)> {
    let one_or_three = |dim: &Dim| match dim {
        Dim::Fixed(n @ (1 | 3)) => Some(*n),
        _ => None,
    };
    let single = |dim: &Dim| matches!(dim, Dim::Any | Dim::Fixed(1));
    let inner = |dims: &[Dim]| match dims {
        [c, h, w] if one_or_three(c).is_some() && one_or_three(w).is_none() => one_or_three(c).map(|c| Layout::ChannelsFirst(c, *h, *w)),
        [h, w, c] if one_or_three(c).is_some() => one_or_three(c).map(|c| Layout::ChannelsLast(*h, *w, c)),
        [Dim::Fixed(n)] if n.isqrt().pow(2) == *n && *n > 0 => Some(Layout::Flat(n.isqrt())),
        _ => None,
    };
    if let Some(layout) = inner(shape) {
        return Some((layout, false));
    }
    match shape {
        [n, rest @ ..] if single(n) => match (inner(rest), rest) {
            (Some(layout), _) => Some((layout, true)),
            (None, [h, w]) => Some((Layout::Grey(*h, *w), true)),
            _ => None,
        },
        [h, w] => Some((Layout::Grey(*h, *w), false)),
        _ => None,
    }
}

fn decode(file: &[u8]) -> Result<DynamicImage, String> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|e| format!("cannot be read: {e}"))?;
    reader.limits(limits);
    reader.decode().map_err(|e| format!("is not an image that can be read: {e}"))
}

fn size(layout: Layout, image: &DynamicImage) -> Result<(u32, u32), String> {
    let (h, w) = match layout {
        Layout::ChannelsFirst(_, h, w) | Layout::ChannelsLast(h, w, _) | Layout::Grey(h, w) => (h, w),
        Layout::Flat(side) => (Dim::Fixed(side), Dim::Fixed(side)),
    };
    let side = |dim: Dim, own: u32| match dim {
        Dim::Any => Ok(own),
        Dim::Fixed(n) => {
            u32::try_from(n).ok().filter(|n| (1..=MAX_SIDE).contains(n)).ok_or_else(|| format!("cannot be scaled to a side of {n}"))
        }
    };
    Ok((side(h, image.height())?, side(w, image.width())?))
}

fn lay_out(layout: Layout, image: &DynamicImage, convert: &Convert) -> (Vec<u64>, Vec<Scalar>) {
    let (h, w) = (u64::from(image.height()), u64::from(image.width()));
    let grey = || image.to_luma8().into_raw().into_iter().map(|v| convert.pixel(v)).collect();
    let colours = || image.to_rgb8().into_raw();
    match layout {
        Layout::Flat(side) => (vec![side * side], grey()),
        Layout::Grey(..) => (vec![h, w], grey()),
        Layout::ChannelsFirst(1, ..) => (vec![1, h, w], grey()),
        Layout::ChannelsLast(.., 1) => (vec![h, w, 1], grey()),
        Layout::ChannelsLast(.., c) => (vec![h, w, c], colours().into_iter().map(|v| convert.pixel(v)).collect()),
        Layout::ChannelsFirst(c, ..) => {
            let raw = colours();
            let planes = (0..3).flat_map(|c| raw.iter().skip(c).step_by(3));
            (vec![c, h, w], planes.map(|v| convert.pixel(*v)).collect())
        }
    }
}

struct Convert {
    white: f64,
    invert: bool,
    whole: bool,
}

impl Convert {
    fn new(datatype: DataType, pixels: Pixels) -> Self {
        let whole = !matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64);
        Self { white: pixels.white.unwrap_or(if whole { 255.0 } else { 1.0 }), invert: pixels.invert, whole }
    }

    fn pixel(&self, value: u8) -> Scalar {
        let value = f64::from(if self.invert { 255 - value } else { value });
        let scaled = value / 255.0 * self.white;
        if self.whole { Scalar::Integer(scaled.round() as i128) } else { Scalar::Float(scaled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, ImageFormat, RgbImage};

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
        let dims = shape.iter().map(|d| u64::try_from(*d).map_or(Dim::Any, Dim::Fixed)).collect();
        TensorSpec::new("image", datatype, dims).unwrap()
    }

    fn tensor(file: &[u8], datatype: DataType, shape: &[i64], pixels: Pixels) -> plinth_types::Tensor {
        let spec = spec(datatype, shape);
        parse(file, &spec, pixels).unwrap().fit(&spec).unwrap()
    }

    #[test]
    fn the_shape_says_where_the_channels_are() {
        let rgb = png(RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap());
        for (shape, sent, data) in [
            (&[3, 1, 2][..], &[3, 1, 2][..], [1, 4, 2, 5, 3, 6]),
            (&[-1, 3, -1, -1], &[1, 3, 1, 2], [1, 4, 2, 5, 3, 6]),
            (&[1, 2, 3], &[1, 2, 3], [1, 2, 3, 4, 5, 6]),
            (&[-1, -1, -1, 3], &[1, 1, 2, 3], [1, 2, 3, 4, 5, 6]),
        ] {
            let tensor = tensor(&rgb, DataType::Uint8, shape, Pixels::default());
            assert_eq!((tensor.shape().dims(), &tensor.data()[..]), (sent, &data[..]), "{shape:?}");
        }
    }

    #[test]
    fn grey_inputs_flat_and_not() {
        let grey = png(GrayImage::from_raw(2, 2, vec![0, 51, 102, 255]).unwrap());
        for (shape, sent) in
            [(&[-1, 4][..], &[1, 4][..]), (&[4], &[4]), (&[2, 2], &[2, 2]), (&[-1, 2, 2], &[1, 2, 2]), (&[1, 1, 2, 2], &[1, 1, 2, 2])]
        {
            let tensor = tensor(&grey, DataType::Uint8, shape, Pixels::default());
            assert_eq!((tensor.shape().dims(), &tensor.data()[..]), (sent, &[0, 51, 102, 255][..]), "{shape:?}");
        }
    }

    #[test]
    fn white_and_black_are_what_the_user_says() {
        let grey = png(GrayImage::from_raw(2, 2, vec![0, 51, 102, 255]).unwrap());
        let floats = |pixels| -> Vec<f32> {
            tensor(&grey, DataType::Fp32, &[4], pixels).data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
        };
        assert_eq!(floats(Pixels::default()), [0.0, 0.2, 0.4, 1.0]);
        assert_eq!(floats(Pixels { white: Some(16.0), invert: true }), [16.0, 12.8, 9.6, 0.0]);
        let sixteenths = tensor(&grey, DataType::Int32, &[4], Pixels { white: Some(16.0), invert: false });
        assert_eq!(&sixteenths.data()[4..8], 3i32.to_le_bytes());
    }

    #[test]
    fn images_are_stretched_and_keep_their_brightness() {
        let large = png(GrayImage::from_pixel(100, 60, image::Luma([128])));
        let tensor = tensor(&large, DataType::Uint8, &[-1, 64], Pixels::default());
        assert!(tensor.data().iter().all(|v| *v == 128) && tensor.data().len() == 64);
    }

    #[test]
    fn what_is_no_image_or_takes_none_is_refused() {
        let grey = png(GrayImage::from_pixel(2, 2, image::Luma([1])));
        for shape in [&[5][..], &[-1, -1, 7, 9], &[], &[2, 2, 2, 2, 2]] {
            assert!(parse(&grey, &spec(DataType::Fp32, shape), Pixels::default()).is_err(), "{shape:?}");
        }
        assert!(parse(&grey, &spec(DataType::Bytes, &[2, 2]), Pixels::default()).is_err());
        assert!(parse(b"GIF89a", &spec(DataType::Fp32, &[2, 2]), Pixels::default()).is_err());
        assert!(parse(&grey[..grey.len() / 2], &spec(DataType::Fp32, &[2, 2]), Pixels::default()).is_err());
        assert!(parse(&grey, &spec(DataType::Fp32, &[100_000, 100_000]), Pixels::default()).is_err());
        // White that an INT8 cannot hold is refused when the tensor is made.
        let spec = spec(DataType::Int8, &[2, 2]);
        let white = png(GrayImage::from_pixel(2, 2, image::Luma([255])));
        assert!(parse(&white, &spec, Pixels::default()).unwrap().fit(&spec).is_err());
    }
}
