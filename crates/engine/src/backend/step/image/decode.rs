//! From the bytes of a file to RGB pixels, within limits that hold before anything is decoded.

use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::super::BackendError;
use super::frame::Size;

/// What decoding one picture may take.
pub(super) struct Limits {
    pub pixels: u64,
    pub bytes: u64,
}

/// RGB pixels, eight bits each, row by row.
pub(super) struct Picture<'a> {
    size: Size,
    pixels: Cow<'a, [u8]>,
}

impl<'a> Picture<'a> {
    /// `pixels` are three bytes for each of `size`.
    pub(super) const fn raw(size: Size, pixels: &'a [u8]) -> Self {
        Self { size, pixels: Cow::Borrowed(pixels) }
    }

    pub(super) const fn owned(size: Size, pixels: Vec<u8>) -> Self {
        Self { size, pixels: Cow::Owned(pixels) }
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }

    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

fn refuse(text: impl Into<String>) -> BackendError {
    BackendError::Input(text.into())
}

/// Decodes JPEG, PNG or WebP, turned the right way up.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture<'static>, BackendError> {
    if bytes.len() as u64 > limits.bytes {
        return Err(refuse(format!("the picture's file has more than {} bytes", limits.bytes)));
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        _ => return Err(refuse("this is no picture that can be read; send JPEG, PNG or WebP")),
    };
    // A decoder's fault on hostile bytes must not count as a crash of the step.
    match catch_unwind(AssertUnwindSafe(|| decode_as(bytes, format, limits))) {
        Ok(result) => result,
        Err(_) => Err(refuse("the picture is damaged")),
    }
}

fn decode_as(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Picture<'static>, BackendError> {
    // The decoder's own words may hold what stands in the file.
    let damaged = |_| refuse("the picture is damaged");
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = image::Limits::default();
    // Up to eight bytes for each pixel of sixteen bits and four channels, and the decoder's own tables.
    allowed.max_alloc = Some(limits.pixels.saturating_mul(8).saturating_add(16 << 20));
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(refuse(format!("a picture of {width}x{height} has more than {} pixels", limits.pixels)));
    }
    if width == 0 || height == 0 {
        return Err(refuse("the picture has no pixels"));
    }
    // A picture without this, or with one that cannot be read, is shown as it lies.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    let size = Size { width: rgb.width(), height: rgb.height() };
    Ok(Picture::owned(size, rgb.into_raw()))
}
