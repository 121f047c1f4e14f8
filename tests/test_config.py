from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchy.config import BROKER_FILE, DeviceSettings, ProbeSettings, ServeSettings, load, load_variables
from branchy.errors import ConfigError

GIVEN = {"bundle": "b", "tier": "edge", "back": {"brokers": "here:1"}}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without branchy's variables."""
    import os

    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BRANCHY_"):
            monkeypatch.delenv(name)
    return tmp_path


def error_of(flags: dict, file: Path | None = None, kind=ServeSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        load(kind, flags, file)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_flag_wins_over_the_environment_and_that_over_the_file(elsewhere, monkeypatch):
    (elsewhere / "branchy.toml").write_text("pending = 1\nbatch_size = 1\nthreads = 3\n")
    monkeypatch.setenv("BRANCHY_PENDING", "2")
    monkeypatch.setenv("BRANCHY_BATCH_SIZE", "2")
    settings = load(ServeSettings, {**GIVEN, "pending": 5})
    assert (settings.pending, settings.batch_size, settings.threads) == (5, 2, 3)


def test_links_are_merged_setting_by_setting(elsewhere, monkeypatch):
    (elsewhere / "branchy.toml").write_text(
        '[back]\nusername = "u"\nsasl_mechanism = "PLAIN"\n[back.options]\n"a.b" = "c"\n'
    )
    monkeypatch.setenv("BRANCHY_BACK_PASSWORD", "secret")
    settings = load(ServeSettings, {**GIVEN, "back": {"brokers": "here:1", "security": "SASL_SSL"}})
    back = settings.back
    assert (back.username, back.security, back.options) == ("u", "SASL_SSL", {"a.b": "c"})
    assert back.password is not None
    assert back.password.get_secret_value() == "secret"
    assert "secret" not in repr(settings)


def test_each_command_reads_its_own_section_and_what_is_at_the_top(elsewhere):
    file = elsewhere / "mine.toml"
    file.write_text(
        'bundle = "x"\n[back]\nbrokers = "h:1"\n[serve]\ntier = ["edge", "fog"]\n[device]\ndeadline_ms = 50\n'
    )
    assert load(ServeSettings, {}, file).tier == ("edge", "fog")
    assert load(DeviceSettings, {}, file).deadline_ms == 50


def test_a_tier_is_given_as_names_with_commas_in_flag_and_environment(monkeypatch):
    assert load(ServeSettings, {**GIVEN, "tier": "fog, cloud"}).tier == ("fog", "cloud")
    monkeypatch.setenv("BRANCHY_TIER", "edge,fog")
    assert load(ServeSettings, {k: v for k, v in GIVEN.items() if k != "tier"}).tier == ("edge", "fog")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"pending": 0}, "setting pending from the command line: Input should be greater than or equal to 1, got 0"),
        ({"back": {"brokers": "nowhere"}}, "back.brokers from the command line"),
        ({"back": {"brokers": "h:99999"}}, "expected HOST:PORT[,HOST:PORT...]"),
        ({"cascade": "a b"}, "cascade from the command line"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(flags, words):
    assert words in error_of({**GIVEN, **flags})


def test_a_wrong_variable_is_named_as_from_the_environment(monkeypatch):
    monkeypatch.setenv("BRANCHY_THREADS", "many")
    assert "setting threads from the environment" in error_of(GIVEN)
    assert "'many'" in error_of(GIVEN)


def test_a_wrong_value_in_the_file_is_named_with_the_file(elsewhere):
    file = elsewhere / "mine.toml"
    file.write_text("probe_s = -1\n")
    assert f"setting probe_s from file {file}" in error_of(GIVEN, file)


def test_what_is_missing_says_how_to_give_it():
    text = error_of({"tier": "edge", "back": {"brokers": "h:1"}})
    assert "setting bundle" in text
    assert "BRANCHY_BUNDLE" in text
    assert "branchy.toml" in text


@pytest.mark.parametrize(
    "content", ["= 1", "typo = 1", "serve = 1", "\xff"], ids=["no TOML", "unknown", "no table", "bytes"]
)
def test_a_file_that_is_no_settings_file_is_named(elsewhere, content):
    file = elsewhere / "mine.toml"
    file.write_bytes(content.encode("latin-1"))
    assert str(file) in error_of(GIVEN, file)


def test_a_file_that_is_named_must_be_there(elsewhere):
    assert "found none" in error_of(GIVEN, elsewhere / "absent.toml")


def test_sasl_without_a_user_is_refused_and_no_secret_is_shown():
    text = error_of({**GIVEN, "back": {"brokers": "h:1", "security": "SASL_SSL", "password": "s3cret"}})
    assert "sasl_mechanism" in text
    assert "username" in text
    assert "s3cret" not in text


def test_without_brokers_those_of_this_machine_are_taken(elsewhere):
    flags = {"bundle": "b", "tier": "edge"}
    assert "branchy broker start --embedded" in error_of(flags)
    (elsewhere / BROKER_FILE).parent.mkdir()
    (elsewhere / BROKER_FILE).write_text(json.dumps({"brokers": "127.0.0.1:5"}))
    assert load(ServeSettings, flags).back.brokers == "127.0.0.1:5"
    assert load(DeviceSettings, {"bundle": "b"}).back.brokers == "127.0.0.1:5"
    (elsewhere / BROKER_FILE).write_text("{")
    assert str(BROKER_FILE) in error_of(flags)


def test_a_front_without_brokers_of_its_own_has_the_backs():
    assert load(ServeSettings, GIVEN).front is None
    settings = load(ServeSettings, {**GIVEN, "front": {"compression": "zstd"}})
    assert settings.front is not None
    assert settings.front.brokers == "here:1"


def test_settings_are_frozen():
    settings = load(ServeSettings, GIVEN)
    with pytest.raises(ValueError, match="frozen"):
        settings.pending = 3


def test_a_probe_reads_the_tiers_own_health_settings_and_needs_no_others(elsewhere, monkeypatch):
    assert load(ServeSettings, GIVEN).health.port == 0
    assert load(ProbeSettings, {}).health.port == 0
    (elsewhere / "branchy.toml").write_text('pending = 1\n[health]\nport = 9400\nhost = "::1"\n[serve]\nthreads = 3\n')
    monkeypatch.setenv("BRANCHY_HEALTH_PORT", "9401")
    monkeypatch.setenv("BRANCHY_TIER", "edge")
    for settings in (load(ServeSettings, GIVEN), load(ProbeSettings, {})):
        assert (settings.health.port, settings.health.host) == (9401, "::1")
    assert load(ProbeSettings, {"health": {"port": 5}}).health.port == 5
    assert "setting health.port from the command line" in error_of({"health": {"port": 65536}}, kind=ProbeSettings)


SASL = {"security": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "username": "u", "password": "hunter2"}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ({"ca_file": "/ca.pem"}, "ca_file needs security SSL or SASL_SSL, got PLAINTEXT"),
        ({**SASL, "security": "SASL_PLAINTEXT", "ca_file": "/ca.pem"}, "ca_file needs security SSL or SASL_SSL"),
        ({"password": "hunter2"}, "password needs security SASL_SSL or SASL_PLAINTEXT, got PLAINTEXT"),
        ({**SASL, "security": "SSL"}, "password, sasl_mechanism, username needs security SASL_SSL"),
        ({**SASL, "key_file": "/k.pem"}, "certificate_file and key_file go together; one file may hold both"),
        ({**SASL, "password_file": "/p"}, "password and password_file are two ways to give the same; give one"),
        ({"security": "SASL_SSL"}, "also needs sasl_mechanism, username, password or password_file"),
    ],
)
def test_security_that_would_be_left_unused_or_is_not_whole_is_refused_without_a_secret(link, expected):
    text = error_of({**GIVEN, "back": {"brokers": "h:1", **link}})
    assert expected in text
    assert "hunter2" not in text


