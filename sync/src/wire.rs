//! What crosses the link: frames ([`frame`]) that carry messages ([`message`]), each of a [`class`].
//!
//! The whole protocol, for someone who writes another implementation, is told in docs/PROTOCOL.md.

pub mod class;
pub mod frame;
pub mod message;

pub use class::Class;
pub use frame::{DecodeFrameError, FRAME_HEADER_BYTES, FrameHeader};
pub use message::{CloseReason, Hello, Lane, Message, Offered, feature};

/// The oldest version of the protocol that this one still speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The version of the protocol described in docs/PROTOCOL.md.
pub const PROTOCOL_MAX: u16 = 1;
