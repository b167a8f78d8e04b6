//! Small tokenizers written here, with the ids that the library's Python package gives for them.

use plinth_types::{DataType, Tensor};

use super::super::tests::{load, refused, run};
use super::super::values::integers;
use crate::backend::step::Step;
use crate::backend::{Backend, BackendError};
use crate::conformance;
use crate::testing::{strings, tensor};

/// A tokenizer as BERT has one: WordPiece, lower case, [CLS] and [SEP].
fn word_piece() -> String {
    let special = |id: u32, content: &str| {
        format!(
            r#"{{"id":{id},"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let special: Vec<_> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].iter().zip(0..).map(|(content, id)| special(id, content)).collect();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat", "##s", "un", "##happi", "##ness", ".", "e", "##e"];
    let vocab: Vec<_> = words.iter().zip(0..).map(|(word, id)| format!(r#""{word}":{id}"#)).collect();
    let cls = r#"{"SpecialToken":{"id":"[CLS]","type_id":0}}"#;
    let sep = |id: u32| format!(r#"{{"SpecialToken":{{"id":"[SEP]","type_id":{id}}}}}"#);
    let (a, b) = (r#"{"Sequence":{"id":"A","type_id":0}}"#, r#"{"Sequence":{"id":"B","type_id":1}}"#);
    let (sep0, sep1) = (sep(0), sep(1));
    let ids = r#"{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}"#;
    format!(
        r###"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],
        "normalizer":{{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}},
        "pre_tokenizer":{{"type":"BertPreTokenizer"}},
        "post_processor":{{"type":"TemplateProcessing","single":[{cls},{a},{sep0}],"pair":[{cls},{a},{sep0},{b},{sep1}],"special_tokens":{ids}}},
        "decoder":{{"type":"WordPiece","prefix":"##","cleanup":true}},
        "model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{{{}}}}}}}"###,
        special.join(","),
        vocab.join(",")
    )
}

/// A tokenizer as GPT-2 has one: byte-level BPE, no special tokens; it says that it pads on the left.
const BYTE_PAIRS: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":1,"strategy":"LongestFirst","stride":0},
    "padding":{"strategy":{"Fixed":99},"direction":"Left","pad_to_multiple_of":null,"pad_id":9,"pad_type_id":0,"pad_token":"<e>"},
    "added_tokens":[],"normalizer":null,
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,
    "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
    "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
    "byte_fallback":false,"ignore_merges":false,
    "vocab":{"l":0,"o":1,"w":2,"e":3,"r":4,"Ġ":5,"lo":6,"low":7,"er":8,"<e>":9,"Ġlow":10},
    "merges":[["l","o"],["lo","w"],["e","r"],["Ġ","low"]]}}"#;

fn step(text: &str, tokenizer: &str) -> Step {
    load(&[("step.toml", format!("kind = 'tokenize'\n{text}").as_bytes()), ("tokenizer.json", tokenizer.as_bytes())])
}

fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    let width = usize::try_from(tensor.shape().dims()[1]).unwrap();
    integers(tensor).collect::<Vec<_>>().chunks(width.max(1)).map(<[i64]>::to_vec).collect()
}

#[test]
fn word_pieces_are_those_of_the_reference() {
    let bert = step("", &word_piece());
    let out = run(&bert, vec![strings("text", &["The cats sat on the mat.", "Unhappiness é", "zzz"])]).unwrap();
    assert_eq!(out.iter().map(Tensor::name).collect::<Vec<_>>(), ["input_ids", "attention_mask", "token_type_ids"]);
    let ids = [vec![2, 4, 5, 9, 6, 7, 4, 8, 13, 3], vec![2, 10, 11, 12, 14, 3, 0, 0, 0, 0], vec![2, 1, 3, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(rows(&out[0]), ids);
    assert_eq!(rows(&out[1])[1..], [vec![1, 1, 1, 1, 1, 1, 0, 0, 0, 0], vec![1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(rows(&out[2]), vec![vec![0; 10]; 3]);
}

#[test]
fn byte_pairs_are_those_of_the_reference() {
    let gpt = step("", BYTE_PAIRS);
    let out = run(&gpt, vec![strings("text", &["lower low", "low", "lowe r"])]).unwrap();
    assert_eq!(rows(&out[0]), [[9, 7, 8, 10], [9, 9, 9, 7], [7, 3, 5, 4]], "the tokenizer's own side and token, not its lengths");
    assert_eq!(rows(&out[1]), [[0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]);
    let right = step("padding_side = 'right'\npad_token = 'er'", BYTE_PAIRS);
    assert_eq!(rows(&run(&right, vec![strings("text", &["low", "lower"])]).unwrap()[0]), [[7, 8], [7, 8]]);
    let none = run(&gpt, vec![strings("text", &["xyz"])]).unwrap();
    assert_eq!(none[0].shape().dims(), [1, 0], "a text without a token");
}

#[test]
fn pairs_are_one_item_with_two_types() {
    let pairs = step("pair = 'context'", &word_piece());
    let out = run(&pairs, vec![strings("text", &["the cat"]), strings("context", &["sat on mats"])]).unwrap();
    assert_eq!(rows(&out[0]), [[2, 4, 5, 3, 6, 7, 8, 9, 3]]);
    assert_eq!(rows(&out[2]), [[0, 0, 0, 0, 1, 1, 1, 1, 1]]);
}

#[test]
fn long_texts_are_cut_as_the_reference_cuts_them() {
    let ids = |text: &str, inputs| rows(&run(&step(text, &word_piece()), inputs).unwrap()[0]);
    let long = || vec![strings("text", &["The cats sat on the mat."])];
    let pair = || vec![strings("text", &["the cat"]), strings("b", &["sat on mats"])];
    assert_eq!(ids("max_length = 6", long()), [[2, 4, 5, 9, 6, 3]]);
    assert_eq!(ids("max_length = 6\ntruncation_side = 'left'", long()), [[2, 7, 4, 8, 13, 3]]);
    assert_eq!(ids("max_length = 6\npair = 'b'", pair()), [[2, 4, 3, 6, 7, 3]]);
    assert_eq!(ids("max_length = 6\npair = 'b'\ntruncation = 'only_second'", pair()), [[2, 4, 5, 3, 6, 3]]);
    assert_eq!(ids("max_length = 4\nspecial_tokens = false", long()), [[4, 5, 9, 6]]);
}

#[test]
fn lengths_may_be_fixed_or_rounded_up() {
    let fixed = step("max_length = 8\npadding = 'fixed'\ncolumn = true", &word_piece());
    let texts = tensor("text", DataType::Bytes, &[1, 1], strings("text", &["the cat"]).data().clone());
    let out = run(&fixed, vec![texts]).unwrap();
    assert_eq!(rows(&out[0]), [[2, 4, 5, 3, 0, 0, 0, 0]]);
    let rounded = step("pad_to_multiple_of = 8", &word_piece());
    assert_eq!(run(&rounded, vec![strings("text", &["the cat"])]).unwrap()[0].shape().dims(), [1, 8]);
    assert_eq!(run(&rounded, vec![strings("text", &[])]).unwrap()[0].shape().dims(), [0, 0]);
}

#[test]
fn hostile_texts_are_refused_or_bounded() {
    let careful = step("max_bytes = 1000\nmax_batch = 2\nmax_length = 16", &word_piece());
    let says = |input| match run(&careful, vec![input]) {
        Err(BackendError::Input(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(says(strings("text", &[&"a".repeat(1001)])).contains("more than 1000 bytes"));
    assert!(says(strings("text", &["a", "b", "c"])).contains("3 texts in one request; at most 2"));
    assert!(says(tensor("text", DataType::Bytes, &[1], vec![1, 0, 0, 0, 0xff])).contains("not UTF-8"));
    let odd = ["\0\0\0", "\u{202e}\u{200d}", &"é\u{301}".repeat(100), &"[SEP]".repeat(100), "\u{10ffff}"];
    for text in odd {
        let out = run(&careful, vec![strings("text", &[text])]).unwrap();
        assert!(out[0].shape().dims()[1] <= 16);
    }
}

#[test]
fn files_that_make_no_sense_do_not_load() {
    let good = word_piece();
    for (text, tokenizer, why) in [
        ("max_length = 0", good.as_str(), "max_length is 0"),
        ("max_length = 3", &good, "special tokens alone take 3"),
        ("truncation = 'only_second'", &good, "there is no second text"),
        ("pad_token = 'nothing'", &good, "pad_token is not a token"),
        ("tokeniser = 'x'", &good, "line 2: unknown field"),
        ("tokenizer = 'x.json'", &good, "no file 'x.json'"),
        ("pair = 'text'", &good, "two tensors are called 'text'"),
        ("", "{}", "this is no tokenizer"),
        ("", "not even JSON", "this is no tokenizer"),
        ("", &good.replace("\"WordPiece\",\"unk_token\":\"[UNK]\"", "\"Unigram\""), "this is no tokenizer"),
        ("", &"[".repeat(100_000), "this is no tokenizer"),
    ] {
        let got = refused(&[("step.toml", format!("kind = 'tokenize'\n{text}").as_bytes()), ("tokenizer.json", tokenizer.as_bytes())]);
        assert!(got.contains(why), "{text}: {got}");
    }
}

#[test]
fn it_is_a_backend() {
    conformance::backend(&conformance::Case {
        load: Box::new(|| Ok(Box::new(step("pair = 'b'", &word_piece())) as Box<dyn Backend>)),
        good: vec![strings("text", &["the cat", "sat"]), strings("b", &["on", "the mat"])],
        failing: Some(vec![tensor("text", DataType::Bytes, &[1], vec![1, 0, 0, 0, 0xff]), strings("b", &["on"])]),
    });
}
