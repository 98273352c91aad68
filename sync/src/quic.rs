//! The QUIC transport: one stream for each lane.
//!
//! - [`congestion`]: how much may be in flight.
//! - [`endpoint`]: dialling and listening, with limits that suit bad links.
//! - [`link`]: a connection as the driver sees it.
//! - `simulated` (feature `sim`): connections over a simulated line, in virtual time.
//!
//! The only folder that names `quinn`. Not here: identities and TLS (`identity`, `tls`), which TCP shares.

pub mod congestion;
pub mod endpoint;
pub mod link;
#[cfg(feature = "sim")]
pub mod simulated;

pub use endpoint::{ConnectError, Dialer, Knock, Listener, MTU_MAX, MTU_MIN, Mtu, TransportConfig};
pub use link::QuicLink;
