//! The geometry of the step: resize, letterbox, crop.
//!
//! Sizes are computed as torchvision computes them, pixels are resampled as Pillow does with the same filter (by the crate
//! `fast_image_resize`; they differ by one in the last place at most). What is cropped away is resampled too.

use std::fmt;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::Deserialize;

use super::super::BackendError;
use super::super::description::{within, wrong};
use super::decode::Picture;

/// The longest side of anything that is made.
const MAX_SIDE: u32 = 8192;
/// The most pixels of a picture between resizing and cropping.
const MAX_BETWEEN: u64 = 1 << 27;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Size<D = u32> {
    pub width: D,
    pub height: D,
}

impl<D> Size<D> {
    pub(super) fn map<E>(self, change: impl Fn(D) -> E) -> Size<E> {
        Size { width: change(self.width), height: change(self.height) }
    }

    pub(super) fn try_map<E>(self, change: impl Fn(D) -> Option<E>) -> Option<Size<E>> {
        Some(Size { width: change(self.width)?, height: change(self.height)? })
    }
}

impl Size {
    pub(super) const fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }

    fn holds(self, inner: Self) -> bool {
        self.width >= inner.width && self.height >= inner.height
    }

    fn check(self, key: &str) -> Result<(), BackendError> {
        within(&format!("{key}.width"), &self.width, &1, &MAX_SIDE)?;
        within(&format!("{key}.height"), &self.height, &1, &MAX_SIDE)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Shortest,
    Exact,
    Letterbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Filter {
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
    Nearest,
}

/// The table `[resize]` of the step's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    mode: Mode,
    size: Option<u32>,
    width: Option<u32>,
    height: Option<u32>,
    #[serde(default)]
    filter: Filter,
    #[serde(default = "yes")]
    antialias: bool,
    #[serde(default = "grey")]
    fill: u8,
}

fn yes() -> bool {
    true
}

fn grey() -> u8 {
    114
}

/// To which size.
#[derive(Debug, Clone, Copy)]
enum Target {
    Same,
    Shortest(u32),
    Exact(Size),
    Letterbox(Size, u8),
}

/// What is done with every picture.
pub(super) struct Frame {
    target: Target,
    algorithm: ResizeAlg,
    crop: Option<Size>,
}

/// What is done with one picture.
pub(super) struct Planned<'a> {
    frame: &'a Frame,
    /// After resizing, without a letterbox's filling.
    inner: Size,
    /// In the end.
    pub result: Size,
}

impl Frame {
    pub(super) fn new(resize: Option<Resize>, crop: Option<Size>) -> Result<Self, BackendError> {
        let algorithm = resize.as_ref().map_or(ResizeAlg::Nearest, algorithm);
        let target = resize.as_ref().map_or(Ok(Target::Same), target)?;
        if let Some(crop) = crop {
            crop.check("crop")?;
            let least = match target {
                Target::Same => crop,
                Target::Shortest(side) => Size { width: side, height: side },
                Target::Exact(size) | Target::Letterbox(size, _) => size,
            };
            if !least.holds(crop) {
                return Err(wrong(format!("crop: {crop} cannot be cut out of {least}")));
            }
        }
        Ok(Self { target, algorithm, crop })
    }

    /// The size of every result, if it does not depend on the picture.
    pub(super) const fn result(&self) -> Option<Size> {
        match (self.crop, self.target) {
            (Some(crop), _) => Some(crop),
            (None, Target::Exact(size) | Target::Letterbox(size, _)) => Some(size),
            (None, Target::Same | Target::Shortest(_)) => None,
        }
    }

    /// What would be done with a picture of this size.
    pub(super) fn plan(&self, size: Size) -> Result<Planned<'_>, BackendError> {
        let inner = match self.target {
            Target::Same => size,
            Target::Exact(target) => target,
            Target::Shortest(side) => shortest(size, side),
            Target::Letterbox(target, _) => fitting(size, target),
        };
        let outer = if let Target::Letterbox(target, _) = self.target { target } else { inner };
        if inner.pixels() as u64 > MAX_BETWEEN {
            return Err(BackendError::Input(format!("a picture of {size} is too narrow: resized it would be {inner}")));
        }
        let result = self.crop.unwrap_or(outer);
        if !outer.holds(result) {
            return Err(BackendError::Input(format!("a picture of {size} is too small; want at least {result}")));
        }
        Ok(Planned { frame: self, inner, result })
    }
}

