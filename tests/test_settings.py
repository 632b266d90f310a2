"""Settings: every mistake at once, with an id and a hint, never a value."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield import ConfigurationError, Secret, Settings
from portalshield.settings import PREFIX, read, variables
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
        pytest.param(
            {"TENANT__CLAIM": "/user_metadata/t"}, "TENANT__CLAIM", "PS-TENANT-001", id="a user-written claim"
        ),
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


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        pytest.param({"AUTH": "jwtt"}, "jwt, none. Did you mean jwt?", id="a provider"),
        pytest.param({"ENV": "Produktion"}, "production. Did you mean production?", id="an environment"),
        pytest.param({"RATE__ON_OUTAGE": "close"}, "closed. Did you mean closed?", id="an outage"),
        pytest.param(
            {"ENV": "hunter2"},
            "PS-ENV-002 PORTALSHIELD_ENV is none of development, staging, production.",
            id="nothing near",
        ),
        pytest.param(
            {"AUTH__PUBLIC_KEY": "x"}, "PS-AUTH-002 PORTALSHIELD_AUTH is jwt, which needs exactly one", id="two keys"
        ),
        pytest.param(
            {"HOSTS": "https://hunter2"}, "PS-HOST-001 PORTALSHIELD_HOSTS entry 1 is no host. Write a name", id="host"
        ),
        pytest.param({"TRUSTED_PROXIES": "x"}, "entry 1 is no network. Write a CIDR", id="proxy"),
        pytest.param(
            {"RATE__PER_IP": "lots"}, "PORTALSHIELD_RATE__PER_IP is no quota. Write 300/minute, or off.", id="quota"
        ),
    ],
)
def test_a_message_is_a_sentence_with_one_hint(overrides: dict[str, str], told: str) -> None:
    """What is wrong, then what to do, once; a closed set is searched for what was meant."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environment(**overrides))
    (problem,) = caught.value.problems
    assert told in str(problem)
    assert str(problem).lower().count("write ") <= 1
    assert "hunter2" not in str(problem)


