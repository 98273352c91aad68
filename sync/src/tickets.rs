//! Session tickets (RFC 8446 section 4.6.1) that any process of the bridge can open: a node that comes back resumes at
//! whichever it reaches, without certificates crossing the link again.
//!
//! The keys follow from one secret that the processes share, and from the day: nothing is agreed on or stored. A ticket is
//! made with the key of its day, and opened on that day and the [`DAYS_KEPT`] after it. What a ticket says about
//! its holder is what the full handshake established; whether the holder is still welcome is asked each time.
//!
//! A ticket crosses the link twice, and most of it is a certificate of the fleet: it is compressed, with what all of those
//! have in common as the dictionary.
//!
//! Not here: 0-RTT, which rustls allows only with tickets that one process keeps (ADR 0008).

use std::fmt;
use std::io;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use rustls_pki_types::{CertificateDer, UnixTime};

const DAY_S: u64 = 24 * 60 * 60;
/// Days after its own on which a ticket can be opened. TLS allows seven days in all.
const DAYS_KEPT: u64 = 6;
/// Bytes of the day in front of a ticket.
const DAY_BYTES: usize = 4;
/// Bytes of a ticket, packed or not, at most: one holds a node's certificate and little more.
const TICKET_BYTES_MAX: usize = 8 * 1024;
/// How hard a ticket is packed: as well as it can be, for there are few bytes.
const PACKING_LEVEL: i32 = 19;
/// What is in every node's certificate and ticket, beside what is in the authority's own: names, and the extensions of a
/// certificate for clients (RFC 5280, section 4.2.1).
const IN_EVERY_TICKET: &[&[u8]] = &[
    b"\x30\x0a\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x07\x80",
    b"\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02",
    b"\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14\x06\x03\x55\x1d\x11\x04\x38\x30\x36\x86\x34alexandria:node/",
    b"\x01\x1abridge.alexandria.internal\x03\x04\x13\x02\x0ealexandria-tcp/1\x0calexandria/1",
];

/// What the processes of one bridge share to open each other's tickets.
#[derive(Clone)]
pub struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// From what the processes share already: a key, or a text that an operator chose.
    pub fn derived_from(shared: &[u8]) -> Self {
        Self(blake3::derive_key("alexandria 2026 session ticket secret", shared))
    }

    fn key_of(&self, day: u32) -> LessSafeKey {
        let mut hasher = blake3::Hasher::new_derive_key("alexandria 2026 session ticket key of a day");
        hasher.update(&self.0).update(&day.to_be_bytes());
        let key = UnboundKey::new(&CHACHA20_POLY1305, hasher.finalize().as_bytes());
        LessSafeKey::new(key.expect("a hash is as long as a key"))
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret")
    }
}

/// Makes and opens tickets.
#[derive(Debug)]
pub(crate) struct SharedTickets {
    secret: TicketSecret,
    dictionary: Vec<u8>,
}

impl SharedTickets {
    /// For the processes that share this secret, in the fleet of this authority.
    pub(crate) fn new(secret: &TicketSecret, authority: &CertificateDer<'_>) -> Self {
        Self { secret: secret.clone(), dictionary: [&IN_EVERY_TICKET.concat(), authority.as_ref()].concat() }
    }

    fn pack(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        zstd::bulk::Compressor::with_dictionary(PACKING_LEVEL, &self.dictionary)?.compress(plain)
    }

    fn unpack(&self, packed: &[u8]) -> io::Result<Vec<u8>> {
        zstd::bulk::Decompressor::with_dictionary(&self.dictionary)?.decompress(packed, TICKET_BYTES_MAX)
    }

    fn seal(&self, plain: &[u8], day: u32) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let named = day.to_be_bytes();
        let mut sealed = self.pack(plain).ok()?;
        let key = self.secret.key_of(day);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(named), &mut sealed).ok()?;
        Some([&named[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], today: u32) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (named, rest) = ticket.split_first_chunk::<DAY_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let day = u32::from_be_bytes(*named);
        // The clock of the process that made it may be a little ahead.
        if day > today.saturating_add(1) || u64::from(today.saturating_sub(day)) > DAYS_KEPT {
            return None;
        }
        let mut plain = sealed.to_vec();
        let key = self.secret.key_of(day);
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(*named), &mut plain).ok()?;
        self.unpack(opened).ok()
    }
}

fn today() -> u32 {
    u32::try_from(UnixTime::now().as_secs() / DAY_S).unwrap_or(u32::MAX)
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(DAYS_KEPT * DAY_S).expect("a few days")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, today())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, today())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u32 = 20_000;

    fn tickets(secret: &str) -> SharedTickets {
        let authority = CertificateDer::from(b"the certificate of an authority".to_vec());
        SharedTickets::new(&TicketSecret::derived_from(secret.as_bytes()), &authority)
    }

    #[test]
    fn a_ticket_opens_at_every_process_that_shares_the_secret_and_nowhere_else() {
        let ticket = tickets("shared").seal(b"who it was", DAY).unwrap();
        assert_eq!(tickets("shared").open(&ticket, DAY).as_deref(), Some(&b"who it was"[..]));
        assert_eq!(tickets("another").open(&ticket, DAY), None);
    }

    #[test]
    fn a_ticket_opens_for_six_days_after_its_own() {
        let tickets = tickets("shared");
        let ticket = tickets.seal(b"x", DAY).unwrap();
        for (today, opens) in [(DAY - 2, false), (DAY - 1, true), (DAY, true), (DAY + 6, true), (DAY + 7, false)] {
            assert_eq!(tickets.open(&ticket, today).is_some(), opens, "on day {today}");
        }
        // It cannot be made to look younger.
        let mut younger = ticket.clone();
        younger[..DAY_BYTES].copy_from_slice(&(DAY + 5).to_be_bytes());
        assert_eq!(tickets.open(&younger, DAY + 7), None);
    }

    proptest! {
        /// Whatever comes in place of a ticket opens nothing.
        #[test]
        fn no_bytes_pass_for_a_ticket(bytes in proptest::collection::vec(any::<u8>(), 0..200), from_today: bool) {
            let mut bytes = bytes;
            if from_today && bytes.len() >= DAY_BYTES {
                bytes[..DAY_BYTES].copy_from_slice(&DAY.to_be_bytes());
            }
            prop_assert_eq!(tickets("shared").open(&bytes, DAY), None);
        }
    }
}
