//! ONNX Runtime's error texts, made fit for users.
//!
//! Invariant: no place in a file system or in a source file leaves here, no control character, and a bounded length. The
//! names of nodes and tensors stay: they are what the user can act on.

use ort::ErrorCode;

use super::BackendError;

const MAX_TEXT: usize = 400;
/// The beginnings of places on a machine. Nodes of a graph have names like `/encoder/MatMul` and stay.
const ROOTS: [&str; 14] =
    ["/home", "/root", "/tmp", "/usr", "/opt", "/var", "/etc", "/proc", "/sys", "/dev", "/lib", "/mnt", "/run", "/onnxruntime_src"];

pub(super) fn load_error<R>(error: &ort::Error<R>) -> BackendError {
    BackendError::Load(format!("ONNX Runtime refuses the model: {}", clean(error.message())))
}

pub(super) fn run_error<R>(error: &ort::Error<R>) -> BackendError {
    let text = clean(error.message());
    match error.code() {
        ErrorCode::InvalidArgument => BackendError::Input(text),
        _ => BackendError::Execution(text),
    }
}

pub(super) fn clean(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !is_place(word)).collect();
    let mut clean: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    if let Some((cut, _)) = clean.char_indices().nth(MAX_TEXT) {
        clean.truncate(cut);
        clean.push('…');
    }
    clean
}

fn is_place(word: &str) -> bool {
    let bare = word.trim_start_matches(['"', '\'', '(', '[', '`']);
    let source = [".cc:", ".h:", ".cpp:", ".hpp:"].iter().any(|suffix| bare.contains(suffix));
    source || ROOTS.iter().any(|root| bare.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_and_names_stay() {
        let text =
            "/onnxruntime_src/onnxruntime/core/graph.cc:42 Resolve() node (/encoder/layer.0/MatMul) failed,\n see '/tmp/x/model.onnx'";
        assert_eq!(clean(text), "Resolve() node (/encoder/layer.0/MatMul) failed, see");
        assert_eq!(clean(&"word ".repeat(1000)).chars().count(), MAX_TEXT + 1);
    }
}
