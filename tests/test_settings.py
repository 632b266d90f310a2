"""Settings: every mistake at once, with an id and a hint, never a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield import ConfigurationError, Secret, Settings
from portalshield.settings import PREFIX, variables
from portalshield.testing.tokens import environment

SECRET = "correct-horse-battery-staple-and-more-0123456789"


def _problems(**overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environment(**overrides))
    return {problem.variable.removeprefix(PREFIX): problem.id for problem in caught.value.problems}


def test_five_wrong_variables_are_five_messages() -> None:
    """All at once, each with its own id; no value appears."""
    wrong = {
        "BODY__MAX_SIZE": "hunter2-size",
        "AUTH__LEEWAY": "hunter2-leeway",
        "CORS__ALLOW_ORIGIN": "https://hunter2.example",
        "RATE__PER_IP": "hunter2 per minute",
        "CORS__ALLOW_ORIGINS": "https://hunter2.example/path",
    }
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environment(**wrong))
    problems = caught.value.problems
    assert {problem.variable for problem in problems} == {PREFIX + name for name in wrong}
    assert all(problem.id.startswith("PS-") for problem in problems)
    assert "hunter2" not in str(caught.value)
    assert "Did you mean PORTALSHIELD_CORS__ALLOW_ORIGINS?" in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "variable", "problem"),
    [
        pytest.param({"ENV": "prod"}, "ENV", "PS-ENV-002", id="an environment that is none"),
        pytest.param({"MODE": "warn"}, "MODE", "PS-MODE-001", id="a mode that is none"),
        pytest.param({"MODE__AUTH": "report:200%"}, "MODE__AUTH", "PS-MODE-001", id="a share above one"),
        pytest.param({"AUTH__AUDIENCE": ""}, "AUTH__AUDIENCE", "PS-AUTH-003", id="no audience"),
        pytest.param({"AUTH__PUBLIC_KEY": "x"}, "AUTH", "PS-AUTH-002", id="two sources of keys"),
        pytest.param({"AUTH__LEEWAY": "10m"}, "AUTH__LEEWAY", "PS-AUTH-008", id="a leeway that forgives too much"),
        pytest.param({"TENANT__CLAIM": "/user_metadata/t"}, "TENANT__CLAIM", "PS-TENANT-001", id="a user-written claim"),
        pytest.param({"TENANT__FIELDS": ","}, "TENANT__FIELDS", "PS-TENANT-003", id="no tenant field"),
        pytest.param({"PUBLIC": "/login"}, "PUBLIC", "PS-POLICY-001", id="a pattern without a method"),
        pytest.param({"CORS__ALLOW_METHODS": "patch"}, "CORS__ALLOW_METHODS", "PS-CORS-101", id="a method in small"),
        pytest.param({"CORS__MAX_AGE": "7d"}, "CORS__MAX_AGE", "PS-CORS-103", id="an age no browser keeps"),
        pytest.param({"BODY__MAX_DEPTH": "5000"}, "BODY__MAX_DEPTH", "PS-BODY-001", id="a depth that bounds nothing"),
        pytest.param({"TRUSTED_PROXIES": "10.0.0.0/99"}, "TRUSTED_PROXIES", "PS-PROXY-001", id="no network"),
        pytest.param({"LOG__SAMPLE": "2"}, "LOG__SAMPLE", "PS-ENV-002", id="a share above one, again"),
        pytest.param({"STORAGE__MAX_KEYS": "3"}, "STORAGE__MAX_KEYS", "PS-STORE-002", id="a store that holds nothing"),
    ],
)
def test_each_mistake_has_its_id(overrides: dict[str, str], variable: str, problem: str) -> None:
    """A stable id per kind of mistake, at the variable that has it."""
    assert _problems(**overrides) == {variable: problem}


def test_units_lists_and_groups_are_read() -> None:
    """Comma lists, durations, sizes, booleans, and a name that has a value and children."""
    settings = Settings.from_env(
        environment(
            CORS__ALLOW_ORIGINS="https://a.example, https://b.example,",
            AUTH__LEEWAY="45s",
            AUTH__MAX_LIFETIME="8d",
            BODY__MAX_SIZE="2MB",
            RATE__LEGACY_HEADERS="true",
            LOG__SAMPLE="25%",
        )
    )
    assert settings.auth.preset == "jwt"
    assert settings.cors.allow_origins == ("https://a.example", "https://b.example")
    assert (settings.auth.leeway, settings.auth.max_lifetime) == (45, 8 * 86400)
    assert (settings.body.max_size, settings.rate.legacy_headers, settings.log.sample) == (2_000_000, True, 0.25)


def test_redis_url_is_a_fall_back() -> None:
    """Hosts set REDIS_URL themselves; our own variable wins."""
    assert Settings.from_env({**environment(), "REDIS_URL": "redis://h:1/0"}).storage.uri == "redis://h:1/0"
    both = {**environment(STORAGE="memory://"), "REDIS_URL": "redis://h:1/0"}
    assert Settings.from_env(both).storage.uri == "memory://"


def test_flask_config_wins_over_the_environment() -> None:
    """`app.config["PORTALSHIELD_*"]`, whatever its type."""
    config = {"PORTALSHIELD_CORS__ALLOW_CREDENTIALS": True, "PORTALSHIELD_PUBLIC": ["GET /a", "GET /b"], "DEBUG": True}
    settings = Settings.from_env(environment(CORS__ALLOW_CREDENTIALS="false"), config)
    assert settings.cors.allow_credentials
    assert settings.public == ("GET /a", "GET /b")


def test_a_secret_never_shows_itself() -> None:
    """Not in repr, str, format, JSON or a dump of the settings."""
    settings = Settings.from_env(environment(AUTH__SECRET=SECRET))
    shown = [repr(settings), str(settings), f"{settings.auth.secret}", settings.model_dump_json(), repr(Secret(SECRET))]
    assert all(SECRET not in text for text in shown)
    assert settings.auth.secret is not None
    assert settings.auth.secret.reveal() == SECRET


def test_every_variable_is_described() -> None:
    """Each has a meaning, and no two have one name."""
    found = variables()
    assert all(len(variable.setting.meaning) > 10 for variable in found)
    assert len({variable.name for variable in found}) == len(found)


@given(st.dictionaries(st.sampled_from([v.name for v in variables()]), st.text(max_size=30), max_size=6))
def test_no_text_breaks_the_reader(texts: dict[str, str]) -> None:
    """Whatever stands in a variable: settings or a ConfigurationError that does not repeat it."""
    marked = {name: f"zqx{text}zqx" for name, text in texts.items()}
    try:
        Settings.from_env({**environment(), **marked})
    except ConfigurationError as error:
        assert "zqx" not in str(error)
