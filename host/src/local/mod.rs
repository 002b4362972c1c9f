//! Files and block devices of this machine: read as sources, written as
//! outputs.
//!
//! The only room of the host that opens local files for blocks. It knows
//! nothing of filesystems or image formats.

pub mod devices;
pub mod file;
pub mod mounts;
pub mod output;
pub mod places;
pub mod source;
pub mod unfinished;
pub mod usage;
pub mod writer;

pub use file::LocalFile;
pub use output::{LocalOutput, OutputOptions, StdoutStream};
pub use source::LocalSource;
pub use unfinished::Unfinished;
pub use writer::LocalWriter;