fn target(resize: &Resize) -> Result<Target, BackendError> {
    let both = || match (resize.width, resize.height, resize.size) {
        (Some(width), Some(height), None) => {
            let size = Size { width, height };
            size.check("resize")?;
            Ok(size)
        }
        _ => Err(wrong("resize: give width and height, and no size, with this mode")),
    };
    match (resize.mode, resize.size) {
        (Mode::Exact, _) => both().map(Target::Exact),
        (Mode::Letterbox, _) => both().map(|size| Target::Letterbox(size, resize.fill)),
        (Mode::Shortest, Some(side)) if resize.width.is_none() && resize.height.is_none() => {
            within("resize.size", &side, &1, &MAX_SIDE)?;
            Ok(Target::Shortest(side))
        }
        (Mode::Shortest, _) => Err(wrong("resize: give size, and no width or height, with the mode shortest")),
    }
}

fn algorithm(resize: &Resize) -> ResizeAlg {
    let filter = match resize.filter {
        Filter::Bilinear => FilterType::Bilinear,
        // Pillow's bicubic, with a = -0.5.
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Lanczos => FilterType::Lanczos3,
        Filter::Nearest => return ResizeAlg::Nearest,
    };
    if resize.antialias { ResizeAlg::Convolution(filter) } else { ResizeAlg::Interpolation(filter) }
}

/// The shorter side becomes `side`, the longer one keeps the proportion, rounded down.
fn shortest(size: Size, side: u32) -> Size {
    let long = |long: u32, short: u32| u32::try_from(u64::from(side) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX);
    if size.width <= size.height {
        Size { width: side, height: long(size.height, size.width) }
    } else {
        Size { width: long(size.width, size.height), height: side }
    }
}

/// As large as fits into `target` with the same proportion, rounded.
fn fitting(size: Size, target: Size) -> Size {
    let (width, height) = (u64::from(size.width), u64::from(size.height));
    let (most_wide, most_high) = (u64::from(target.width), u64::from(target.height));
    let rounded = |a: u64, b: u64| u32::try_from((2 * a + b) / (2 * b)).unwrap_or(u32::MAX).max(1);
    if most_wide * height <= most_high * width {
        Size { width: target.width, height: rounded(height * most_wide, width).min(target.height) }
    } else {
        Size { width: rounded(width * most_high, height).min(target.width), height: target.height }
    }
}

