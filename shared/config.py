"""The configuration: read once at start, checked as a whole, then passed around frozen.

Each source overrides those before it: defaults, the YAML file, environment variables
(``HAILO_CLIP__QUEUE__MAX_DEPTH=20``), command-line flags. An unknown key or a value that is not allowed
stops the start; the message names the key, the value, where it came from and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hailo_clip.shared.config_paths import (
    backend_endpoint,
    frontend_endpoint,
    run_dir,
    state_dir,
)
from hailo_clip.shared.config_schema import (
    ENV_PREFIX,
    SECTIONS,
    SETTINGS,
    Auth,
    Broker,
    Cache,
    Config,
    Labels,
    Log,
    Model,
    Queue,
    Server,
    Setting,
    Workers,
    reference,
)
from hailo_clip.shared.config_yaml import read_yaml, write_yaml
from hailo_clip.shared.errors import ConfigError

__all__ = [
    "ENV_PREFIX",
    "SETTINGS",
    "SYSTEM_FILE",
    "Auth",
    "Broker",
    "Cache",
    "Config",
    "Labels",
    "Log",
    "Model",
    "Queue",
    "Server",
    "Setting",
    "Workers",
    "backend_endpoint",
    "dump_config",
    "frontend_endpoint",
    "load_config",
    "reference",
    "run_dir",
    "state_dir",
]

SYSTEM_FILE = Path("/etc/hailo/hailo-clip.yaml")
FILE_VARIABLE = "HAILO_CLIP_CONFIG"


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody gave: still unchecked, with where it came from."""

    key: str
    value: object
    origin: str


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    system_file: Path = SYSTEM_FILE,
) -> Config:
    """The configuration from all sources.

    Args:
        path: the file of --config; it must exist. None: $HAILO_CLIP_CONFIG, which must exist too, else
            `system_file` if there is one, else defaults.
        environ: environment variables; None: this process's.
        overrides: values of command-line flags by dotted key; None as a value means "not given".
        system_file: where the machine's own configuration lies.

    Raises:
        ConfigError: with one line for each thing that is wrong.
    """
    env = os.environ if environ is None else environ
    problems: list[str] = []
    values: dict[str, _Given] = {}
    for given in _given(path, env, overrides or {}, system_file, problems):
        checked = _check(given, problems)
        if checked is not None:
            values[given.key] = checked
    problems += _disagreements(values)
    if problems:
        raise ConfigError("\n".join(problems))
    return _assemble({key: given.value for key, given in values.items()})


def dump_config(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal `Config`."""
    plain = {
        section: {key: _plain(value) for key, value in settings.items()}
        for section, settings in dataclasses.asdict(config).items()
    }
    return write_yaml(plain)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _assemble(values: Mapping[str, Any]) -> Config:
    """A `Config` with `values` by dotted key over the defaults."""
    sections = {
        name: cls(**{key.split(".")[1]: v for key, v in values.items() if key.startswith(f"{name}.")})
        for name, cls in SECTIONS.items()
    }
    return Config(**sections)


def _given(
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
    system_file: Path,
    problems: list[str],
) -> Iterator[_Given]:
    """Every value given, weakest source first."""
    yield from _from_file(path, env, system_file, problems)
    yield from _from_environment(env, problems)
    for key, value in overrides.items():
        if value is not None:
            declared = SETTINGS.get(key)
            yield _Given(key, value, (declared and declared.flag) or "the command line")


def _from_file(
    path: Path | None, env: Mapping[str, str], system_file: Path, problems: list[str]
) -> Iterator[_Given]:
    file, named_by = path, "--config"
    if file is None and env.get(FILE_VARIABLE):
        file, named_by = Path(env[FILE_VARIABLE]), f"${FILE_VARIABLE}"
    try:
        text = (file or system_file).read_text(encoding="utf-8")
    except FileNotFoundError:
        if file is not None:
            raise ConfigError(f"{named_by} names {file}, which does not exist") from None
        return
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file or system_file} cannot be read: {e}") from e
    yield from _from_text(text, f"{file or system_file}", problems)


def _from_text(text: str, origin: str, problems: list[str]) -> Iterator[_Given]:
    try:
        raw = read_yaml(text)
    except ValueError as e:
        raise ConfigError(f"{origin}: {e}") from e
    if raw is None:
        return
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin} must hold sections such as 'server:', it holds {_short(raw)}")
    for section, settings in raw.items():
        if section not in SECTIONS:
            problems.append(_unknown(str(section), origin))
        elif isinstance(settings, dict):
            yield from (_Given(f"{section}.{key}", value, origin) for key, value in settings.items())
        elif settings is not None:
            problems.append(
                f"{section} = {_short(settings)} ({origin}): must hold settings such as 'key: value'"
            )


def _from_environment(env: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    for variable in sorted(v for v in env if v.startswith(ENV_PREFIX)):
        key = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        declared = SETTINGS.get(key)
        if declared is None:
            problems.append(_unknown(key, f"environment variable {variable}"))
            continue
        try:
            value = declared.kind.from_text(env[variable])
        except ValueError as e:
            problems.append(_not_allowed(declared, env[variable], f"environment variable {variable}", str(e)))
            continue
        yield _Given(key, value, f"environment variable {variable}")


def _check(given: _Given, problems: list[str]) -> _Given | None:
    """`given` with its value checked, or None with one more problem."""
    declared = SETTINGS.get(given.key)
    if declared is None:
        problems.append(_unknown(given.key, given.origin))
        return None
    try:
        value = declared.kind.check(given.value)
    except ValueError:
        problems.append(_not_allowed(declared, given.value, given.origin))
        return None
    return dataclasses.replace(given, value=value)


def _disagreements(values: Mapping[str, _Given]) -> Iterator[str]:
    """What is wrong between settings that are fine alone."""
    keys = values.get("broker.curve_keys")
    for name in ("broker.frontend", "broker.backend"):
        given = values.get(name)
        if given and str(given.value).startswith("tcp://") and (keys is None or keys.value is None):
            yield (
                f"{name} = {_short(given.value)} ({given.origin}): tcp:// needs broker.curve_keys, "
                "else anybody on the network could read and send requests"
            )
    front, back = values.get("broker.frontend"), values.get("broker.backend")
    if front and back and front.value is not None and front.value == back.value:
        yield f"broker.backend = {_short(back.value)} ({back.origin}): must differ from broker.frontend"


def _unknown(key: str, origin: str) -> str:
    """The message for a key that is no setting, with the nearest one that is."""
    if key in SECTIONS:
        inside = [known for known in SETTINGS if known.startswith(f"{key}.")]
        return f"{key} ({origin}): is a section, its settings are {', '.join(inside)}"
    near = difflib.get_close_matches(key, [*SETTINGS, *SECTIONS], n=1, cutoff=0.7)
    if not near:  # right name, wrong section
        near = [known for known in SETTINGS if known.split(".")[1] == key.rsplit(".", maxsplit=1)[-1]][:1]
    hint = f"did you mean {near[0]}?" if near else f"the sections are {', '.join(SECTIONS)}"
    return f"{key} ({origin}): there is no such setting; {hint}"


def _not_allowed(declared: Setting, value: object, origin: str, why: str = "") -> str:
    because = f" ({why})" if why else ""
    hint = ""
    words = getattr(declared.kind, "words", ())
    near = difflib.get_close_matches(str(value).lower(), words, n=1)
    if near:
        hint = f"; did you mean {near[0]}?"
    return f"{declared.key} = {_short(value)} ({origin}): must be {declared.kind.allowed}{because}{hint}"


def _short(value: object) -> str:
    """`value` in at most 80 printable characters."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
