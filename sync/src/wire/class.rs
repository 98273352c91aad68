//! The six classes of what crosses a link, from what may never wait to what may wait longest.
//!
//! 0 and 1 have lanes of their own that go strictly first; 2 to 5 are content, and share its lanes
//! (`session::schedule`).

use serde::{Deserialize, Serialize};

/// Content of up to so many bytes is small: it comes before larger content, which it hardly delays.
pub const SMALL_BYTES_MAX: u64 = 256 * 1024;

/// How soon something is to cross the link.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// What keeps the session going, and revocation.
    Control,
    /// Records.
    Records,
    /// Content that a reader waits for now.
    Reader,
    /// Software for nodes.
    Software,
    /// Content that a site is to have before the rest.
    Pinned,
    /// All other content.
    #[default]
    Background,
}

impl Class {
    /// The classes of content, most urgent first.
    pub const CONTENT: [Self; 4] = [Self::Reader, Self::Software, Self::Pinned, Self::Background];

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The class of content with this number. What is not for content, or not known here, goes last: nobody gets ahead by
    /// a number that they made up.
    pub const fn of_content(number: u8) -> Self {
        match number {
            2 => Self::Reader,
            3 => Self::Software,
            4 => Self::Pinned,
            _ => Self::Background,
        }
    }

    /// The class of content about which nothing but its size is known: covers and the like come before films.
    pub const fn by_size(size_bytes: u64) -> Self {
        match size_bytes {
            1..=SMALL_BYTES_MAX => Self::Pinned,
            _ => Self::Background,
        }
    }

    /// Whether a reader waits for it.
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_content_keep_their_numbers_and_all_others_go_last() {
        for class in Class::CONTENT {
            assert_eq!(Class::of_content(class.number()), class);
        }
        for number in [0, 1, 6, 255] {
            assert_eq!(Class::of_content(number), Class::Background);
        }
    }
}