impl Planned<'_> {
    /// Does it.
    pub(super) fn apply<'p>(&self, picture: Picture<'p>) -> Result<Picture<'p>, BackendError> {
        let mut picture = if picture.size() == self.inner { picture } else { self.resize(&picture)? };
        if let Target::Letterbox(target, fill) = self.frame.target {
            picture = surround(&picture, target, fill);
        }
        Ok(if picture.size() == self.result { picture } else { cut(&picture, self.result) })
    }

    fn resize(&self, picture: &Picture<'_>) -> Result<Picture<'static>, BackendError> {
        let failed = |error: &dyn fmt::Display| BackendError::Execution(format!("the picture cannot be resized: {error}"));
        let size = picture.size();
        let source = ImageRef::new(size.width, size.height, picture.pixels(), PixelType::U8x3).map_err(|e| failed(&e))?;
        let mut resized = Image::new(self.inner.width, self.inner.height, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(self.frame.algorithm);
        Resizer::new().resize(&source, &mut resized, &options).map_err(|e| failed(&e))?;
        Ok(Picture::owned(self.inner, resized.into_vec()))
    }
}

/// Puts a picture into the centre of a larger one; what cannot be halved goes to the right and below.
fn surround(picture: &Picture<'_>, outer: Size, fill: u8) -> Picture<'static> {
    let inner = picture.size();
    let mut pixels = vec![fill; outer.pixels() * 3];
    let (left, top) = ((outer.width - inner.width) / 2, (outer.height - inner.height) / 2);
    for (y, row) in picture.pixels().chunks_exact(inner.width as usize * 3).enumerate() {
        let at = ((y + top as usize) * outer.width as usize + left as usize) * 3;
        pixels[at..at + row.len()].copy_from_slice(row);
    }
    Picture::owned(outer, pixels)
}

/// Cuts the centre out. Where the rest cannot be halved, it begins at the even one of the two places, as in Python.
fn cut(picture: &Picture<'_>, size: Size) -> Picture<'static> {
    let half = |rest: u32| if rest % 4 == 3 { rest.div_ceil(2) } else { rest / 2 };
    let outer = picture.size();
    let (left, top) = (half(outer.width - size.width) as usize, half(outer.height - size.height) as usize);
    let rows = picture.pixels().chunks_exact(outer.width as usize * 3).skip(top).take(size.height as usize);
    let pixels = rows.flat_map(|row| &row[left * 3..(left + size.width as usize) * 3]).copied().collect();
    Picture::owned(size, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn sizes_are_those_of_torchvision() {
        // torchvision.transforms.functional._compute_resized_output_size
        for (given, side, want) in [
            (size(640, 480), 256, size(341, 256)),
            (size(480, 641), 256, size(256, 341)),
            (size(3, 2), 5, size(7, 5)),
            (size(9, 9), 4, size(4, 4)),
        ] {
            assert_eq!(shortest(given, side), want);
        }
        for (given, target, want) in [
            (size(1280, 720), size(640, 640), size(640, 360)),
            (size(720, 1280), size(640, 640), size(360, 640)),
            (size(10_000, 1), size(640, 640), size(640, 1)),
            (size(100, 100), size(640, 320), size(320, 320)),
        ] {
            assert_eq!(fitting(given, target), want);
        }
    }

    fn numbered(size: Size) -> Picture<'static> {
        Picture::owned(size, (0..size.pixels()).flat_map(|i| [i as u8; 3]).collect())
    }

    fn firsts(picture: &Picture<'_>) -> Vec<u8> {
        picture.pixels().chunks(3).map(|p| p[0]).collect()
    }

    #[test]
    fn the_centre_is_cut_out() {
        assert_eq!(firsts(&cut(&numbered(size(4, 3)), size(2, 1))), [5, 6]);
        // round(1 / 2) is 0 and round(3 / 2) is 2 in Python, which rounds to even.
        assert_eq!(firsts(&cut(&numbered(size(4, 1)), size(3, 1))), [0, 1, 2]);
        assert_eq!(firsts(&cut(&numbered(size(5, 1)), size(2, 1))), [2, 3]);
        assert_eq!(firsts(&surround(&numbered(size(1, 2)), size(4, 2), 9)), [9, 0, 9, 9, 9, 1, 9, 9]);
    }

    proptest! {
        #[test]
        fn any_picture_is_framed_or_refused(
            w in 1u32..60, h in 1u32..60, mode in 0..4, side in 1u32..40, tw in 1u32..40, th in 1u32..40, cw in 1u32..40, ch in 1u32..40,
        ) {
            let resize = |mode, size, width, height| {
                Some(Resize { mode, size, width, height, filter: Filter::Bilinear, antialias: true, fill: 1 })
            };
            let resize = match mode {
                0 => None,
                1 => resize(Mode::Shortest, Some(side), None, None),
                2 => resize(Mode::Exact, None, Some(tw), Some(th)),
                _ => resize(Mode::Letterbox, None, Some(tw), Some(th)),
            };
            for crop in [None, Some(size(cw, ch))] {
                let Ok(frame) = Frame::new(resize.clone(), crop) else { continue };
                let Ok(planned) = frame.plan(size(w, h)) else { continue };
                let made = planned.apply(numbered(size(w, h))).unwrap();
                prop_assert_eq!(made.size(), planned.result);
                prop_assert_eq!(made.pixels().len(), planned.result.pixels() * 3);
                prop_assert!(frame.result().is_none_or(|size| size == planned.result));
            }
        }
    }
}
