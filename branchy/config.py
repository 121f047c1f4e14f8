"""Settings: flag > environment `BRANCHY_*` > `branchy.toml` > default, resolved once into frozen typed objects.

A command calls `load` with the flags that were given; nothing else in branchy reads its settings
from the environment or a file. (`branchy broker start` also takes `KAFKA_HOME`, `JAVA_HOME` and `XDG_CACHE_HOME`.)
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from branchy.core.deadline import LONGEST_GRACE_S
from branchy.core.topics import NOT_FOR_ANSWERS
from branchy.errors import ConfigError

DEFAULT_FILE = Path("branchy.toml")
BROKER_FILE = Path(".branchy") / "broker.json"
"""Where `branchy broker start` writes its address, and where clients look when no broker is named."""


def _brokers(value: str) -> str:
    for item in value.split(","):
        host, colon, port = item.strip().rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("expected HOST:PORT[,HOST:PORT...]")
    return value


def _for_answers(value: str) -> str:
    if value.endswith(NOT_FOR_ANSWERS):
        raise ValueError(f"expected a topic for answers, none that ends in {' or '.join(NOT_FOR_ANSWERS)}")
    return value


def _split(value: Any) -> Any:
    return tuple(item.strip() for item in value.split(",")) if isinstance(value, str) else value


Brokers = Annotated[str, AfterValidator(_brokers)]
ReplyTopic = Annotated[str, Field(pattern=r"^branchy\.[A-Za-z0-9._-]{1,240}$"), AfterValidator(_for_answers)]
"""Begins as all of branchy's topics, and is none of those for something else: tiers send no answer anywhere else."""

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names with commas between, or a list of them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class LinkSettings(_Frozen):
    """One side's brokers and how to talk to them.

    Attributes:
        brokers: `HOST:PORT[,...]`; None takes what `branchy broker start` wrote on this machine.
        security: Kafka's security protocol.
        ca_file: certificate authority (PEM).
        certificate_file: own certificate (PEM), for mutual TLS, with
        key_file: its key (PEM).
        sasl_mechanism: how to log in.
        username: who logs in.
        password: of that user; from the environment or
        password_file: a file that holds nothing else.
        group_protocol: Kafka's `classic` or `consumer` (KIP-848); None takes what fits the brokers.
        compression: what librdkafka compresses request bodies with.
        options: more of librdkafka's own settings, by its dotted names; they win. They may be secrets.
    """

    brokers: Brokers | None = None
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    group_protocol: Literal["classic", "consumer"] | None = None
    compression: Literal["none", "lz4", "zstd"] = "none"
    options: Mapping[str, str] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _security_is_whole(self) -> LinkSettings:
        """Refuse what would be left unused: who names an authority or a password does not want to do without."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if not self.security.endswith("SSL") and (unused := given & {"ca_file", "certificate_file", "key_file"}):
            raise ValueError(f"{', '.join(sorted(unused))} needs security SSL or SASL_SSL, got {self.security}")
        if not self.security.startswith("SASL") and (
            unused := given & {"sasl_mechanism", "username", "password", "password_file"}
        ):
            raise ValueError(
                f"{', '.join(sorted(unused))} needs security SASL_SSL or SASL_PLAINTEXT, got {self.security}"
            )
        if len(given & {"certificate_file", "key_file"}) == 1:
            raise ValueError("certificate_file and key_file go together; one file may hold both")
        if {"password", "password_file"} <= given:
            raise ValueError("password and password_file are two ways to give the same; give one of them")
        if self.security.startswith("SASL"):
            missing = [n for n in ("sasl_mechanism", "username") if getattr(self, n) is None]
            if self.password is None and self.password_file is None:
                missing.append("password or password_file")
            if missing:
                raise ValueError(f"security {self.security} also needs {', '.join(missing)}")
        return self


class HealthSettings(_Frozen):
    """Where a tier tells how it is (`/healthz`, `/readyz`, `/metrics`).

    Attributes:
        port: TCP port; 0 for none.
        host: address it listens on. Probes and Prometheus come from outside a container, so it is all of IPv4's
            unless told; `::` is IPv6's and IPv4's, `127.0.0.1` this machine's own. Nobody is asked who they are.
    """

    port: int = Field(default=0, ge=0, le=65535)
    host: str = Field(default="0.0.0.0", min_length=1)


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="BRANCHY_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `load` has put it together from everywhere."""
        return (init_settings,)