ORIGINS = "https://app.example.com"
EVERYBODY = {
    "AUTH": "oidc",
    "AUTH__AUDIENCE": "a",
    "AUTH__ISSUER": "https://login.microsoftonline.com/organizations/v2.0",
    "TENANT__CLAIM": "/tid",
}
PROVIDERS = [
    pytest.param(
        {"AUTH": "clerk", "AUTH__ISSUER": "https://clerk.example"}, "AUTH__AUTHORIZED_PARTIES", "012", id="clerk"
    ),
    pytest.param(
        {"AUTH": "clerk", "AUTH__ISSUER": "https://clerk.example", "AUTH__AUTHORIZED_PARTIES": ORIGINS + "/"},
        "AUTH__AUTHORIZED_PARTIES",
        "012",
        id="clerk: an origin with a slash",
    ),
    pytest.param(
        {"AUTH": "clerk", "AUTH__ISSUER": "https://clerk.example/", "AUTH__AUTHORIZED_PARTIES": ORIGINS},
        "AUTH__ISSUER",
        "013",
        id="clerk: an issuer with a slash",
    ),
    pytest.param({"AUTH": "clerk", "AUTH__AUTHORIZED_PARTIES": ORIGINS}, "AUTH__ISSUER", "004", id="clerk: no issuer"),
    pytest.param({"AUTH": "firebase"}, "AUTH__AUDIENCE", "017", id="firebase: no project"),
    pytest.param({"AUTH": "firebase", "AUTH__AUDIENCE": "a, b"}, "AUTH__AUDIENCE", "017", id="firebase: two projects"),
    pytest.param(
        {"AUTH": "firebase", "AUTH__AUDIENCE": "a", "AUTH__SECRET": SECRET},
        "AUTH__SECRET",
        "002",
        id="firebase: a secret",
    ),
    pytest.param({"AUTH": "supabase"}, "AUTH__ISSUER", "004", id="supabase: no project"),
    pytest.param(
        {"AUTH": "supabase", "AUTH__ISSUER": "https://abc.supabase.co"},
        "AUTH__ISSUER",
        "013",
        id="supabase: its address",
    ),
    pytest.param(
        {"AUTH": "supabase", "AUTH__ISSUER": "http://abc.supabase.co/auth/v1"}, "AUTH__ISSUER", "007", id="plain http"
    ),
    pytest.param(
        {
            "AUTH": "supabase",
            "AUTH__ISSUER": "https://abc.supabase.co/auth/v1",
            "TENANT__CLAIM": "/user_metadata/tenant_id",
        },
        "TENANT__CLAIM",
        "PS-TENANT-001",
        id="supabase: what users write",
    ),
    pytest.param({"AUTH": "auth0", "AUTH__ISSUER": "https://a.auth0.com/"}, "AUTH__AUDIENCE", "003", id="auth0"),
    pytest.param(
        {"AUTH": "auth0", "AUTH__ISSUER": "https://a.auth0.com", "AUTH__AUDIENCE": "api"},
        "AUTH__ISSUER",
        "013",
        id="auth0: an issuer without its slash",
    ),
    pytest.param(
        {
            "AUTH": "auth0",
            "AUTH__ISSUER": "https://a.auth0.com/",
            "AUTH__AUDIENCE": "api",
            "TENANT__CLAIM": "/org_id, /org_name",
        },
        "TENANT__CLAIM",
        "PS-TENANT-004",
        id="auth0: a name",
    ),
    pytest.param(
        {"AUTH": "cognito", "AUTH__ISSUER": "https://cognito-idp.eu-west-1.amazonaws.com/p"},
        "AUTH__AUDIENCE",
        "003",
        id="cognito: no clients",
    ),
    pytest.param(
        {
            "AUTH": "cognito",
            "AUTH__ISSUER": "https://cognito-idp.eu-west-1.amazonaws.com/p",
            "AUTH__AUDIENCE": "c",
            "TENANT__CLAIM": "/custom:tenant",
        },
        "TENANT__CLAIM",
        "PS-TENANT-004",
        id="cognito: an attribute as the tenant",
    ),
    pytest.param(
        {
            "AUTH": "cognito",
            "AUTH__ISSUER": "https://cognito-idp.eu-west-1.amazonaws.com/p",
            "AUTH__AUDIENCE": "c",
            "AUTH__ROLES_CLAIM": "/custom:role",
        },
        "AUTH__ROLES_CLAIM",
        "010",
        id="cognito: an attribute as the role",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH__ISSUER": "https://login.microsoftonline.com/consumers/v2.0"},
        "AUTH__ISSUER",
        "014",
        id="entra: every person",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH__ISSUER": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        "AUTH__ISSUER",
        "014",
        id="entra: the template itself",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH__ISSUER": "https://sts.windows.net/{tenantid}/"},
        "AUTH__ISSUER",
        "014",
        id="entra: version 1",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH__ISSUER": "https://login.microsoftonline.com/organizations/v2.0/"},
        "AUTH__ISSUER",
        "014",
        id="entra: everybody with a slash",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH": "jwt", "AUTH__JWKS_URL": "https://login.microsoftonline.com/common/discovery/v2.0/keys"},
        "AUTH__ISSUER",
        "014",
        id="entra: everybody as jwt",
    ),
    pytest.param({**EVERYBODY, "AUTH__AUDIENCE": ""}, "AUTH__AUDIENCE", "003", id="entra: for anybody"),
    pytest.param(
        {**EVERYBODY, "AUTH__INSECURE_NO_AUDIENCE": "true"},
        "AUTH__INSECURE_NO_AUDIENCE",
        "019",
        id="entra: for anybody on purpose",
    ),
    pytest.param(
        {**EVERYBODY, "AUTH__SUBJECT_CLAIM": "email"},
        "AUTH__SUBJECT_CLAIM",
        "019",
        id="entra: a subject that admins choose",
    ),
    pytest.param(
        {
            **EVERYBODY,
            "AUTH__ISSUERS__OTHER": "oidc",
            "AUTH__ISSUERS__OTHER__ISSUER": "https://login.microsoftonline.com/common/v2.0",
            "AUTH__ISSUERS__OTHER__AUDIENCE": "a",
        },
        "AUTH__ISSUERS__OTHER__ISSUER",
        "015",
        id="entra: everybody twice",
    ),
    pytest.param({"AUTH": "oidc", "AUTH__ISSUER": "https://id.example"}, "AUTH__AUDIENCE", "003", id="oidc"),
    pytest.param({"AUTH": "jwt", "AUTH__AUDIENCE": "a", "AUTH__ISSUER": "i"}, "AUTH", "002", id="jwt: no keys"),
    pytest.param({"AUTH": "none", "AUTH__ISSUERS__A__ISSUER": "x"}, "AUTH__ISSUERS__A", "016", id="none and another"),
    pytest.param({"AUTH": "none", "AUTH__COOKIE": "session"}, "AUTH__COOKIE", "011", id="a cookie anybody can set"),
    pytest.param({"AUTH": "none", "AUTH__COOKIE": "__Host-a b"}, "AUTH__COOKIE", "011", id="no name of a cookie"),
    pytest.param({"AUTH": "none", "AUTH__COOKIE": "__host-session"}, "AUTH__COOKIE", "011", id="a prefix in small"),
]
NO_SECRET = {"ENV": "production", "AUTH__SECRET": "", "AUTH__ISSUER": "", "AUTH__AUDIENCE": ""}


