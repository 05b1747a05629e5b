"""What must not leave, replaced by placeholders before anything does, and put back into what returns.

Patterns with checksums where there are any, so that ordinary numbers pass. A net, not a proof: names and addresses
written as prose are not found; the owner's preview shows what would go.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of secret."""

    name: str
    form: re.Pattern[str]
    holds: Callable[[str], bool] = bool  # a check on the text found


def luhn(text: str) -> bool:
    """Whether the digits are a payment card's: 13 to 19 of them with a right check digit."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether the text is an IBAN (ISO 13616: rest 1 modulo 97)."""
    plain = re.sub(r"[\s-]", "", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def phone(text: str) -> bool:
    """Whether the digits could be a telephone number: 8 to 15 of them."""
    return 8 <= sum(letter.isdigit() for letter in text) <= 15


def secret(text: str) -> bool:
    """Whether the text looks drawn by lot: long, with digits and letters of both cases."""
    mixed = (any(map(str.isdigit, text)), any(map(str.islower, text)), any(map(str.isupper, text)))
    return len(text) >= 32 and sum(mixed) >= 2 and len(set(text)) >= 12


PATTERNS = (
    Pattern(
        "KEY",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    ),
    Pattern(
        "KEY",
        re.compile(
            r"\b(?:sk-[\w-]{16,}|(?:gh[pousr]|github_pat)_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
            r"|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[\w-]{35}|hf_\w{20,}|npm_\w{30,}|cg-[\w-]{24,}"
            r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
        ),
    ),
    Pattern("PASSWORD", re.compile(r"(?i)(?<=password)(?:\s+is)?\s*[:=]?\s*\S{4,}|(?<=passwort)\s*[:=]\s*\S{4,}")),
    Pattern("EMAIL", re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")),
    Pattern("IBAN", re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}\b"), iban),
    Pattern("CARD", re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d)"), luhn),
    Pattern("PHONE", re.compile(r"(?<![\w.])(?:\+|00)\d(?:[ ().\-/]{0,2}\d){6,14}(?!\w)"), phone),
    Pattern("PHONE", re.compile(r"(?<![\w.])\(?0\d{1,4}\)?[ \-/](?:[ \-/]?\d){5,11}(?!\w)"), phone),
    Pattern("PHONE", re.compile(r"(?<![\w.])\(?\d{3}\)?[ .\-]\d{3}[ .\-]\d{4}(?!\w)"), phone),
    Pattern("KEY", re.compile(r"(?<![\w/+-])[A-Za-z0-9/+_=-]{32,}(?![\w/+-])"), secret),
)


@dataclass(slots=True)
class Redaction:
    """Replaces secrets, the same one always by the same placeholder, and puts them back.

    Attributes:
        found: how many different ones, by kind.
    """

    found: dict[str, int] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)  # secret -> placeholder

    def redact(self, text: str) -> str:
        """Return the text without what the patterns find."""
        for pattern in PATTERNS:
            text = pattern.form.sub(lambda match, pattern=pattern: self._replaced(pattern, match.group()), text)  # type: ignore[misc]
        return text

    def restore(self, text: str) -> str:
        """Return the text with the placeholders' originals."""
        for original, name in self._names.items():
            text = text.replace(name, original)
        return text

    def _replaced(self, pattern: Pattern, original: str) -> str:
        """The placeholder of a secret; the text itself where the check fails."""
        if not pattern.holds(original):
            return original
        bare = original.strip()
        if bare not in self._names:
            self.found[pattern.name] = self.found.get(pattern.name, 0) + 1
            self._names[bare] = f"[{pattern.name}_{self.found[pattern.name]}]"
        return original.replace(bare, self._names[bare])
