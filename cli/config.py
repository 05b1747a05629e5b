"""The owner's settings: one frozen value, read once. Flag, then environment, then ``config.toml``, then default.

Every setting ``key`` of ``[section]`` can be given as ``CORRIGIBLE_SECTION__KEY`` in the environment.
Secrets are never settings.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from learner.conditions import Manners, problems
from store.errors import UsageError
from store.files import write_atomic

if TYPE_CHECKING:
    from store.retention import RetentionPolicy

PREFIX = "CORRIGIBLE_"
LARGEST = float("inf")
SIGNED = ("upstream.threshold",)  # the settings that may be below zero


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model is served, and how."""

    path: Path | None = None  # a GGUF; None: the embedded model
    context: int = 2048  # tokens
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatConfig:
    """How a conversation is held."""

    max_tokens: int = 256
    turns: int | None = None  # earlier turns sent along; None: 0 for the embedded model, else 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """The owner's own limits; a fleet may ask for less, never for more."""

    epsilon_cap: float = 8.0  # per correction over any year, at `delta`
    epsilon_cap_month: float | None = None  # per correction over any month; None: the year's alone
    epsilon_cap_life: float | None = None  # per correction, ever
    device_epsilon_cap: float = 8.0  # per device over any year
    delta: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Where the HTTP gateway listens and how much it takes on at once."""

    host: str = "127.0.0.1"
    port: int = 7411
    parallel: int = 4  # answers that may grow at once
    waiting: int = 16  # requests that may wait for their turn
    origins: tuple[str, ...] = ()  # web origins, besides the own page, that browsers may call from
    hosts: tuple[str, ...] = ()  # names, besides loopback ones, that it answers under
    certificate: Path | None = None  # PEM files for TLS; needed beyond loopback
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """How many days each kind is kept (at least 1); None: until the owner removes it."""

    interactions: float | None = None  # answers without a correction
    corrections: float | None = None  # corrections with the answers they correct
    ratings: float | None = None

    def policy(self) -> "RetentionPolicy":
        """The same as the store wants it. Raises UsageError for less than a day."""
        from store.retention import RetentionPolicy

        return RetentionPolicy(self.interactions, self.corrections, self.ratings)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """A bigger model that may be asked; without `url` none ever is."""

    url: str = ""  # OpenAI-compatible, ending in /v1
    model: str = ""  # the id to ask it for
    when: tuple[str, ...] = ("request",)  # request, too_long, unsure
    threshold: float | None = None  # mean log-probability per token under which an answer is unsure
    timeout: float = 20.0  # seconds
    key_file: Path | None = None  # file with its API key
    authorities: Path | None = None  # PEM file its certificate must come from


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings."""

    model: ModelConfig = field(default_factory=ModelConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    learner: Manners = field(default_factory=Manners)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read `path` (absent: defaults) and lay the environment over it.

    Raises:
        UsageError: the file is not TOML, or a section, key or value is not known.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("The settings file is not valid TOML.", hint=f"Correct {path}.", code="config") from error
    merged = {name: dict(_section(name, values)) for name, values in given.items()}
    for name, key, text in _from_environment(os.environ if environment is None else environment):
        merged.setdefault(name, {})[key] = text
    sections = get_type_hints(Config)
    for name in merged:
        _known(name, sections, "section")
    config = Config(**{name: _fill(name, sections[name], values) for name, values in merged.items()})
    for problem in problems(config.learner):
        raise UsageError(f"In the section [learner] {problem}.", code="config")
    return config


def set_model(path: Path, model: Path | None) -> None:
    """Name `model` in the settings file at `path`, None the embedded one; everything else in it stays as written.

    Raises:
        UsageError: the file cannot be read as settings.
    """
    load(path, {})
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    inside = False
    kept: list[str] = []
    for line in lines:
        inside = line.strip() == "[model]" if line.strip().startswith("[") else inside
        if not (inside and line.partition("=")[0].strip() == "path"):
            kept.append(line)
    if model is not None:
        if "[model]" not in [line.strip() for line in kept]:
            kept.append("[model]")
        place = [line.strip() for line in kept].index("[model]") + 1
        kept.insert(place, f"path = {json.dumps(str(model), ensure_ascii=False)}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, [line.encode() + b"\n" for line in kept])


def _section(name: str, values: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever TOML holds
    """Return the table called `name`."""
    if not isinstance(values, dict):
        raise UsageError(f"The setting {name!r} stands outside a section.", code="config")
    return values


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (section, key, text) of every variable of the form CORRIGIBLE_SECTION__KEY."""
    found = []
    for variable, text in environment.items():
        section, divider, key = variable.removeprefix(PREFIX).lower().partition("__")
        if variable.startswith(PREFIX) and divider:
            found.append((section, key, text))
    return found


def _known(name: str, names: Mapping[str, Any], what: str) -> None:
    """Refuse a name that is not a setting, with the nearest one that is."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
        raise UsageError(f"There is no setting {what} {name!r}.", hint=hint, code="config")


def _fill(section: str, kind: type, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of the section types
    """Build one section from raw values."""
    hints = get_type_hints(kind)
    for key in values:
        _known(key, hints, f"[{section}] key")
    wanted = {one.name: hints[one.name] for one in fields(kind)}
    return kind(**{key: _convert(f"{section}.{key}", wanted[key], value) for key, value in values.items()})


def _convert(name: str, kind: Any, value: Any) -> Any:  # noqa: ANN401 - a field's type and a raw value
    """Convert a TOML value or an environment string to the field's type; numbers must not be negative."""
    if get_origin(kind) is tuple:
        return _words(name, value)
    base = next((one for one in getattr(kind, "__args__", (kind,)) if one is not type(None)), kind)
    if base is bool:
        return _truth(name, value)
    try:
        if base is str and not isinstance(value, str):
            raise ValueError(name)
        if isinstance(value, bool) or (base is int and isinstance(value, float)):
            raise ValueError(name)
        result = base(value).expanduser() if base is Path else base(value)
        if isinstance(result, int | float) and not (-LARGEST if name in SIGNED else 0) <= result < LARGEST:
            raise ValueError(name)
    except (TypeError, ValueError) as error:
        kind_name = {Path: "a path", int: "a whole number, 0 or more", float: "a number, 0 or more", str: "text"}[base]
        raise UsageError(f"The setting {name} must be {kind_name}.", code="config") from error
    return result


def _words(name: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a raw value
    """Convert a TOML list of strings, or an environment string of them with commas between."""
    words = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise UsageError(f"The setting {name} must be a list of strings.", code="config")
    return tuple(one for one in words if one)


def _truth(name: str, value: Any) -> bool:  # noqa: ANN401 - a raw value
    """Convert true, false and their words."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in known:
        raise UsageError(f"The setting {name} must be true or false.", code="config")
    return known[str(value).lower()]