@pytest.mark.parametrize(("overrides", "variable", "problem"), PROVIDERS)
def test_a_provider_that_is_half_configured_does_not_start(
    overrides: dict[str, str], variable: str, problem: str
) -> None:
    """What the provider needs is asked for by name, with one id per kind of mistake."""
    expected = problem if problem.startswith("PS-") else f"PS-AUTH-{problem}"
    assert _problems(**{**NO_SECRET, **overrides}) == {variable: expected}


def test_every_directory_is_let_in_where_it_is_asked_for() -> None:
    """The same, without a mistake."""
    settings = Settings.from_env(environment(**{**NO_SECRET, **EVERYBODY, "AUTH__SUBJECT_CLAIM": "/oid"}))
    assert settings.auth.verifies


class TestSeveralIssuers:
    """`AUTH__ISSUERS__<NAME>__...`."""

    PARTNER: ClassVar = {"AUTH__ISSUERS__PARTNER_1__ISSUER": "https://p.example", "AUTH__ISSUERS__PARTNER_1": "oidc"}

    def test_they_are_read_by_name(self) -> None:
        """The name is lower case in the settings; an issuer named after a provider is of that provider."""
        settings = Settings.from_env(
            environment(
                **self.PARTNER,
                AUTH__ISSUERS__PARTNER_1__AUDIENCE="a, b",
                AUTH__ISSUERS__PARTNER_1__LEEWAY="1m",
                AUTH__ISSUERS__CLERK__ISSUER="https://clerk.example",
                AUTH__ISSUERS__CLERK__AUTHORIZED_PARTIES=ORIGINS,
            )
        )
        assert set(settings.auth.issuers) == {"partner_1", "clerk"}
        partner = settings.auth.issuers["partner_1"]
        assert (partner.preset, partner.audience, partner.leeway) == ("oidc", ("a", "b"), 60)
        assert [issuer.row.name for issuer in settings.auth.verified()] == ["jwt", "clerk", "oidc"]
        assert settings.auth.cookie_name == "__session"

    def test_they_do_without_a_first_one(self) -> None:
        """`AUTH` itself may stay unset."""
        variables = environment(**self.PARTNER, AUTH__ISSUERS__PARTNER_1__AUDIENCE="a")
        del variables[PREFIX + "AUTH"]
        assert Settings.from_env(variables).auth.verifies

    @pytest.mark.parametrize(
        ("overrides", "variable", "problem"),
        [
            pytest.param({}, "AUTH__ISSUERS__PARTNER_1__AUDIENCE", "PS-AUTH-003", id="its own audience"),
            pytest.param(
                {
                    "AUTH__ISSUERS__PARTNER_1__AUDIENCE": "a",
                    "AUTH__ISSUERS__PARTNER_1__ISSUER": "https://auth.example.test",
                },
                "AUTH__ISSUERS__PARTNER_1__ISSUER",
                "PS-AUTH-015",
                id="the same issuer twice",
            ),
            pytest.param(
                {"AUTH__ISSUERS__PARTNER_1__AUDIENCE": "a", "AUTH__ISSUER": ""},
                "AUTH__ISSUER",
                "PS-AUTH-004",
                id="no name",
            ),
            pytest.param(
                {"AUTH__ISSUERS__PARTNER_1__AUDIENCE": "a", "AUTH__ISSUERS__PARTNER_1__LEEWAY": "1h"},
                "AUTH__ISSUERS__PARTNER_1__LEEWAY",
                "PS-AUTH-008",
                id="its own leeway",
            ),
            pytest.param(
                {"AUTH__ISSUERS__PARTNER_1": "okta"}, "AUTH__ISSUERS__PARTNER_1", "PS-ENV-002", id="no provider we know"
            ),
        ],
    )
    def test_a_mistake_names_its_own_variable(self, overrides: dict[str, str], variable: str, problem: str) -> None:
        """Not that of the first issuer."""
        assert _problems(**{**self.PARTNER, **overrides}) == {variable: problem}

    @pytest.mark.parametrize(
        "name",
        ["PARTNER__COOKIE", "PARTNER__ISSUER__X", "partner__ISSUER", "__ISSUER", "_A__ISSUER", "<NAME>__ISSUER", ""],
    )
    def test_what_is_no_variable_of_an_issuer_is_unknown(self, name: str) -> None:
        """The cookie belongs to all of them, names are upper case."""
        assert _problems(**{f"AUTH__ISSUERS__{name}": "x"}) == {f"AUTH__ISSUERS__{name}": "PS-ENV-001"}

    def test_a_typing_mistake_is_foreseen(self) -> None:
        """With the name that the user chose."""
        with pytest.raises(ConfigurationError, match="Did you mean PORTALSHIELD_AUTH__ISSUERS__PARTNER__AUDIENCE"):
            Settings.from_env(environment(AUTH__ISSUERS__PARTNER__AUDIENSE="a"))

    def test_they_are_listed(self) -> None:
        """In the settings page and wherever variables are listed."""
        names = {variable.name for variable in variables()}
        assert {PREFIX + "AUTH__ISSUERS__<NAME>", PREFIX + "AUTH__ISSUERS__<NAME>__ISSUER"} <= names


