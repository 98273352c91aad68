//! The TCP transport, for networks that let no UDP through or treat it badly: TLS 1.3, one connection for each lane.
//!
//! - [`segment`]: what the bytes of a connection mean.
//! - [`connection`]: carries one lane over one connection.
//! - [`lanes`]: the lanes of one session, whoever opens them.
//! - [`link`]: a session's connections as the driver sees them.
//! - [`endpoint`]: dialling and listening.
//! - [`handshake`]: TLS at both ends, and who may be at the other.
//! - [`socket`]: what is asked of the operating system.
//!
//! The first connection of a session is its control lane. Over it the listener gives the session's token, which nobody
//! else knows, and asks for lanes that it wants to open: only the dialler can reach the other end. Each further connection
//! shows the token, and the certificate of the first.
//!
//! What always holds:
//! - A lost segment holds up its own lane only.
//! - When one connection of a session is gone, all are.
//! - A session has one connection for each lane, at most.

mod connection;
pub mod endpoint;
mod handshake;
mod lanes;
pub mod link;
pub mod segment;
mod socket;

pub use endpoint::{Dialer, Knock, Listener, TcpConfig};
pub use handshake::ConnectError;
pub use link::TcpLink;
