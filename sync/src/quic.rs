//! The QUIC transport: mutual TLS with certificates of the fleet's own authority, one stream for each lane.
//!
//! - [`identity`]: keys, signing requests and certificates; which replica a certificate names.
//! - [`signature`]: what a replica signs outside of sessions, and who has signed.
//! - [`tls`]: what each end demands of the other.
//! - [`congestion`]: how much may be in flight.
//! - [`endpoint`]: dialling and listening, with limits that suit bad links.
//! - [`link`]: a connection as the driver sees it.
//! - `simulated` (feature `sim`): connections over a simulated line, in virtual time.
//!
//! The only folder that names `quinn`.

pub mod congestion;
pub mod endpoint;
pub mod identity;
pub mod link;
pub mod signature;
#[cfg(feature = "sim")]
pub mod simulated;
pub mod tls;

pub use endpoint::{ConnectError, Dialer, Listener, TransportConfig};
pub use identity::{Authority, Identity, IdentityError, PeerIdentity, PeerRole, SigningRequest};
pub use link::QuicLink;
pub use signature::{Signatory, SignatureError};
