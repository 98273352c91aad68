//! Which language a visitor reads, and which way it runs.

/// A language that the pages themselves are written in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Language {
    #[default]
    English,
    French,
    Spanish,
    Arabic,
}

impl Language {
    /// All of them, in the order in which they are offered.
    pub(super) const ALL: [Self; 4] = [Self::English, Self::French, Self::Spanish, Self::Arabic];

    /// Its BCP 47 tag.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Arabic => "ar",
        }
    }

    /// What those who read it call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::French => "Français",
            Self::Spanish => "Español",
            Self::Arabic => "العربية",
        }
    }

    /// The value of `dir` for a whole page.
    pub(super) const fn direction(self) -> &'static str {
        match self {
            Self::Arabic => "rtl",
            Self::English | Self::French | Self::Spanish => "ltr",
        }
    }

    /// The language of a tag such as `fr` or `es-MX`.
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next()?;
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// The one that an `Accept-Language` header likes best; of equals, the first.
    pub(super) fn accepted(header: &str) -> Option<Self> {
        /// Entries that count; browsers send a handful.
        const ENTRIES_MAX: usize = 32;
        let mut best: Option<(Self, f32)> = None;
        for entry in header.split(',').take(ENTRIES_MAX) {
            let mut parts = entry.split(';');
            let language = parts.next().and_then(Self::from_tag);
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.trim().parse().ok()).unwrap_or(1.0);
            if let Some(language) = language
                && quality > 0.0
                && best.is_none_or(|(_, held)| quality > held)
            {
                best = Some((language, quality));
            }
        }
        best.map(|(language, _)| language)
    }
}

/// The value of `dir` for text in the language of `tag`: certain if the language is written from right to left, else
/// left to the text itself.
pub(super) fn direction_of(tag: Option<&str>) -> &'static str {
    const RIGHT_TO_LEFT: [&str; 12] = ["ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"];
    let primary = tag.and_then(|tag| tag.split('-').next()).unwrap_or_default();
    if RIGHT_TO_LEFT.iter().any(|known| known.eq_ignore_ascii_case(primary)) { "rtl" } else { "auto" }
}

/// What those who read a language call it; the tag itself if this table does not know it.
pub(super) fn name_of(tag: &str) -> &str {
    const NAMES: [(&str, &str); 64] = [
        ("af", "Afrikaans"),
        ("am", "አማርኛ"),
        ("ar", "العربية"),
        ("az", "Azərbaycanca"),
        ("bg", "Български"),
        ("bm", "Bamanankan"),
        ("bn", "বাংলা"),
        ("ca", "Català"),
        ("cs", "Čeština"),
        ("cy", "Cymraeg"),
        ("da", "Dansk"),
        ("de", "Deutsch"),
        ("el", "Ελληνικά"),
        ("en", "English"),
        ("eo", "Esperanto"),
        ("es", "Español"),
        ("eu", "Euskara"),
        ("fa", "فارسی"),
        ("ff", "Fulfulde"),
        ("fi", "Suomi"),
        ("fr", "Français"),
        ("ga", "Gaeilge"),
        ("gu", "ગુજરાતી"),
        ("ha", "Hausa"),
        ("he", "עברית"),
        ("hi", "हिन्दी"),
        ("hr", "Hrvatski"),
        ("hu", "Magyar"),
        ("id", "Bahasa Indonesia"),
        ("ig", "Igbo"),
        ("it", "Italiano"),
        ("ja", "日本語"),
        ("km", "ខ្មែរ"),
        ("ko", "한국어"),
        ("la", "Latina"),
        ("ln", "Lingála"),
        ("mg", "Malagasy"),
        ("mr", "मराठी"),
        ("ms", "Bahasa Melayu"),
        ("my", "မြန်မာ"),
        ("ne", "नेपाली"),
        ("nl", "Nederlands"),
        ("om", "Oromoo"),
        ("pa", "ਪੰਜਾਬੀ"),
        ("pl", "Polski"),
        ("ps", "پښتو"),
        ("pt", "Português"),
        ("qu", "Runa Simi"),
        ("ro", "Română"),
        ("ru", "Русский"),
        ("rw", "Ikinyarwanda"),
        ("so", "Soomaali"),
        ("sv", "Svenska"),
        ("sw", "Kiswahili"),
        ("ta", "தமிழ்"),
        ("te", "తెలుగు"),
        ("th", "ไทย"),
        ("tr", "Türkçe"),
        ("uk", "Українська"),
        ("ur", "اردو"),
        ("vi", "Tiếng Việt"),
        ("yo", "Yorùbá"),
        ("zh", "中文"),
        ("zu", "isiZulu"),
    ];
    let primary = tag.split('-').next().unwrap_or(tag);
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(primary)).map_or(tag, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_language_that_we_speak_is_chosen() {
        for (header, chosen) in [
            ("fr-CA,fr;q=0.9,en;q=0.8", Some(Language::French)),
            ("de, es;q=0.5, ar;q=0.7", Some(Language::Arabic)),
            ("de, ja", None),
            ("en;q=0, es;q=0.1", Some(Language::Spanish)),
            ("es, fr", Some(Language::Spanish)),
            ("*;q=x,,;", None),
        ] {
            assert_eq!(Language::accepted(header), chosen, "{header}");
        }
    }

    #[test]
    fn languages_written_from_the_right_are_known_and_others_left_to_the_text() {
        assert_eq!(direction_of(Some("ar-EG")), "rtl");
        assert_eq!(direction_of(Some("en")), "auto");
        assert_eq!(direction_of(None), "auto");
        assert_eq!((name_of("sw-KE"), name_of("tlh")), ("Kiswahili", "tlh"));
    }
}
