//! The small library that an empty node offers, so that there is something to read before anything was imported.
//!
//! Everything in it was made for this project by the scripts in `builtin/make`, and is carried in the program itself.
//!
//! Not here: whether a node is empty, and the importing of these files (`library`).

/// One file of the built-in library. Import goes by its content, as for any other file.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinFile {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// A handbook in two languages and two formats, pictures, a recording and a film; in the order to show them.
        pub const FILES: &[BuiltinFile] = &[
            $(BuiltinFile { name: $name, bytes: include_bytes!(concat!("../builtin/library/", $name)) }),*
        ];
    };
}

files![
    "handbook-en.epub",
    "handbook-ar.epub",
    "handbook-en.pdf",
    "handbook-ar.pdf",
    "welcome.mp3",
    "sunrise.mp4",
    "lighthouse.jpg",
    "village-at-night.webp",
    "phases-of-the-moon.jpg",
    "bookshelf.png",
];

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn the_builtin_library_stays_small() {
        const BYTES_MAX: usize = 3_000_000;
        assert!(FILES.iter().map(|file| file.bytes.len()).sum::<usize>() < BYTES_MAX);
    }
}