def test_no_secret_shows_in_settings_or_in_what_is_wrong_with_them():
    link = {"brokers": "h:1", **SASL, "options": {"ssl.key.password": "hunter2"}}
    settings = load(ServeSettings, {**GIVEN, "back": link})
    assert settings.back.options["ssl.key.password"] == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings}"
    for wrong in ({"options": "ssl.key.password=hunter2"}, {"options": {"ssl.key.password": ["hunter2"]}}):
        assert "hunter2" not in error_of({**GIVEN, "back": {**link, **wrong}})


MISSPELT = {
    "passwd": "did you mean password?",
    "key_passphrase": "known: brokers, security, ca_file",
    "secret": "known: brokers, security, ca_file",
    "token": "known: brokers, security, ca_file",
}


@pytest.mark.parametrize("side", ["back", "front"])
@pytest.mark.parametrize("name", MISSPELT)
def test_the_value_of_a_setting_that_nobody_knows_is_not_shown_as_it_may_be_a_secret(
    elsewhere, monkeypatch, side, name
):
    said = f"unknown setting; {MISSPELT[name]}"
    assert f"setting {side}.{name} from the command line: {said}" in (
        text := error_of({**GIVEN, side: {"brokers": "h:1", name: "hunter2"}})
    )
    assert "hunter2" not in text

    (elsewhere / "branchy.toml").write_text(f'[{side}]\n{name} = "hunter2"\n')
    assert f"setting {side}.{name} from file branchy.toml: {said}" in (text := error_of(GIVEN))
    assert "hunter2" not in text
    (elsewhere / "branchy.toml").unlink()

    variable = f"BRANCHY_{side.upper()}_{name.upper()}"
    monkeypatch.setenv(variable, "hunter2")
    assert f"setting {side}.{name} from the environment: {said}" in (text := error_of(GIVEN))
    assert "hunter2" not in text
    with pytest.raises(ConfigError, match=f"setting {side}.{name} from its variables: unknown setting") as caught:
        load_variables({"BRANCHY_BUNDLE": "/b", "BRANCHY_TIER": "fog", variable: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_setting_that_one_commands_section_does_not_know_is_told_with_the_nearest(elsewhere):
    (elsewhere / "branchy.toml").write_text("[serve]\npendin = 5\n[health]\nprot = 9400\n")
    text = error_of(GIVEN)
    assert "setting pendin from file branchy.toml: unknown setting; did you mean pending?" in text
    assert "setting health.prot from file branchy.toml: unknown setting; did you mean port?" in text


@pytest.mark.parametrize("kind", [ServeSettings, DeviceSettings])
def test_a_reply_topic_of_ones_own_begins_as_all_of_branchys(kind):
    def given(topic: str) -> dict:
        return {**{name: GIVEN[name] for name in GIVEN if name in kind.model_fields}, "reply_topic": topic}

    assert load(kind, given("branchy.c.device.answers.camera")).reply_topic == "branchy.c.device.answers.camera"
    for wrong in (
        "answers",
        "branchy.",
        "other.branchy.c",
        "branchy.a b",
        "branchy.c.edge.requests",
        "branchy.c.edge.dead",
    ):
        assert "reply_topic" in error_of(given(wrong), kind=kind)


def test_a_secured_broker_of_this_machine_is_not_tried_without_its_settings(elsewhere):
    BROKER_FILE.parent.mkdir()
    BROKER_FILE.write_text('{"brokers": "127.0.0.1:9", "security": "SASL_SSL", "data": "/d"}')
    given = {name: GIVEN[name] for name in GIVEN if name != "back"}
    assert "takes SASL_SSL, and the setting back.security is PLAINTEXT; give --config /d/users/USER.toml" in error_of(
        given
    )
    assert load(ServeSettings, {**given, "back": SASL}).back.brokers == "127.0.0.1:9"


def test_a_tiers_variables_are_resolved_as_it_does_elsewhere_and_this_machines_own_stay_out(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "branchy.toml").write_text("pending = 7\n")
    monkeypatch.setenv("BRANCHY_THREADS", "4")
    own = {"BRANCHY_BUNDLE": "/b", "BRANCHY_TIER": "fog,cloud", "BRANCHY_BACK_BROKERS": "k:1", "PATH": "/bin"}
    found = load_variables(own)
    assert (found.tier, found.back.brokers, found.threads, found.pending) == (("fog", "cloud"), "k:1", 1, 1024)
    assert found.front is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BRANCHY_PENDNG", "5", "no setting is named BRANCHY_PENDNG"),
        ("BRANCHY_PENDING", "many", "setting pending from its variables: .*, got 'many'"),
        ("BRANCHY_BACK_BRKERS", "k:1", "setting back.brkers from its variables"),
        ("BRANCHY_BACK_OPTIONS", "{", "back"),
    ],
)
def test_a_variable_that_a_tier_would_refuse_is_named(name, value, words):
    with pytest.raises(ConfigError, match=words):
        load_variables({"BRANCHY_BUNDLE": "/b", "BRANCHY_TIER": "fog", name: value})
