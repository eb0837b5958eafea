#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod sandboxed;
