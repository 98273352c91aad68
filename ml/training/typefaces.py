"""Typefaces and words for the synthetic pages.

Fonts come from the machine (Debian packages in README.md), words from the licence texts that every Debian has.
The faces in HELD_OUT are never drawn while training: the held-out pages show letters that the model has not seen.
"""
import glob
from functools import lru_cache

from PIL import ImageFont

SCRIPTS = {
    "latin": None,
    "cyrillic": (0x410, 0x44F),
    "greek": (0x3B1, 0x3C9),
    "arabic": (0x627, 0x64A),
    "hebrew": (0x5D0, 0x5EA),
    "devanagari": (0x915, 0x939),
    "cjk": (0x4E00, 0x9000),
}
SCRIPT_WEIGHTS = [6, 2, 1, 1, 1, 1, 2]

LATIN_FAMILIES = ("dejavu", "liberation", "freefont", "carlito", "caladea", "libertine", "urw", "lato", "open-sans", "roboto",
                  "notosans-", "notoserif-", "notomono")
NOT_LETTERS = ("symbol", "dingbat", "d05", "s05", "initials", "keyboard", "condensed-black")
GREEK_AND_CYRILLIC = ("dejavu", "liberation", "free", "noto", "libertine", "roboto", "carlito", "open")
OTHER_FAMILIES = {
    "arabic": ("notosansarabic", "notonaskharabic-", "notokufi", "amiri", "scheherazade"),
    "hebrew": ("notosanshebrew-", "notoserifhebrew-", "notorashi"),
    "devanagari": ("notosansdevanagari-", "notoserifdevanagari-"),
    "cjk": ("notosanscjk", "notoserifcjk"),
}
HELD_OUT = ("libertine", "caladea", "roboto", "c059", "lato", "freeserif", "notoserif", "naskh", "rashi", "amiri")

FONT_FILES = sorted(path for kind in ("ttf", "otf", "ttc") for path in glob.glob(f"/usr/share/fonts/**/*.{kind}", recursive=True))


def _of(families):
    return [path for path in FONT_FILES if any(name in path.lower() for name in families)]


def _faces(script):
    if script in OTHER_FAMILIES:
        return _of(OTHER_FAMILIES[script])
    latin = [path for path in _of(LATIN_FAMILIES) if not any(name in path.lower() for name in NOT_LETTERS)]
    if script == "latin":
        return latin
    return [path for path in latin if any(name in path.lower() for name in GREEK_AND_CYRILLIC)]


@lru_cache(maxsize=None)
def faces(script, held_out):
    """The font files for `script`, either only the held-out ones or only the others."""
    found = [path for path in _faces(script) if any(name in path.lower() for name in HELD_OUT) == held_out]
    if not found:
        raise SystemExit(f"no {'held-out ' if held_out else ''}font for {script}: install the packages in README.md")
    return found


@lru_cache(maxsize=1500)
def font(path, size):
    return ImageFont.truetype(path, size)


def _words():
    text = []
    for path in sorted(glob.glob("/usr/share/common-licenses/*")):
        with open(path, errors="ignore") as licence:
            text += licence.read().split()
    return text


WORDS = _words()


def pick_script(rng):
    return rng.choices(list(SCRIPTS), SCRIPT_WEIGHTS)[0]


def pick_font(rng, held_out, script, size):
    return font(rng.choice(faces(script, held_out)), size)


def word(script, rng):
    letters = SCRIPTS[script]
    if letters is None:
        return rng.choice(WORDS)
    length = rng.randint(4, 14) if script == "cjk" else rng.randint(2, 9)
    return "".join(chr(rng.randint(*letters)) for _ in range(length))


def words(script, rng, count, longest=40):
    return " ".join(word(script, rng)[:longest] for _ in range(count))
