//! The step `image`: from pictures as people send them to the tensor that a vision model takes.
//!
//! ```toml
//! kind = "image"
//! source = "encoded"       # JPEG, PNG or WebP; or "raw": UINT8 [-1, height, width, 3]
//! layout = "nchw"          # or "nhwc"
//! colour = "rgb"           # or "bgr"
//! datatype = "FP32"        # or "FP16", or "UINT8" without scale, mean and deviation
//! scale = 0.00392156862745098                 # 1/255, the default
//! mean = [0.485, 0.456, 0.406]                # 0 when left out
//! deviation = [0.229, 0.224, 0.225]           # 1 when left out
//! input = "image"
//! output = "pixels"
//! column = false           # true: the input is BYTES [-1, 1], as Triton's configurations write it
//! max_batch = 64           # pictures in one request
//! max_pixels = 40000000    # of one picture, before anything is decoded
//! max_bytes = 33554432     # of one encoded picture
//!
//! [resize]                 # left out: the picture keeps its size
//! mode = "shortest"        # its shorter side becomes `size`; "exact": width and height; "letterbox": fits into width and
//! size = 256               # height, centred, the rest filled
//! filter = "bilinear"      # or "bicubic", "lanczos", "nearest"
//! antialias = true         # as Pillow does; false as OpenCV does
//! fill = 114               # what a letterbox is filled with
//!
//! [crop]                   # from the centre, after resizing
//! width = 224
//! height = 224
//! ```
//!
//! A value `v` of a channel becomes `(v * scale - mean) / deviation`, in that order. A picture is turned as its EXIF data
//! says; grey becomes three equal channels; transparency is dropped. All pictures of a request have one size in the end.

mod decode;
mod frame;

use plinth_types::{DataType, Dim, Tensor, TensorSpec};
use serde::Deserialize;

use super::description::{self, element_shape, spec, within, wrong};
use super::values::{check_output, dims, input, tensor};
use super::{BackendError, Kind};
use decode::{Limits, Picture};
use frame::{Frame, Resize, Size};