class ServeSettings(_Settings):
    """What a tier needs to know.

    Attributes:
        bundle: the bundle's directory.
        tier: the stages it runs, consecutive; or `full` for the whole model.
        back: brokers towards the device.
        front: brokers towards the cloud; left out, the same as the back.
        cascade: name in the topics; None takes the bundle's.
        replica: this replica's ordinal or name (picks its reply partition); replicas of a tier need different ones.
        format: which form of the stages is run; `auto` times those there are and takes the quickest that is accurate.
        threads: threads an engine may use for one batch.
        batch_size: most samples in one batch.
        pending: most requests that may wait for the front.
        backlog: most requests that may wait to be computed, before the back queue is paused.
        window_s: sliding window of the circuit breaker.
        probe_s: how often an open breaker lets a request through.
        way_back_ms: kept of each deadline for the answer's own way.
        reply_topic: where the front's answers come back; None takes the one that the tier's replicas share.
        health: the port for probes and metrics.
    """

    bundle: Path
    tier: Names = Field(min_length=1)
    back: LinkSettings = LinkSettings()
    front: LinkSettings | None = None
    cascade: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,80}$")
    replica: str = "0"
    format: Literal["auto", "litert", "litert-float16", "litert-int8", "keras"] = "litert"
    threads: int = Field(default=1, ge=1, le=256)
    batch_size: int = Field(default=32, ge=1, le=4096)
    pending: int = Field(default=1024, ge=1)
    backlog: int = Field(default=2048, ge=1)
    window_s: float = Field(default=10.0, gt=0)
    probe_s: float = Field(default=2.0, gt=0)
    way_back_ms: float = Field(default=10.0, ge=0, le=10_000)
    reply_topic: ReplyTopic | None = None
    health: HealthSettings = HealthSettings()


class DeviceSettings(_Settings):
    """What a device needs to know.

    Attributes:
        bundle: the bundle's directory (its digest, input and labels).
        back: brokers of the tier it sends to.
        tier: the tier it sends to; None takes the first stage's.
        cascade: name in the topics; None takes the bundle's.
        replica: this device's name (picks its reply partition).
        deadline_ms: the budget each request carries.
        grace_ms: how long after its deadline an answer is still taken.
        connect_timeout_s: how long to wait for the brokers at the start.
        reply_topic: where the answers come back; None takes the one that all devices share, and may read.
    """

    bundle: Path
    back: LinkSettings = LinkSettings()
    tier: str | None = None
    cascade: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,80}$")
    replica: str = "device"
    deadline_ms: float = Field(default=1000.0, gt=0, le=30_000)
    grace_ms: float = Field(default=1000.0, ge=0, le=LONGEST_GRACE_S * 1e3)
    connect_timeout_s: float = Field(default=10.0, gt=0, le=600)
    reply_topic: ReplyTopic | None = None


class ProbeSettings(_Settings):
    """What `branchy health` needs to know: where the tier tells how it is."""

    health: HealthSettings = HealthSettings()


_S = TypeVar("_S", ServeSettings, DeviceSettings, ProbeSettings)
_L = TypeVar("_L", ServeSettings, DeviceSettings)
_KINDS: dict[str, type[_Settings]] = {"serve": ServeSettings, "device": DeviceSettings}
_PARTS: dict[str, type[_Frozen]] = {"back": LinkSettings, "front": LinkSettings, "health": HealthSettings}
"""Settings that have settings."""


def load(kind: type[_S], flags: Mapping[str, Any], file: Path | None = None) -> _S:
    """Resolve the settings of one command, once.

    The file holds settings at its top (`bundle`, `[back]`, `[front]`, ...) for every command, and in
    `[serve]` and `[device]` those of one.

    Args:
        kind: which settings.
        flags: what was given on the command line, by setting name (links as nested mappings);
            None stands for "not given".
        file: the settings file; None reads `branchy.toml` where there is one.

    Returns:
        The settings, with brokers filled in from what `branchy broker start` wrote where none are named.

    Raises:
        ConfigError: the file cannot be read, or a value is wrong, missing or unknown; the message
            names the setting, what was expected, and where the value came from.
    """
    if file is not None and not file.is_file():
        raise ConfigError(f"settings file {file}: expected a TOML file, found none")
    path = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    sources: dict[str, dict[str, Any]] = {
        f"file {path}": _from_file(path, kind) if path else {},
        "the environment": _from_environment(kind),
        "the command line": _given(flags),
    }
    merged: dict[str, Any] = {}
    for values in sources.values():
        merged = _merge(merged, values)
    try:
        settings = kind(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind, sources)) from None
    return settings if isinstance(settings, ProbeSettings) else _with_brokers(settings)


