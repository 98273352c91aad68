//! Who belongs to what. Each link is a record of its own, so that two nodes that link different things never write the
//! same one; its id follows from its ends, so that two nodes that link the same things do.
//!
//! Taking a link away clears `linked`; setting it again brings it back. Links are never hard-deleted by hand.

use super::InvalidField;
use super::kind_table::kind_table;
use crate::id::RecordId;

kind_table! {
    /// An author made a medium. Lives in the medium's bucket.
    MediaAuthor = 7 "media_author" {
        /// The medium.
        1 lww media: RecordId,
        /// The author.
        2 lww author: RecordId,
        /// Whether the link stands.
        3 lww linked: bool,
    }
}

kind_table! {
    /// A medium is about a subject. Lives in the medium's bucket.
    MediaCategory = 8 "media_category" {
        /// The medium.
        1 lww media: RecordId,
        /// The category.
        2 lww category: RecordId,
        /// Whether the link stands.
        3 lww linked: bool,
    }
}

kind_table! {
    /// An author writes about a subject. Lives in the catalogue.
    AuthorCategory = 9 "author_category" {
        /// The author.
        1 lww author: RecordId,
        /// The category.
        2 lww category: RecordId,
        /// Whether the link stands.
        3 lww linked: bool,
    }
}

/// Gives a link type its derived id and its check.
macro_rules! link {
    ($name:ident, $left:ident, $right:ident) => {
        impl $name {
            /// The link between the two.
            pub fn between($left: RecordId, $right: RecordId) -> (RecordId, Self) {
                let id =
                    RecordId::derived(&[<Self as super::Typed>::NAME.as_bytes(), $left.as_bytes(), $right.as_bytes()]);
                (id, Self { $left, $right, linked: true })
            }

            fn check(&self) -> Result<(), InvalidField> {
                for (field, id) in [(stringify!($left), self.$left), (stringify!($right), self.$right)] {
                    if id == RecordId::default() {
                        return Err(InvalidField { field, problem: "must be given".into() });
                    }
                }
                Ok(())
            }
        }
    };
}

link!(MediaAuthor, media, author);
link!(MediaCategory, media, category);
link!(AuthorCategory, author, category);
