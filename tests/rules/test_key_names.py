"""Names that announce a secret, and names that only look like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.key_names import DEFAULT, MAX_NAME, MEMO_ENTRIES, KeyPolicy, is_sensitive, words

_SENSITIVE = """
    password passwd pwd pass userPassword user_password DB_PASSWORD db-password new_password passwordConfirmation
    password_hash PASSWORD1 passphrase secret client_secret clientSecret SECRET_KEY secretKeyBase api_key apiKey
    API_KEY apikey x-api-key X-API-Key HTTP_X_API_KEY token access_token accessToken refreshToken id_token
    auth_token csrf_token csrfmiddlewaretoken XSRF-TOKEN tokens authorization Authorization proxy-authorization
    HTTP_AUTHORIZATION cookie set-cookie cookies session session_id sessionid sessionKey PHPSESSID JSESSIONID
    connect.sid sid jwt bearer private_key privateKey ssh_key encryptionKey signing_key SUPABASE_SERVICE_ROLE_KEY
    AWS_SECRET_ACCESS_KEY aws_access_key_id stripe_key webhook_secret otp totp otp_code mfa_code verification_code
    security_code recovery_codes backup_codes pin card_pin cvv cvc cvv2 card_number cardNumber credit_card
    creditCard cc_number iban account_number routing_number ssn social_security_number passport passport_number
    drivers_license dob date_of_birth birthdate email e_mail email_address userEmail phone phone_number mobileNumber
    first_name lastName full_name surname home_address billing_address street_address credentials creds auth x_auth
    hmac signature x-amz-signature sig salt mysql_pwd user[password] a[token] a.b.password user%5Bpassword%5D
    passwort x_forwarded_for ip_address remote_addr databaseUrl connection_string tax_id national_id maiden_name
    seed_phrase code_verifier saml_response
"""
_BENIGN = """
    author authors authority authored_by authenticated passenger passengers keyboard monkey key keys keyword
    primary_key foreign_key public_key sort_key partition_key cache_key idempotency_key token_count tokens_used
    max_tokens prompt_tokens completion_tokens total_tokens token_type tokenizer token_expires_in expires_in
    cookie_consent cookie_policy cookies_enabled email_verified email_count email_template email_sent has_password
    is_secret password_changed_at password_strength password_policy password_required require_password
    password_min_length secretary session_timeout session_count session_duration sessions_total auth_method
    auth_provider oauth_provider phone_verified phone_type card_type card_brand account_type account_status
    address_type status_code country_code error_code zip_code postal_code code name username user_id tenant_id
    request_id trace_id id compass compassion passed bypass passive pass_count boarding_pass spinning pinned
    pinterest shipping sidebar side inside signal assignment significant saltwater hashtag mobile is_mobile island
    csrf_enabled otp_enabled mfa_enabled signature_valid signature_algorithm jwt_issuer allow_credentials
    secret_version api_version method route duration_ms level event timestamp object_key hotkey turkey donkey
    birthplace_count phonetic microphone emailer_version tokenized passwordless
"""


@pytest.mark.parametrize("name", _SENSITIVE.split())
def test_sensitive_name_is_found_in_every_spelling(name: str) -> None:
    """Secrets and personal data are recognised in camel, snake, kebab, dotted, header and bracket form."""
    assert is_sensitive(name)


@pytest.mark.parametrize("name", _BENIGN.split())
def test_look_alike_stays_readable(name: str) -> None:
    """Words that merely contain a sensitive word, or speak about one, are not hidden."""
    assert not is_sensitive(name)


def test_words_are_split_at_case_digits_and_punctuation() -> None:
    """One name, its words: the last one of plural nouns in the singular."""
    assert words("HTTP_X_APIKey2[user-Tokens]") == ("http", "x", "api", "key", "user", "token")


def test_extra_fields_match_whole_words_only() -> None:
    """A configured name covers longer names that contain it as words, not as letters."""
    policy = KeyPolicy(fields=["note", "legal_case"])
    assert policy.is_sensitive("internalNote")
    assert policy.is_sensitive("x-legal-case-id")
    assert not policy.is_sensitive("keynote")
    assert not policy.is_sensitive("notebook")


def test_allowed_fields_stay_readable_but_nothing_longer() -> None:
    """A name that stays is matched completely: allowing `email` does not allow `customer_email`."""
    policy = KeyPolicy(allow_fields=["email", "session_id"])
    assert not policy.is_sensitive("email")
    assert not policy.is_sensitive("sessionId")
    assert policy.is_sensitive("customer_email")


def test_memo_is_bounded() -> None:
    """Made-up names do not fill the memory."""
    policy = KeyPolicy()
    for number in range(MEMO_ENTRIES + 10):
        policy.is_sensitive(f"field{number}")
    assert len(policy._memo) <= MEMO_ENTRIES


def test_long_name_is_judged_by_its_end_and_not_remembered() -> None:
    """A name of a megabyte costs as much as a short one."""
    name = "x" * 1_000_000 + "_password"
    assert DEFAULT.is_sensitive(name)
    assert all(len(held) <= MAX_NAME for held in DEFAULT._memo)


@given(st.text(max_size=300))
def test_any_text_has_a_verdict(name: str) -> None:
    """Whatever the name is, the answer is a boolean, and the same one twice."""
    assert is_sensitive(name) is is_sensitive(name)
