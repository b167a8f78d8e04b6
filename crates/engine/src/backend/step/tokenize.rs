//! The step `tokenize`: texts to the ids that a language model takes, by a Hugging Face `tokenizer.json`.
//!
//! ```toml
//! kind = "tokenize"
//! tokenizer = "tokenizer.json"   # a file of the version
//! max_length = 512               # tokens of one item; longer ones are cut
//! truncation = "longest_first"   # or "only_first", "only_second" of a pair
//! truncation_side = "right"      # or "left": which end is cut
//! padding = "longest"            # of the request's items; or "fixed", to max_length
//! padding_side = "right"         # or "left"; the tokenizer's own when left out
//! pad_to_multiple_of = 1         # of the padded length
//! pad_token = "[PAD]"            # the tokenizer's own when left out
//! special_tokens = true          # adds the tokenizer's own, such as [CLS] and [SEP]
//! input = "text"
//! pair = "text_pair"             # a second input, for questions with contexts; left out: none
//! column = false                 # true: the inputs are BYTES [-1, 1], as Triton's configurations write it
//! max_batch = 256                # items in one request
//! max_bytes = 262144             # of one text
//! ```
//!
//! Gives `input_ids`, `attention_mask` and `token_type_ids`, each INT64 `[-1, tokens]`. Padding and truncation settings inside
//! `tokenizer.json` do not count, except for which token pads and on which side.

use plinth_types::{DataType, Dim, Tensor, TensorSpec};
use serde::Deserialize;
use tokenizers::{Encoding, PaddingDirection, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use super::description::{self, element_shape, spec, within, wrong};
use super::values::{check_output, from_integers, input};
use super::{BackendError, Kind, LoadRequest};

const MAX_LENGTH: usize = 1 << 20;
const MAX_BATCH: u64 = 1 << 16;
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cut {
    LongestFirst,
    OnlyFirst,
    OnlySecond,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Left,
    Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Padding {
    Longest,
    Fixed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Description {
    #[serde(rename = "kind")]
    _kind: description::Known,
    tokenizer: String,
    max_length: usize,
    truncation: Cut,
    truncation_side: Side,
    padding: Padding,
    padding_side: Option<Side>,
    pad_to_multiple_of: usize,
    pad_token: Option<String>,
    special_tokens: bool,
    input: String,
    pair: Option<String>,
    column: bool,
    max_batch: u64,
    max_bytes: u64,
}

impl Default for Description {
    fn default() -> Self {
        Self {
            _kind: description::Known::default(),
            tokenizer: "tokenizer.json".to_owned(),
            max_length: 512,
            truncation: Cut::LongestFirst,
            truncation_side: Side::Right,
            padding: Padding::Longest,
            padding_side: None,
            pad_to_multiple_of: 1,
            pad_token: None,
            special_tokens: true,
            input: "text".to_owned(),
            pair: None,
            column: false,
            max_batch: 256,
            max_bytes: 256 << 10,
        }
    }
}

/// What fills an item up.
#[derive(Debug, Clone, Copy)]
struct Pad {
    id: u32,
    type_id: u32,
    side: Side,
}

pub(super) struct Tokenize {
    description: Description,
    tokenizer: Tokenizer,
    pad: Pad,
}

impl Tokenize {
    pub(super) fn load(text: &[u8], request: &LoadRequest) -> Result<Self, BackendError> {
        // One request is one thread's work; a pool of threads would be more than the runner is allowed.
        tokenizers::utils::parallelism::set_parallelism(false);
        let description: Description = description::read(text)?;
        within("max_length", &description.max_length, &1, &MAX_LENGTH)?;
        within("pad_to_multiple_of", &description.pad_to_multiple_of, &1, &MAX_LENGTH)?;
        within("max_batch", &description.max_batch, &1, &MAX_BATCH)?;
        within("max_bytes", &description.max_bytes, &1, &MAX_BYTES)?;
        let bytes = request.file(&description.tokenizer)?;
        let mut tokenizer = parse(bytes).map_err(|why| wrong(format!("{}: {why}", description.tokenizer)))?;
        let pad = pad(&tokenizer, &description)?;
        truncate(&mut tokenizer, &description)?;
        tokenizer.with_padding(None);
        Ok(Self { description, tokenizer, pad })
    }

    fn encode(&self, text: &[u8], pair: Option<&[u8]>) -> Result<Encoding, BackendError> {
        let read = |text: &'_ [u8]| {
            if text.len() as u64 > self.description.max_bytes {
                return Err(BackendError::Input(format!("a text has more than {} bytes", self.description.max_bytes)));
            }
            String::from_utf8(text.to_vec()).map_err(|_| BackendError::Input("a text is not UTF-8".to_owned()))
        };
        let (text, special) = (read(text)?, self.description.special_tokens);
        let encoded = match pair {
            None => self.tokenizer.encode_fast(text, special),
            Some(pair) => self.tokenizer.encode_fast((text, read(pair)?), special),
        };
        encoded.map_err(|_| BackendError::Input("a text cannot be tokenised, or cut as the step is told to".to_owned()))
    }

    /// How long every item becomes.
    fn length(&self, items: &[Encoding]) -> Result<usize, BackendError> {
        let longest = items.iter().map(|item| item.get_ids().len()).max().unwrap_or(0);
        let length = if self.description.padding == Padding::Fixed { self.description.max_length } else { longest };
        let length = length.checked_next_multiple_of(self.description.pad_to_multiple_of);
        length.filter(|length| *length <= 2 * MAX_LENGTH).ok_or_else(|| BackendError::Input("the padded texts are too long".to_owned()))
    }

    /// One number for each place: those of the item, and `fill` for the rest.
    fn padded<'a>(&self, numbers: &'a [u32], length: usize, fill: u32) -> impl Iterator<Item = i64> + 'a {
        let rest = length.saturating_sub(numbers.len());
        let (before, after) = if self.pad.side == Side::Left { (rest, 0) } else { (0, rest) };
        let fill = move |n| std::iter::repeat_n(fill, n);
        fill(before).chain(numbers.iter().copied()).chain(fill(after)).map(i64::from)
    }
}

fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    // A version is not to be trusted more than a text.
    match std::panic::catch_unwind(|| Tokenizer::from_bytes(bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(format!("this is no tokenizer: {}", crate::check::text(&error.to_string()))),
        Err(_) => Err("this is no tokenizer".to_owned()),
    }
}

fn pad(tokenizer: &Tokenizer, description: &Description) -> Result<Pad, BackendError> {
    let own = tokenizer.get_padding();
    let side = description.padding_side.unwrap_or(match own.map(|padding| padding.direction) {
        Some(PaddingDirection::Left) => Side::Left,
        Some(PaddingDirection::Right) | None => Side::Right,
    });
    let type_id = own.map_or(0, |padding| padding.pad_type_id);
    let id = match (&description.pad_token, own) {
        (Some(token), _) => tokenizer.token_to_id(token).ok_or_else(|| wrong("pad_token is not a token of the tokenizer"))?,
        (None, Some(padding)) => padding.pad_id,
        // The names that nearly all have; a tokenizer without any pads with what its model will not look at.
        (None, None) => ["[PAD]", "<pad>", "<|endoftext|>"].iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0),
    };
    Ok(Pad { id, type_id, side })
}

fn truncate(tokenizer: &mut Tokenizer, description: &Description) -> Result<(), BackendError> {
    let special = |pair: bool| tokenizer.get_post_processor().map_or(0, |post| tokenizers::PostProcessor::added_tokens(post, pair));
    let added = if description.special_tokens { special(description.pair.is_some()) } else { 0 };
    // The library subtracts without looking.
    let least = special(false).max(special(true)).max(added);
    if description.max_length <= least {
        return Err(wrong(format!("max_length is {}, but special tokens alone take {least}", description.max_length)));
    }
    let strategy = match description.truncation {
        Cut::LongestFirst => TruncationStrategy::LongestFirst,
        Cut::OnlyFirst => TruncationStrategy::OnlyFirst,
        Cut::OnlySecond if description.pair.is_some() => TruncationStrategy::OnlySecond,
        Cut::OnlySecond => return Err(wrong("truncation is only_second, but there is no second text; set pair")),
    };
    let direction = match description.truncation_side {
        Side::Left => TruncationDirection::Left,
        Side::Right => TruncationDirection::Right,
    };
    let params = TruncationParams { direction, max_length: description.max_length, strategy, stride: 0 };
    tokenizer.with_truncation(Some(params)).map(drop).map_err(|error| wrong(error.to_string()))
}

impl Kind for Tokenize {
    fn inputs(&self) -> Result<(Vec<TensorSpec>, Vec<String>), BackendError> {
        let names = std::iter::once(&self.description.input).chain(&self.description.pair);
        let specs = names.map(|name| spec(name, DataType::Bytes, &element_shape(self.description.column)));
        Ok((specs.collect::<Result<_, _>>()?, Vec::new()))
    }

    fn outputs(&self) -> Result<Vec<TensorSpec>, BackendError> {
        let length = if self.description.padding == Padding::Fixed { Dim::Fixed(self.length(&[])? as u64) } else { Dim::Any };
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        names.iter().map(|name| spec(name, DataType::Int64, &[Dim::Any, length])).collect()
    }

    fn execute(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, BackendError> {
        let texts = input(inputs, &self.description.input)?;
        let batch = texts.shape().dims().first().copied().unwrap_or(0);
        if batch > self.description.max_batch {
            return Err(BackendError::Input(format!("{batch} texts in one request; at most {} are taken", self.description.max_batch)));
        }
        let pairs = self.description.pair.as_ref().map(|name| input(inputs, name)).transpose()?;
        let mut pairs = pairs.map(Tensor::byte_elements);
        let items = texts.byte_elements().map(|text| {
            let mut item = self.encode(text, pairs.as_mut().and_then(Iterator::next))?;
            // What was cut off is not needed.
            item.take_overflowing();
            Ok(item)
        });
        let items = items.collect::<Result<Vec<_>, BackendError>>()?;
        let length = self.length(&items)?;
        let shape = [batch, length as u64];
        check_output(DataType::Int64, &shape)?;
        let make = |name: &String| {
            let numbers = |item| -> Box<dyn Iterator<Item = i64>> {
                let item: &Encoding = item;
                match name.as_str() {
                    "input_ids" => Box::new(self.padded(item.get_ids(), length, self.pad.id)),
                    "attention_mask" => Box::new(self.padded(item.get_attention_mask(), length, 0)),
                    _ => Box::new(self.padded(item.get_type_ids(), length, self.pad.type_id)),
                }
            };
            from_integers(name, &shape, items.iter().flat_map(numbers))
        };
        outputs.iter().map(make).collect()
    }
}

#[cfg(test)]
mod tests;
