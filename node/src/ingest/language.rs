//! Language tags as files write them (`eng`, `fre`, `EN_us`, `pt-br`), to BCP 47 in its shortest form.

use isolang::Language;
use oxilangtag::LanguageTag;

/// The BCP 47 tag that `raw` means, or `None` if it means none.
pub(super) fn bcp47(raw: &str) -> Option<String> {
    let raw = raw.trim().trim_matches('\0').replace('_', "-");
    let (primary, rest) = raw.split_once('-').map_or((raw.as_str(), ""), |(primary, rest)| (primary, rest));
    let primary = primary.to_ascii_lowercase();
    let language = match primary.len() {
        2 => Language::from_639_1(&primary)?,
        3 => Language::from_639_3(bibliographic_to_terminologic(&primary))?,
        _ => return None,
    };
    if matches!(language, Language::Und | Language::Mul | Language::Zxx | Language::Mis) {
        return None;
    }
    let shortest = language.to_639_1().unwrap_or_else(|| language.to_639_3());
    let tag = if rest.is_empty() { shortest.to_owned() } else { format!("{shortest}-{rest}") };
    // A bad region or script does not make the language unknown.
    let normal = LanguageTag::parse_and_normalize(&tag).map_or_else(|_| shortest.to_owned(), LanguageTag::into_inner);
    Some(normal)
}

/// ISO 639-2 has two codes for twenty languages; media files use either.
fn bibliographic_to_terminologic(code: &str) -> &str {
    match code {
        "alb" => "sqi",
        "arm" => "hye",
        "baq" => "eus",
        "bur" => "mya",
        "chi" => "zho",
        "cze" => "ces",
        "dut" => "nld",
        "fre" => "fra",
        "geo" => "kat",
        "ger" => "deu",
        "gre" => "ell",
        "ice" => "isl",
        "mac" => "mkd",
        "mao" => "mri",
        "may" => "msa",
        "per" => "fas",
        "rum" => "ron",
        "slo" => "slk",
        "tib" => "bod",
        "wel" => "cym",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_the_shortest_bcp47() {
        for (raw, tag) in [
            ("eng", Some("en")),
            ("fre", Some("fr")),
            ("fra", Some("fr")),
            ("EN_us", Some("en-US")),
            ("pt-br", Some("pt-BR")),
            ("zh-hans", Some("zh-Hans")),
            ("swa", Some("sw")),
            ("tpi", Some("tpi")),
            ("und", None),
            ("English", None),
            ("en-!!", Some("en")),
            ("", None),
            ("xx", None),
            ("日本", None),
        ] {
            assert_eq!(bcp47(raw).as_deref(), tag, "{raw}");
        }
    }
}
