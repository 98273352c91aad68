//! The QUIC transport: one stream for each lane.
//!
//! - [`endpoint`]: dialling and listening, with limits that suit bad links.
//! - [`link`]: a connection as the driver sees it.
//!
//! The only folder that names `quinn`. Not here: identities and TLS (`identity`, `tls`), which TCP shares.

pub mod endpoint;
pub mod link;

pub use endpoint::{ConnectError, Dialer, Knock, Listener, MTU_MAX, MTU_MIN, Mtu, TransportConfig};
pub use link::QuicLink;