def load_variables(variables: Mapping[str, str]) -> ServeSettings:
    """A tier's settings as it resolves them elsewhere, where it has these variables, and neither flags nor a file.

    Raises:
        ConfigError: a value is wrong, missing or unknown, or no setting is named like a `BRANCHY_*` variable.
    """
    own = {name: value for name, value in variables.items() if name.startswith("BRANCHY_")}
    known = {f"BRANCHY_{name.upper()}" for kind in _KINDS.values() for name in kind.model_fields}
    parts = tuple(f"BRANCHY_{name.upper()}_" for name in _PARTS)  # what follows is checked with the rest
    if unknown := sorted(name for name in own if name not in known and not name.startswith(parts)):
        raise ConfigError(f"no setting is named {', '.join(unknown)}")
    source = EnvSettingsSource(ServeSettings)
    source.env_vars = {name.lower(): value for name, value in own.items()}
    try:
        values = source()
        return ServeSettings(**values)
    except SettingsError as error:
        raise ConfigError(str(error)) from None
    except ValidationError as error:
        raise ConfigError(_explain(error, ServeSettings, {"its variables": values})) from None


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merge(out[key], value) if both else value
    return out


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    out = {k: _given(v) if isinstance(v, Mapping) else v for k, v in values.items() if v is not None}
    return {k: v for k, v in out.items() if not (isinstance(v, dict) and not v)}


def _from_environment(kind: type[_Settings]) -> dict[str, Any]:
    try:
        return EnvSettingsSource(kind)()
    except SettingsError as error:
        raise ConfigError(f"the environment: {error}") from None


def _from_file(path: Path, kind: type[_Settings]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path}: expected TOML: {error}") from None
    known = {name for k in _KINDS.values() for name in k.model_fields}
    unknown = sorted(set(data) - known - set(_KINDS))
    if unknown:
        raise ConfigError(
            f"settings file {path}: unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    own: dict[str, Any] = {}
    for section, other in _KINDS.items():
        values = data.pop(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"settings file {path}: [{section}] must be a table")
        if other is kind:
            own = values
    return _merge({k: v for k, v in data.items() if k in kind.model_fields}, own)


def _explain(error: ValidationError, kind: type[_Settings], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """One line: of each setting that is wrong what was expected, what was found and where it came from."""
    texts = []
    for wrong in error.errors():
        unknown = wrong["type"] == "extra_forbidden"
        message = _unknown(kind, wrong["loc"]) if unknown else wrong["msg"]
        texts.append(_explain_one(wrong["loc"], message, sources, tells_value=not unknown))
    return "; ".join(texts)


def _explain_one(
    loc: tuple[int | str, ...], message: str, sources: Mapping[str, Mapping[str, Any]], *, tells_value: bool
) -> str:
    name = ".".join(str(part) for part in loc)
    found = {origin: value for origin, values in sources.items() if (value := _at(values, loc)) is not None}
    if found:
        origin, value = list(found.items())[-1]
        if isinstance(value, Mapping):  # a rule over several settings, which may come from several places
            return f"setting {name} from {' and '.join(found)}: {message}"
        got = f", got {value!r:.80}" if tells_value and not _is_secret(name) else ""
        return f"setting {name} from {origin}: {message}{got}"
    variable = "BRANCHY_" + "_".join(str(part) for part in loc).upper()
    return f"setting {name}: {message}; give the flag, set {variable}, or write it into {DEFAULT_FILE}"


def _unknown(kind: type[_Settings], loc: tuple[int | str, ...]) -> str:
    """What to say of a name that no setting has. Its value is never told: it may be a misspelt one's password."""
    fields = (_PARTS[str(loc[0])] if len(loc) > 1 else kind).model_fields
    nearest = difflib.get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.75)
    return f"unknown setting; did you mean {nearest[0]}?" if nearest else f"unknown setting; known: {', '.join(fields)}"


def _is_secret(name: str) -> bool:
    return "password" in name or "options" in name


def _at(values: Any, loc: tuple[int | str, ...]) -> Any:
    for part in loc:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _with_brokers(settings: _L) -> _L:
    """Brokers that are not named: for the back those of this machine, for the front the back's."""
    if settings.back.brokers is None:
        update = {"back": settings.back.model_copy(update={"brokers": _local_brokers(settings.back.security)})}
        settings = settings.model_copy(update=update)
    if isinstance(settings, ServeSettings) and settings.front is not None and settings.front.brokers is None:
        front = settings.front.model_copy(update={"brokers": settings.back.brokers})
        settings = settings.model_copy(update={"front": front})
    return settings


def _local_brokers(security: str) -> str:
    """Those that `branchy broker start` wrote, if they take this security protocol."""
    try:
        record = json.loads(BROKER_FILE.read_text(encoding="utf-8"))
        brokers, wanted = str(record["brokers"]), str(record.get("security", security))
        if wanted != security:
            raise ConfigError(
                f"the broker on this machine takes {wanted}, and the setting back.security is {security}; give "
                f"--config {record['data']}/users/USER.toml, or what it says in another way"
            )
        return brokers
    except FileNotFoundError:
        raise ConfigError(
            "no brokers named: give --back HOST:PORT, set BRANCHY_BACK_BROKERS, or start some on this machine "
            "with: branchy broker start --embedded"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{BROKER_FILE}: expected what `branchy broker start` writes: {error!r}") from None
