//! Users of one site. They live in its site bucket and never reach another site.

use serde::{Deserialize, Serialize};

use super::kind_table::kind_table;
use super::{InvalidField, check_name};

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, minicbor::Encode, minicbor::Decode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Role {
    /// Reads.
    #[default]
    #[n(0)]
    Reader,
    /// Adds and curates.
    #[n(1)]
    Librarian,
    /// Runs the node.
    #[n(2)]
    Admin,
}

kind_table! {
    /// Someone who uses a site.
    User = 6 "user" {
        /// The name to sign in with.
        1 lww name: String,
        /// What they may do.
        2 lww role: Role,
        /// Signed out and kept: the soft delete.
        3 lww disabled: bool,
    }
}

impl User {
    fn check(&self) -> Result<(), InvalidField> {
        check_name("name", &self.name)
    }
}