/// The largest that a limit may be set to.
const MAX_PIXELS: u64 = 1 << 29;
const MAX_BYTES: u64 = 1 << 30;
const MAX_BATCH: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Origin {
    Encoded,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Layout {
    Nchw,
    Nhwc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Colour {
    Rgb,
    Bgr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Description {
    #[serde(rename = "kind")]
    _kind: description::Known,
    source: Origin,
    layout: Layout,
    colour: Colour,
    datatype: DataType,
    scale: Option<f32>,
    mean: Option<[f32; 3]>,
    deviation: Option<[f32; 3]>,
    input: String,
    output: String,
    column: bool,
    max_batch: u64,
    max_pixels: u64,
    max_bytes: u64,
    resize: Option<Resize>,
    crop: Option<Size>,
}

impl Default for Description {
    fn default() -> Self {
        Self {
            _kind: description::Known::default(),
            source: Origin::Encoded,
            layout: Layout::Nchw,
            colour: Colour::Rgb,
            datatype: DataType::Fp32,
            scale: None,
            mean: None,
            deviation: None,
            input: "image".to_owned(),
            output: "pixels".to_owned(),
            column: false,
            max_batch: 64,
            max_pixels: 40_000_000,
            max_bytes: 32 << 20,
            resize: None,
            crop: None,
        }
    }
}

pub(super) struct Image {
    description: Description,
    frame: Frame,
    /// By channel and value: the bytes of what it becomes.
    values: [Vec<[u8; 4]>; 3],
    /// How many of the four bytes are used.
    width: usize,
}

impl Image {
    pub(super) fn load(text: &[u8]) -> Result<Self, BackendError> {
        let description: Description = description::read(text)?;
        within("max_batch", &description.max_batch, &1, &MAX_BATCH)?;
        within("max_pixels", &description.max_pixels, &1, &MAX_PIXELS)?;
        within("max_bytes", &description.max_bytes, &1, &MAX_BYTES)?;
        if description.source == Origin::Raw && description.column {
            return Err(wrong("column is for encoded pictures; remove it"));
        }
        let frame = Frame::new(description.resize.clone(), description.crop)?;
        let values = values(&description)?;
        let width = description.datatype.element_size().unwrap_or(4);
        Ok(Self { description, frame, values, width })
    }

    fn shape<D>(&self, batch: D, channels: D, Size { width, height }: Size<D>) -> [D; 4] {
        match self.description.layout {
            Layout::Nchw => [batch, channels, height, width],
            Layout::Nhwc => [batch, height, width, channels],
        }
    }

    /// The pictures one after another.
    fn pictures<'a>(&'a self, given: &'a Tensor) -> Result<Box<dyn Iterator<Item = Result<Picture<'a>, BackendError>> + 'a>, BackendError> {
        if self.description.source == Origin::Encoded {
            let limits = Limits { pixels: self.description.max_pixels, bytes: self.description.max_bytes };
            return Ok(Box::new(given.byte_elements().map(move |bytes| decode::decode(bytes, &limits))));
        }
        let [_, height, width, _] = given.shape().dims()[..] else { return Err(BackendError::Input("a wrong shape".to_owned())) };
        if height.saturating_mul(width) > self.description.max_pixels {
            return Err(BackendError::Input(format!("a picture of {width}x{height} has more than {} pixels", self.description.max_pixels)));
        }
        let size = Size { width, height }.try_map(|side| u32::try_from(side).ok().filter(|side| *side > 0));
        let size = size.ok_or_else(|| BackendError::Input(format!("there are no pictures of {width}x{height}")))?;
        let each = size.width as usize * size.height as usize * 3;
        Ok(Box::new(given.data().chunks_exact(each).map(move |pixels| Ok(Picture::raw(size, pixels)))))
    }

    /// Appends a picture in its final size as the output has it.
    fn write(&self, picture: &Picture<'_>, data: &mut Vec<u8>) {
        let channels = match self.description.colour {
            Colour::Rgb => [0, 1, 2],
            Colour::Bgr => [2, 1, 0],
        };
        let (pixels, _) = picture.pixels().as_chunks::<3>();
        match self.description.layout {
            Layout::Nhwc => {
                for pixel in pixels {
                    for (values, channel) in self.values.iter().zip(channels) {
                        data.extend_from_slice(&values[usize::from(pixel[channel])][..self.width]);
                    }
                }
            }
            Layout::Nchw => {
                for (values, channel) in self.values.iter().zip(channels) {
                    pixels.iter().for_each(|pixel| data.extend_from_slice(&values[usize::from(pixel[channel])][..self.width]));
                }
            }
        }
    }
}

/// What each value becomes, in the order of the output's channels: 768 results instead of one calculation for each pixel.
fn values(description: &Description) -> Result<[Vec<[u8; 4]>; 3], BackendError> {
    let (scale, mean, deviation) = (description.scale, description.mean, description.deviation);
    let changed = scale.is_some() || mean.is_some() || deviation.is_some();
    let given = scale.into_iter().chain(mean.into_iter().flatten()).chain(deviation.into_iter().flatten());
    if given.into_iter().any(|number| !number.is_finite() || number.abs() > 1e6) {
        return Err(wrong("scale, mean and deviation are numbers up to a million"));
    }
    if deviation.into_iter().flatten().any(|number| number.abs() < 1e-6) {
        return Err(wrong("a deviation divides, so it cannot be 0"));
    }
    let (scale, mean, deviation) = (scale.unwrap_or(1.0 / 255.0), mean.unwrap_or([0.0; 3]), deviation.unwrap_or([1.0; 3]));
    let number = |channel: usize, value: u8| (f32::from(value) * scale - mean[channel]) / deviation[channel];
    let bytes = |channel: usize, value: u8| match description.datatype {
        DataType::Uint8 => [value, 0, 0, 0],
        DataType::Fp16 => {
            let [a, b] = half::f16::from_f32(number(channel, value)).to_le_bytes();
            [a, b, 0, 0]
        }
        _ => number(channel, value).to_le_bytes(),
    };
    match description.datatype {
        DataType::Fp32 | DataType::Fp16 => {}
        DataType::Uint8 if !changed => {}
        DataType::Uint8 => return Err(wrong("datatype UINT8 leaves values as they are; remove scale, mean and deviation")),
        other => return Err(wrong(format!("datatype is FP32, FP16 or UINT8, not {other}"))),
    }
    Ok([0, 1, 2].map(|channel| (0..=u8::MAX).map(|value| bytes(channel, value)).collect()))
}

impl Kind for Image {
    fn inputs(&self) -> Result<(Vec<TensorSpec>, Vec<String>), BackendError> {
        let name = &self.description.input;
        let spec = match self.description.source {
            Origin::Encoded => spec(name, DataType::Bytes, &element_shape(self.description.column))?,
            Origin::Raw => spec(name, DataType::Uint8, &[Dim::Any, Dim::Any, Dim::Any, Dim::Fixed(3)])?,
        };
        Ok((vec![spec], Vec::new()))
    }

    fn outputs(&self) -> Result<Vec<TensorSpec>, BackendError> {
        let size = match self.frame.result() {
            Some(size) => Size { width: Dim::Fixed(size.width.into()), height: Dim::Fixed(size.height.into()) },
            None => Size { width: Dim::Any, height: Dim::Any },
        };
        Ok(vec![spec(&self.description.output, self.description.datatype, &self.shape(Dim::Any, Dim::Fixed(3), size))?])
    }

    fn execute(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let given = input(inputs, &self.description.input)?;
        let batch = dims(given)?.first().copied().unwrap_or(0);
        if batch as u64 > self.description.max_batch {
            return Err(BackendError::Input(format!("{batch} pictures in one request; at most {} are taken", self.description.max_batch)));
        }
        let (mut data, mut size) = (Vec::new(), self.frame.result());
        for (i, picture) in self.pictures(given)?.enumerate() {
            let at = |error: BackendError| if batch > 1 { BackendError::Input(format!("picture {i}: {error}")) } else { error };
            let original = picture.map_err(at)?;
            let planned = self.frame.plan(original.size()).map_err(at)?;
            let of_all = *size.get_or_insert(planned.result);
            if of_all != planned.result {
                let text = format!("picture {i} becomes {}, but the one before {of_all}; crop them, or send them alone", planned.result);
                return Err(BackendError::Input(text));
            }
            if data.is_empty() {
                let shape = self.shape(batch as u64, 3, of_all.map(u64::from));
                check_output(self.description.datatype, &shape)?;
                data.reserve_exact(batch * 3 * of_all.pixels() * self.width);
            }
            self.write(&planned.apply(original)?, &mut data);
        }
        let size = size.unwrap_or(Size { width: 0, height: 0 });
        let shape = self.shape(batch as u64, 3, size.map(u64::from));
        // There is one output, and whatever is wished is that one.
        outputs.iter().map(|name| tensor(name, self.description.datatype, &shape, std::mem::take(&mut data))).collect()
    }
}

#[cfg(test)]
mod tests;
