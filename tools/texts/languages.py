"""Tags of languages, as many programs write them, made one; and which script text is in."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

SAME = {"iw": "he", "in": "id", "ji": "yi", "no": "nb", "tl": "fil", "cmn": "zh", "arb": "ar"}
SAME |= {"swh": "sw", "ory": "or", "cnr": "sr-Latn", "jp": "ja", "jw": "jv", "mo": "ro"}
USUAL = {"zh": "Hans", "sr": "Cyrl", "uz": "Latn", "az": "Latn", "bs": "Latn", "kk": "Cyrl"}
USUAL |= {"mn": "Cyrl", "pa": "Guru", "ha": "Latn", "tg": "Cyrl", "ky": "Cyrl", "ks": "Arab"}
NAMED = {"latin": "Latn", "cyrillic": "Cyrl"}
TRADITIONAL = {"TW", "HK", "MO"}
PSEUDO = re.compile(r"^(qps|und|mul|mis|zxx|xx)\b|[-_](XA|XB|ploc)\b", re.IGNORECASE)

# FLORES' name → ours
FLORES = {
    "amh_Ethi": "am",
    "arb_Arab": "ar",
    "asm_Beng": "as",
    "ben_Beng": "bn",
    "bos_Latn": "bs",
    "ceb_Latn": "ceb",
    "deu_Latn": "de",
    "ell_Grek": "el",
    "eng_Latn": "en",
    "fra_Latn": "fr",
    "guj_Gujr": "gu",
    "hau_Latn": "ha",
    "heb_Hebr": "he",
    "hin_Deva": "hi",
    "hye_Armn": "hy",
    "isl_Latn": "is",
    "ita_Latn": "it",
    "jpn_Jpan": "ja",
    "kan_Knda": "kn",
    "kat_Geor": "ka",
    "kaz_Cyrl": "kk",
    "kea_Latn": "kea",
    "khm_Khmr": "km",
    "kir_Cyrl": "ky",
    "kor_Hang": "ko",
    "mal_Mlym": "ml",
    "ory_Orya": "or",
    "rus_Cyrl": "ru",
    "som_Latn": "so",
    "spa_Latn": "es",
    "swh_Latn": "sw",
    "tam_Taml": "ta",
    "tha_Thai": "th",
    "tur_Latn": "tr",
    "urd_Arab": "ur",
    "vie_Latn": "vi",
    "zho_Hans": "zh",
    "zul_Latn": "zu",
}


def language(tag: str) -> str | None:
    """``pt_BR`` → ``pt``, ``zh-TW`` → ``zh-Hant``, ``sr@latin`` → ``sr-Latn``; None if made up.

    A region is dropped; a script is kept, but for the one that the language is usually written in.
    """
    if PSEUDO.search(tag):
        return None
    base, *rest = re.split(r"[-_@+]", tag)
    base = base.lower()
    base = SAME.get(base, base)
    script = next((p.title() for p in rest if len(p) == 4 and p.isalpha()), "")
    script = next((NAMED[p.lower()] for p in rest if p.lower() in NAMED), script)
    if base == "zh" and not script and TRADITIONAL.intersection(p.upper() for p in rest):
        script = "Hant"
    return f"{base}-{script}" if script and script != USUAL.get(base) else base


@lru_cache(maxsize=2**17)
def script(character: str) -> str | None:
    """Script of a letter (``Latin``, ``Devanagari``, ``Cjk``); None for what is no letter."""
    if not character.isalpha():
        return None
    return unicodedata.name(character, "UNKNOWN").split()[0].title()


def scripts(texts: Iterable[str]) -> Counter[str]:
    """How many letters of each script."""
    counts: Counter[str] = Counter()
    for character, count in Counter("".join(texts)).items():
        if (name := script(character)) is not None:
            counts[name] += count
    return counts
