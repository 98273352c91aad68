//! From text to the words that are indexed and looked for, whatever the script and however its letters are encoded.
//!
//! - Letters that look the same are the same: compatibility forms, case and accents are folded. Marks that tell words
//!   apart stay: vowel signs of Indic scripts, tones of Thai, the voicing of Kana.
//! - Scripts that put no spaces between words are indexed by every two neighbouring characters, and by the last one of
//!   a run alone, so that any part of a run is found as a phrase, and any single character as the beginning of a word.
//! - A word over its limit is cut, not left out.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};
use unicode_script::{Script, UnicodeScript};

/// Characters of a word that count; longer ones are no words that anybody types to the end.
const WORD_CHARS_MAX: usize = 64;

/// Scripts that put no spaces between words.
const UNSPACED: [Script; 9] = [
    Script::Bopomofo,
    Script::Han,
    Script::Hiragana,
    Script::Katakana,
    Script::Khmer,
    Script::Lao,
    Script::Myanmar,
    Script::Thai,
    Script::Yi,
];

/// A word, or a run of a script that puts no spaces between words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) is_run: bool,
}

/// The words of `text` in their order, folded; and whether the text may break off within the last.
pub(super) fn words(text: &str) -> (Vec<Word>, bool) {
    let mut words: Vec<Word> = Vec::new();
    let mut is_inside = false;
    for char in folded(text) {
        // A mark belongs to what it stands on, whatever its script.
        let is_mark = is_inside && is_combining_mark(char);
        let (was_inside, is_run) = (is_inside, is_unspaced(char));
        is_inside = is_mark || char.is_alphanumeric();
        match words.last_mut() {
            _ if !is_inside => {}
            Some(word) if was_inside && (is_mark || word.is_run == is_run) => word.text.push(char),
            _ => words.push(Word { text: char.into(), is_run }),
        }
    }
    for word in words.iter_mut().filter(|word| !word.is_run) {
        if let Some((end, _)) = word.text.char_indices().nth(WORD_CHARS_MAX) {
            word.text.truncate(end);
        }
    }
    (words, is_inside)
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    let marked = text.nfkd().filter(|char| !is_accent(*char) && !is_invisible(*char));
    marked.flat_map(char::to_lowercase).nfc()
}

/// Marks above, below and through letters, and the vowel points of Hebrew and Arabic, by their combining class.
fn is_accent(char: char) -> bool {
    matches!(canonical_combining_class(char), 1 | 10..=36 | 200..)
}

/// The soft hyphen, the joiner and the choice of a glyph.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

fn is_unspaced(char: char) -> bool {
    // The mark of a long vowel in Kana is of no script.
    char == 'ー' || UNSPACED.contains(&char.script())
}

/// Cuts what is indexed, and what is looked for, into terms.
#[derive(Clone)]
pub(super) struct Words;

/// The terms of one text.
pub(super) struct Terms {
    texts: std::vec::IntoIter<String>,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = Terms;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Terms {
        let texts: Vec<String> = words(text).0.into_iter().flat_map(terms).collect();
        Terms { texts: texts.into_iter(), token: Token::default() }
    }
}

fn terms(word: Word) -> Vec<String> {
    if !word.is_run {
        return vec![word.text];
    }
    let chars: Vec<char> = word.text.chars().collect();
    (0..chars.len()).map(|at| chars[at..].iter().take(2).collect()).collect()
}

impl TokenStream for Terms {
    fn advance(&mut self) -> bool {
        let Some(text) = self.texts.next() else { return false };
        self.token.text = text;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).0.into_iter().map(|word| word.text).collect()
    }

    fn terms_of(text: &str) -> Vec<String> {
        words(text).0.into_iter().flat_map(terms).collect()
    }

    #[test]
    fn letters_that_look_the_same_are_the_same() {
        assert_eq!(texts("E\u{301}ducation CIVIQUE"), ["education", "civique"]);
        assert_eq!(texts("Ｆｕｌｌ ﬁne ｶﾞﾝ"), ["full", "fine", "ガン"]);
        assert_eq!(texts("İstanbul co\u{ad}operate"), ["istanbul", "cooperate"]);
        assert_eq!(texts("كِتَاب"), texts("كتاب"));
        assert_eq!(texts("שָׁלוֹם"), texts("שלום"));
    }

    #[test]
    fn marks_that_tell_words_apart_stay_and_part_no_word() {
        assert_eq!(texts("हिन्दी"), ["हिन्दी"]);
        assert_ne!(texts("कि"), texts("के"));
        assert_ne!(texts("が"), texts("か"));
        assert_ne!(texts("ใกล้"), texts("ใกล"));
        assert_eq!(texts("한국어 \u{301}"), ["한국어"]);
    }

    #[test]
    fn a_script_without_spaces_is_cut_into_pairs_and_others_stay_whole() {
        assert_eq!(terms_of("红楼梦研究"), ["红楼", "楼梦", "梦研", "研究", "究"]);
        assert_eq!(terms_of("Python入门2"), ["python", "入门", "门", "2"]);
        assert_eq!(terms_of("サーバー"), ["サー", "ーバ", "バー", "ー"]);
        assert_eq!(terms_of("ພາສາ"), ["ພາ", "າສ", "ສາ", "າ"]);
    }

    #[test]
    fn a_long_word_is_cut_and_the_last_may_go_on() {
        assert_eq!(texts(&"ж".repeat(100)), ["ж".repeat(WORD_CHARS_MAX)]);
        assert!(words("e\u{301}te\u{301}").1);
        assert!(!words("done. ").1);
    }
}
