//! ONNX Runtime's shared library and its one environment.
#![allow(unsafe_code, reason = "the library's version and its arena's growth are reached through its C interface only")]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::path::Path;

use crate::spec::Provider;
use ort::AsPointer;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

/// The arena grows by what is asked for, instead of doubling.
const SAME_AS_REQUESTED: i32 = 1;
/// The library's own choice.
const DEFAULT: i32 = -1;

/// The library, mapped into this process. There is one for a process; open it once.
pub struct Library {
    environment: Environment,
    version: String,
}

impl Library {
    /// Maps the library and creates its environment. Reads files of the machine, and starts no thread.
    ///
    /// # Errors
    /// A text for the log: the file is missing, is no ONNX Runtime, or is older than this program needs.
    pub fn open(path: &Path) -> Result<Self, String> {
        let version = version(path)?;
        let environment = catch_unwind(|| create(path)).map_err(|_| "ONNX Runtime could not be set up".to_owned())??;
        Ok(Self { environment, version })
    }

    /// Such as `1.24.4`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Maps the libraries of a GPU's provider while files can be opened. Whether it works is found out when a model is
    /// loaded.
    pub(crate) fn prepare(&self, provider: Provider) {
        if provider != Provider::Cpu
            && let Ok(builder) = ort::session::Session::builder(&self.environment)
        {
            let _ = super::provider::append(builder, provider);
        }
    }

    pub(super) const fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn create(path: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(path).map_err(|error| error.to_string())?;
    let environment = builder.with_name("plinth").with_telemetry(false).build().map_err(|error| error.to_string())?;
    // Its errors come back as statuses; what it would print of them beside is noise.
    environment.set_log_level(LogLevel::Fatal);
    share_arena(&environment).map_err(|error| error.to_string())?;
    Ok(environment)
}

/// Gives the environment an arena that sessions use instead of their own.
fn share_arena(environment: &Environment) -> ort::Result<()> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let mut config = std::ptr::null_mut();
    // SAFETY: `config` receives a pointer that is released below; the environment and the description of the memory
    // live through the call, which copies what it needs of both.
    unsafe {
        let api = ort::api();
        ort::Error::result_from_status((api.CreateArenaCfg)(0, SAME_AS_REQUESTED, DEFAULT, DEFAULT, &raw mut config))?;
        let registered = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), config);
        (api.ReleaseArenaCfg)(config);
        ort::Error::result_from_status(registered)
    }
}

/// The version that the library says it is; the library stays mapped.
fn version(path: &Path) -> Result<String, String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: `name` is terminated; the operator names this library and trusts its initialisers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(format!("ONNX Runtime's library cannot be loaded: {}", dl_error()));
    }
    // SAFETY: `handle` is a mapped library and the name is terminated.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("the library is not ONNX Runtime".to_owned());
    }
    // SAFETY: by the library's documented interface the symbol is this function, its answer points to static memory,
    // and so does the version's text.
    let text = unsafe {
        let base = std::mem::transmute::<*mut libc::c_void, GetApiBase>(symbol)();
        let base = base.as_ref().ok_or("the library has no interface")?;
        CStr::from_ptr((base.GetVersionString)())
    };
    text.to_str().map(str::to_owned).map_err(|error| error.to_string())
}

fn dl_error() -> String {
    // SAFETY: the text, if any, is terminated and stays until the next call on this thread.
    let text = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text)) };
    text.map_or_else(|| "no reason given".to_owned(), |text| text.to_string_lossy().into_owned())
}