@pytest.mark.parametrize(
    ("overrides", "issuer"),
    [
        pytest.param({"AUTH": "supabase"}, "https://abc.supabase.co/auth/v1", id="the project's Auth server"),
        pytest.param({"AUTH": "jwt"}, None, id="another way of authentication"),
        pytest.param(
            {"AUTH": "supabase", "AUTH__ISSUER": "https://own.example/auth/v1"},
            "https://own.example/auth/v1",
            id="ours wins",
        ),
    ],
)
def test_supabase_url_is_a_fall_back(overrides: dict[str, str], issuer: str | None) -> None:
    """Where the preset is Supabase and no issuer is set."""
    variables = {PREFIX + name: value for name, value in {"AUTH__SECRET": SECRET, **overrides}.items()}
    variables |= {PREFIX + "AUTH__AUDIENCE": "authenticated", "SUPABASE_URL": "https://abc.supabase.co/"}
    assert Settings.from_env(variables).auth.issuer == issuer


@pytest.mark.parametrize("name", ["__Host-session", "__session"])
def test_a_cookie_that_only_this_host_can_set(name: str) -> None:
    """The prefix of RFC 6265bis; a provider's own name is exempt."""
    assert Settings.from_env(environment(ENV="production", AUTH__COOKIE=name)).auth.cookie_name == name


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
    _, mistakes = read({**environment(), **marked})
    assert all("zqx" not in str(mistake) for mistake in mistakes)
