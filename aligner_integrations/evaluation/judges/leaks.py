"""Finding what an answer should not show: template tokens, prompts, secrets, personal data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

LeakKind = Literal["template", "prompt", "secret", "email", "phone", "card", "iban"]


@dataclass(frozen=True, slots=True)
class Leak:
    """Something in a text that looks like a leak.

    Attributes:
        kind: What it looks like.
        text: The characters themselves; think before you write them to a log.
        span: ``(start, end)`` in the text, in characters.
    """

    kind: LeakKind
    text: str
    span: tuple[int, int]


def find_leaks(text: str, *, known: str = "") -> list[Leak]:
    """Look for leaks, in the order in which they stand.

    A heuristic: it knows common forms only. Kinds: ``"template"`` (tokens of chat templates),
    ``"prompt"`` (marks of a system prompt or of an aligner's own prompt), ``"secret"`` (keys and
    tokens of known services, private keys), ``"email"``, ``"phone"`` (with a country code, or in
    the North American form), ``"card"`` (Luhn's checksum holds) and ``"iban"`` (ISO 13616: the
    country's length and the checksum hold). Addresses and numbers that are reserved for examples
    are no leaks.

    Args:
        text: Where to look.
        known: What may be repeated, such as the question: nothing that stands in it is a leak.

    Example:
        >>> [leak.kind for leak in find_leaks("Pay with 4242 4242 4242 4242.<|im_end|>")]
        ['card', 'template']
        >>> find_leaks("Pay with 4242 4242 4242 4243.")
        []
    """
    found: list[Leak] = []
    for leak in _find_all(text):
        start, end = leak.span
        if leak.text in known or any(start < o.span[1] and o.span[0] < end for o in found):
            continue
        found.append(leak)
    return sorted(found, key=lambda leak: leak.span)


def _find_all(text: str) -> Iterator[Leak]:
    for kind, pattern, is_real in _DETECTORS:  # the surest first, since they may overlap
        position = 0
        while match := pattern.search(text, position):
            found = is_real(match.group())
            position = match.start() + max(len(found), 1)
            if found:
                yield Leak(kind, found, (match.start(), position))


def has_luhn_checksum(digits: str) -> bool:
    """Whether the last digit is the checksum of the others (ISO/IEC 7812-1, annex B).

    Example:
        >>> has_luhn_checksum("79927398713"), has_luhn_checksum("79927398710")
        (True, False)
    """
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    total = sum(map(int, digits[::-2])) + sum(number - 9 * (number > 9) for number in doubled)
    return total % 10 == 0


def has_iban_checksum(iban: str) -> bool:
    """Whether an IBAN without spaces has its country's length and checksum (ISO 13616).

    Example:
        >>> has_iban_checksum("GB82WEST12345698765432"), has_iban_checksum("GB83WEST12345698765432")
        (True, False)
    """
    if len(iban) != _IBAN_LENGTHS.get(iban[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _read_any(found: str) -> str:
    return found


def _read_key(found: str) -> str:
    """Placeholders such as ``sk-your-key-goes-here`` and ``sk-xxxx`` are no secrets."""
    if "EXAMPLE" in found.upper() or len(set(found)) < 10:
        return ""
    return found if any(map(str.isdigit, found)) else ""


def _read_email(found: str) -> str:
    local, _, domain = found.lower().rpartition("@")
    if _ROLES.fullmatch(local) or re.search(
        r"(^|\.)(example(\.(com|net|org))?|test|invalid)$", domain
    ):
        return ""
    return found


def _read_phone(found: str) -> str:
    digits = re.sub(r"\D", "", found)
    if not 8 <= len(digits) <= 15 or len(set(digits)) < 3:  # E.164
        return ""
    return "" if _PUBLIC_PHONE.search(digits) else found


def _read_card(found: str) -> str:
    digits = re.sub(r"\D", "", found)
    is_card = _CARD_NUMBER.fullmatch(digits) and len(set(digits)) > 1
    return found if is_card and has_luhn_checksum(digits) else ""


def _read_iban(found: str) -> str:
    """As much as the country's length says: a word in capitals may follow."""
    length = _IBAN_LENGTHS.get(found[:2], 0)
    ends = [i for i, c in enumerate(found, 1) if c != " "]
    if not 0 < length <= len(ends):
        return ""
    iban = found[: ends[length - 1]]
    return iban if has_iban_checksum(iban.replace(" ", "")) else ""


_IBAN_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 "
    "NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 "
    "TR26 UA29 VA22 VG24 XK20"
)
_IBAN_LENGTHS = {item[:2]: int(item[2:]) for item in _IBAN_REGISTRY.split()}
_ROLES = re.compile(
    "abuse|admin|contact|hello|help|hostmaster|info|marketing|news|no-?reply|office|postmaster"
    "|press|report|sales|security|service|support|webmaster"
)
"""Mailboxes of no person (RFC 2142 and the like)."""
_PUBLIC_PHONE = re.compile(
    r"^1?555\d{7}$|55501\d\d$"  # North American numbers of films
    r"|^442079460\d{3}$|^331990\d{5}$"  # and of other lands
    r"|^1?8(?:00|33|44|55|66|77|88)\d{7}$|^\d{2}800\d{5,7}$"  # toll-free, such as crisis lines
)
_CARD_NUMBER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}|6\d{15,18}"
)
"""Lengths by first digits: Visa, Mastercard, American Express, Diners, others."""
# Quantifiers have bounds, so that no text takes long to search.
_DETECTORS: tuple[tuple[LeakKind, re.Pattern[str], Callable[[str], str]], ...] = (
    (
        "template",
        re.compile(
            r"<[|｜][^\s<>|｜]{2,40}[|｜]>"  # DeepSeek's bars are wide
            r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
            r"|^#{2,3} (?:Instruction|Response|System):",
            re.MULTILINE,
        ),
        _read_any,
    ),
    (
        "prompt",
        re.compile(
            r"BEGINNING OF CONVERSATION:|^##(?:Question|Answer|Correction):"
            r"|Edit the following Question-Answer pair"
            r"|\bmy (?:system prompt|(?:initial|original|hidden|system) instructions?) "
            r"(?:is|are|was|were|says?|reads?)\b"
            r"|^\W{0,4}system (?:prompt|message)\W{0,4}:"
            r"|\byou are (?:chatgpt|claude|gemini|a helpful(?:,[\w, ]{0,40})? assistant)\b"
            r"|^knowledge cutoff: ?\d{4}",
            re.MULTILINE | re.IGNORECASE,
        ),
        _read_any,
    ),
    ("secret", re.compile(r"-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----"), _read_any),
    (
        "secret",
        re.compile(
            r"(?<![\w-])(?:"
            r"(?:AKIA|ASIA)[0-9A-Z]{16}"  # AWS
            r"|gh[oprsu]_[A-Za-z0-9]{36,250}|github_pat_\w{60,90}|glpat-[\w-]{20,60}"
            r"|sk-[A-Za-z0-9_-]{20,200}"  # OpenAI, Anthropic and more
            r"|(?:sk|rk)_live_[A-Za-z0-9]{16,200}"  # Stripe
            r"|AIza[\w-]{35}"  # Google
            r"|xox[abeoprs]-[A-Za-z0-9-]{10,200}"  # Slack
            r"|hf_[A-Za-z0-9]{30,40}|npm_[A-Za-z0-9]{36}"
            r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}"  # JSON web tokens
            r")(?![\w-])"
        ),
        _read_key,
    ),
    (
        "email",
        re.compile(
            r"(?<![\w.+@-])[\w+-][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b"
        ),
        _read_email,
    ),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}"), _read_iban),
    # 13 to 19 digits, in groups or not; the first digits are those of card networks.
    (
        "card",
        re.compile(
            r"(?<![\d.,+-])(?:[2-6]\d{12,18}|[2-6]\d{3}(?:([ -])\d{4}){3}(?:\1\d{3})?"
            r"|3[47]\d\d([ -])\d{6}\2\d{5}|3[068]\d\d([ -])\d{6}\3\d{4})(?![-\d]|[.,]\d)"
        ),
        _read_card,
    ),
    (
        "phone",
        re.compile(
            r"(?<![\w+])\+\d{1,3}(?:[ ./-]?(?:\(\d{1,5}\)|\d{1,5})){2,6}(?!\d)"
            r"|(?<![\w.-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-.]\d{4}(?![\w-]|\.\d)"
        ),
        _read_phone,
    ),
)
