//! Modules that do what they should, and one for each way of misbehaving. Written as text, so that no other compiler is needed.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use plinth_types::ByteSize;

use super::*;
use crate::abi::kind;

/// The clock, the pool and the compiler are shared by all tests, as by all filters of a node.
fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::start(HostOptions { calls: 4, memory: ByteSize::mib(8) }).unwrap())
}

const LIMITS: Limits = Limits { time: Duration::from_millis(20), memory: ByteSize::mib(1), body: ByteSize::kib(64) };

/// A module with this function for requests, and what all have.
fn module(on_request: &str, more: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 1024))
            (func (export "plinth_abi") (result i32) i32.const 1)
            (func (export "plinth_alloc") (param i32) (result i32)
                global.get $heap
                (global.set $heap (i32.add (global.get $heap) (local.get 0))))
            (func (export "plinth_on_request") (param $at i32) (param $size i32) (result i64) {on_request})
            {more})"#
    )
}

fn compile(text: &str) -> Result<Filter, Invalid> {
    host().compile(&wat::parse_str(text).unwrap(), LIMITS)
}

fn message(body: &'static [u8]) -> Message {
    let mut message = Message::new();
    message.add(kind::METHOD, b"", b"POST");
    message.with_body(Bytes::from_static(body))
}

async fn call(text: &str) -> Result<Option<Answer>, Failure> {
    compile(text).unwrap().call(Hook::Request, &message(b"{}")).await.result
}

