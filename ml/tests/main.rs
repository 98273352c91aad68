//! The promises of the crate, kept through its public interface.

mod analysis;
mod hostile;
mod images;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(feature = "models")]
mod models;
mod orientation;
mod thumbnails;