/// A function that answers with these bytes, which stand at 16.
fn answering(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    module(&format!("i64.const {}", (16_u64 << 32) | bytes.len() as u64), &format!(r#"(data (i32.const 16) "{text}")"#))
}

fn record(kind: u32, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut message = Message::new();
    message.add(kind, name, value);
    let mut room = vec![0; message.len()];
    message.write(&mut room);
    room
}

#[tokio::test]
async fn a_filter_reads_and_changes() {
    assert_eq!(call(&module("i64.const 0", "")).await, Ok(None));
    let bytes = [record(kind::HEADER, b"x-a", b"1"), record(kind::BODY, b"", b"[1]")].concat();
    let answer = call(&answering(&bytes)).await.unwrap().unwrap();
    assert_eq!((answer.headers, answer.body), (vec![Change::Set("x-a".into(), "1".into())], Some("[1]".into())));
    // What it is told stands where it said: the whole message comes back as an answer, and a method is none.
    let echo = module("(i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))", "");
    assert_eq!(call(&echo).await, Err(Failure::Answer("it has a record of an unknown kind")));
    let filter = compile(&echo).unwrap();
    let body = Message::new().with_body(Bytes::from_static(b"{\"a\":1}"));
    let answer = filter.call(Hook::Request, &body).await.result.unwrap().unwrap();
    assert_eq!(answer.body.unwrap(), "{\"a\":1}");
    assert!(filter.call(Hook::Response, &body).await.result.unwrap().is_none(), "it has nothing to say of answers");
    let all = Wants { requests: true, request_bodies: true, responses: false, response_bodies: false };
    assert_eq!(filter.wants(), all);
    let heads = compile(&module("i64.const 0", r#"(func (export "plinth_wants") (result i32) i32.const 2)"#)).unwrap();
    assert_eq!(heads.wants(), Wants { request_bodies: false, ..all });
}

#[tokio::test]
async fn nothing_is_left_from_one_call_to_the_next() {
    // Counts in its memory and answers with a status of 200 and the count.
    let counter = module(
        "(i32.store8 (i32.const 30) (i32.add (i32.load8_u (i32.const 30)) (i32.const 1))) i64.const 0x100000000f",
        &format!(
            r#"(data (i32.const 16) "{}")"#,
            record(kind::STATUS, b"", b"200").iter().map(|byte| format!("\\{byte:02x}")).collect::<String>()
        ),
    );
    let filter = compile(&counter).unwrap();
    for _ in 0..10 {
        let answer = filter.call(Hook::Request, &message(b"{}")).await.result.unwrap().unwrap();
        assert_eq!(answer.status, Some(201));
    }
}

#[tokio::test]
async fn a_loop_is_stopped_and_others_go_on_meanwhile() {
    let filter = compile(&module("(loop br 0) i64.const 0", "")).unwrap();
    let turns = std::cell::Cell::new(0_u32);
    let others = async {
        loop {
            tokio::task::yield_now().await;
            turns.set(turns.get() + 1);
        }
    };
    // One thread: the loop lets the other task go on at each tick, and ends.
    let message = message(b"{}");
    tokio::select! {
        called = filter.call(Hook::Request, &message) => assert_eq!(called.result, Err(Failure::Time)),
        () = others => {}
    }
    assert!(turns.get() >= 5, "{} turns in 20 ms", turns.get());
    let slow_start = module("i64.const 0", "(func $s (loop br 0)) (start $s)");
    assert_eq!(compile(&slow_start).unwrap_err(), Invalid::Trial(Failure::Time));
    let slow_abi = module("i64.const 0", "").replace("(result i32) i32.const 1)", "(result i32) (loop br 0) i32.const 1)");
    assert_eq!(compile(&slow_abi).unwrap_err(), Invalid::Trial(Failure::Time));
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_ends() {
    let filter = compile(&module("(loop br 0) i64.const 0", "")).unwrap();
    for _ in 0..20 {
        let message = message(b"{}");
        let call = filter.call(Hook::Request, &message);
        // Dropped at its first tick, in the middle of the module.
        tokio::select! { biased; _ = call => panic!("it loops"), () = std::future::ready(()) => {} }
    }
    // All places are free again.
    assert_eq!(call(&module("i64.const 0", "")).await, Ok(None));
}

#[tokio::test]
async fn memory_has_an_end() {
    let greedy = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    assert_eq!(call(&module(greedy, "")).await, Err(Failure::Memory));
    // Who is refused and lives with it, goes on.
    assert_eq!(call(&module("(drop (memory.grow (i32.const 1000))) i64.const 0", "")).await, Ok(None));
    let large = module("i64.const 0", "").replace("(export \"memory\") 2)", "(export \"memory\") 20)");
    assert_eq!(compile(&large).unwrap_err(), Invalid::Trial(Failure::Memory));
    let larger = module("i64.const 0", "").replace("(export \"memory\") 2)", "(export \"memory\") 2000)");
    assert!(matches!(compile(&larger), Err(Invalid::Malformed(_) | Invalid::Trial(_))));
    assert_eq!(call(&module("i64.const 0", "").replace("global.get $heap\n", "i32.const 0\n")).await, Err(Failure::Memory));
}

#[tokio::test]
async fn crashes_are_contained() {
    for crash in [
        "unreachable",
        "(drop (i32.load (i32.const -4))) i64.const 0",
        "(drop (i32.div_u (i32.const 1) (i32.const 0))) i64.const 0",
        "(call_indirect (type $f) (i32.const 7)) i64.const 0",
        "(call $deep) i64.const 0",
    ] {
        let text = module(crash, "(type $f (func)) (table 1 funcref) (func $deep (call $deep))");
        let failure = call(&text).await.unwrap_err();
        assert!(matches!(failure, Failure::Trap(_)), "{crash}: {failure:?}");
    }
    let crashing_alloc = module("i64.const 0", "").replace("global.get $heap\n", "unreachable\n");
    assert!(matches!(call(&crashing_alloc).await, Err(Failure::Trap(_))));
    assert!(matches!(compile(&module("i64.const 0", "(func $s unreachable) (start $s)")), Err(Invalid::Trial(Failure::Trap(_)))));
}

#[tokio::test]
async fn places_and_answers_are_looked_at() {
    let outside = [
        ("an answer past the end", module("i64.const 0x1ffff00000008", "")),
        ("an answer that begins outside", module("i64.const 0xfffffff000000008", "")),
        ("an answer that is too large", module("i64.const 0x7fffffff", "")),
        ("a negative answer", module("i64.const -1", "")),
        ("garbage", answering(b"this is not an answer")),
        ("a record cut off", answering(&record(kind::BODY, b"", b"abc")[..14])),
        ("room outside", module("i64.const 0", "").replace("global.get $heap\n", "i32.const -8\n")),
        ("room at the very end", module("i64.const 0", "").replace("global.get $heap\n", "i32.const 131071\n")),
    ];
    for (what, text) in outside {
        let failure = call(&text).await.unwrap_err();
        assert!(matches!(failure, Failure::Answer(_)), "{what}: {failure:?}");
    }
    let large = Limits { body: ByteSize(4), ..LIMITS };
    let text = answering(&record(kind::BODY, b"", b"12345"));
    let filter = host().compile(&wat::parse_str(text).unwrap(), large).unwrap();
    assert!(matches!(filter.call(Hook::Request, &message(b"{}")).await.result, Err(Failure::Answer(_))));
}

#[test]
fn what_is_no_filter_is_refused_with_a_word_about_it() {
    let good = module("i64.const 0", "");
    let refused = |text: &str| compile(text).unwrap_err();
    assert_eq!(refused(&good.replace("(result i32) i32.const 1)", "(result i32) i32.const 2)")), Invalid::Version(2));
    for (from, to) in [
        ("plinth_abi", "other"),
        ("plinth_alloc", "other"),
        ("plinth_on_request", "other"),
        ("\"memory\"", "\"other\""),
        ("(param i32) (result i32)", "(param i32) (param i32) (result i32)"),
        ("(result i64) i64.const 0", "(result f64) f64.const 0"),
        ("(result i32) i32.const 1", "(result i64) i64.const 1"),
    ] {
        assert!(good.contains(from));
        let error = refused(&good.replace(from, to));
        assert!(matches!(error, Invalid::Export(_)), "{from}: {error:?}");
    }
    for import in [
        r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
        r#"(import "plinth" "fetch" (func))"#,
        r#"(import "env" "memory" (memory 1))"#,
        r#"(import "plinth" "log" (func (param i64)))"#,
    ] {
        let text = good.replacen("(module", &format!("(module {import}"), 1).replace("(memory (export \"memory\") 2)", "");
        let text = if import.contains("(memory 1)") { text } else { good.replacen("(module", &format!("(module {import}"), 1) };
        assert!(matches!(refused(&text), Invalid::Import(_)), "{import}");
    }
    let long = format!(r#"(module (import "{}" "x\1b[2J" (func)) "#, "y".repeat(9000));
    let Invalid::Import(text) = refused(&good.replacen("(module", &long, 1)) else { panic!("it imports") };
    assert!(text.len() < 300 && !text.contains('\x1b'), "{text}");
    for bytes in [&b""[..], b"\0asm", b"\x7fELF", b"\0asm\x0d\0\x01\0"] {
        assert!(matches!(host().compile(bytes, LIMITS), Err(Invalid::Malformed(_))), "{bytes:?}");
    }
    assert!(matches!(host().compile(&vec![0; MAX_MODULE + 1], LIMITS), Err(Invalid::TooLarge(_))));
    let two = good.replace("(export \"memory\") 2)", "(export \"memory\") 2) (memory 1)");
    assert!(matches!(refused(&two), Invalid::Malformed(_)), "one memory");
}

#[tokio::test]
async fn lines_have_a_bound() {
    let import = r#"(module (import "plinth" "log" (func $log (param i32 i32 i32)))"#;
    let talk = "(call $log (i32.const 1) (i32.const 16) (i32.const 3)) (call $log (i32.const 1) (i32.const -1) (i32.const -1))
        (loop (call $log (i32.const 2) (i32.const 0) (i32.const 65536)) (br_if 0 (i32.eqz (i32.const 0)))) i64.const 0";
    let text = module(talk, r#"(data (i32.const 16) "a\1bb")"#).replacen("(module", import, 1);
    let called = compile(&text).unwrap().call(Hook::Request, &message(b"{}")).await;
    assert_eq!(called.result, Err(Failure::Time));
    assert_eq!((called.lines.len(), called.lines[0].clone()), (8, (1, "a\\u{1b}b".to_owned())));
    assert!(called.lines.iter().all(|(_, line)| line.len() <= 200 * 10), "bounded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_a_time_share_the_places() {
    let filter = std::sync::Arc::new(compile(&module("i64.const 0", "")).unwrap());
    let calls = (0..200).map(|_| {
        let filter = filter.clone();
        async move { filter.call(Hook::Request, &message(b"{}")).await.result }
    });
    let handles: Vec<_> = calls.map(spawn).collect();
    for handle in handles {
        assert_eq!(handle.await.unwrap(), Ok(None));
    }
}

#[allow(clippy::disallowed_methods, reason = "a test needs tasks on other threads, and owns them to their end")]
fn spawn<T: Send + 'static>(future: impl std::future::Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}
