"""A property of texts in the log: no part of a secret stays, in any notation, and nothing harmless goes."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaleobs.logs._redaction import REDACTED, Redact
from support import secret_texts as texts

REDACT = Redact()
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

ANYTHING = (
    *("", '"', "'", "\\", "\\\\", '\\"', "\\'", ",", "'}", '"}', "', '", '", "', " ", "  ", " = ", ": ", ":", "=", "&"),
    *(";", "\n", "\r\n", "\t", "{", "}", "[", "]", "(", ")", "@", "/", "#", "?", "%", "é", "漢", "\\n", "<", ">", "$"),
    *("`", '": "', "': '", "))", "]]", "}}", " --x ", "</x>", "''", '""', '\\\\"', "|", "+", "-", "_", ".", "~"),
)
IN_BARE = (*"-_.~+/=:@!$*%^#?(){}[]|\\é,;", "")
IN_URL = (*"-_.~+/=:@!$*%^#?()|;,", "", "@/", "/@")
IN_TOKEN = ("", *"-_.~+/=")


def secrets(separators):
    """Return secrets whose pieces are joined by some of the separators."""
    between = st.lists(st.sampled_from(separators), min_size=1, max_size=2).map("".join)
    more = st.lists(st.tuples(between, st.sampled_from(texts.PIECES)).map("".join), max_size=2).map("".join)
    around = st.one_of(st.just(""), st.sampled_from(separators))
    return st.tuples(around, st.sampled_from(texts.PIECES), more, around).map("".join)


def assert_redacted(text, kept=("anna", "7")):
    """No piece of a secret is in the text, and what is beside it is."""
    found = REDACT.text(text)

    assert [] == [piece for piece in texts.PIECES if piece in found], (text, found)
    assert [] == [part for part in kept if part not in found], (text, found)
    return found


def kinds(*groups):
    """Return the kinds of texts of some groups, to parametrize a test with."""
    return pytest.mark.parametrize(
        "make", [pytest.param(make, id=kind) for group in groups for kind, make in group.items()]
    )


@kinds(texts.QUOTED)
@PROPERTY
@given(name=st.sampled_from(texts.NAMES), secret=secrets(ANYTHING))
def test_a_value_in_quotes_goes_as_a_whole(make, name, secret):
    """A secret may have any characters: where the notation quotes or escapes it, none of its parts stays."""
    kind = next(kind for kind, one in texts.QUOTED.items() if one is make)
    if "shell" in kind:
        secret = secret.rstrip("\\")
    if kind == "a form":
        secret = re.sub(r"[\r\n]+|--", "", secret)
    found = assert_redacted(make(name, secret))
    if kind.startswith("json") and "bytes" not in kind and "dict" not in kind:
        assert "anna" in json.dumps(json.loads(found))


@kinds(texts.IDENTIFIERS)
@PROPERTY
@given(name=st.sampled_from(texts.NAMES), secret=secrets(ANYTHING))
def test_a_value_in_a_repr_goes_as_a_whole(make, name, secret):
    """The same for dataclasses, models and calls, whose names have no quotes."""
    if make is texts.IDENTIFIERS["sql"]:
        secret = "x" + secret.replace("\\", "")
    assert_redacted(make(name, secret))


@kinds(texts.BARE)
@PROPERTY
@given(name=st.sampled_from(texts.NAMES), secret=secrets(IN_BARE))
def test_a_value_without_quotes_goes_as_a_whole(make, name, secret):
    """Without quotes, brackets and punctuation are a part of a secret if what follows does not show its end."""
    secret = secret.strip(",;.:-").lstrip("[{(<|>")
    secret = re.sub(r"([,;|])([\w.%+-]+[=:])", r"\1", secret)  # This is where the next name begins.
    if any(bracket in make(name, "") for bracket in "[{;"):
        secret = "".join(one for one in secret if one not in "()[]{},;|=")
    assert_redacted(make(name, secret or texts.PIECES[0]))


@kinds(texts.ENCODED)
@PROPERTY
@given(name=st.sampled_from(texts.NAMES), secret=secrets(ANYTHING))
def test_an_encoded_value_goes_as_a_whole(make, name, secret):
    """The same for queries, queries within queries, and encoded names."""
    assert_redacted(make(name, secret))


@kinds(texts.SCHEMES)
@PROPERTY
@given(secret=secrets(IN_TOKEN))
def test_credentials_need_no_name(make, secret):
    """Bearer, Basic and Digest are enough, in any case, with colons and without padding."""
    assert_redacted(f"user anna sent {make(secret)} and 7")


@kinds(texts.HEADER_PLACES)
@PROPERTY
@given(
    header=st.sampled_from(texts.HEADERS[:3]),
    scheme=st.sampled_from(list(texts.HEADER_SCHEMES)),
    secret=secrets(IN_TOKEN),
)
def test_a_header_goes_as_a_whole(make, header, scheme, secret):
    """All of `Authorization` goes, with each parameter of its scheme."""
    assert_redacted(make(header, texts.HEADER_SCHEMES[scheme](secret)))


@kinds(texts.HEADER_PLACES)
@PROPERTY
@given(header=st.sampled_from(texts.HEADERS[3:]), secret=secrets(IN_TOKEN))
def test_all_cookies_go(make, header, secret):
    """Each cookie of a header goes, under any name."""
    assert_redacted(make(header, f"a={secret}; sid={secret}; x={secret}; Path=/"))


@kinds(texts.URLS)
@PROPERTY
@given(secret=secrets(IN_URL))
def test_a_password_in_a_url_goes_as_a_whole(make, secret):
    """Also with characters that a URL has to encode."""
    assert_redacted(make(secret))


@kinds(texts.TOKEN_URLS)
@PROPERTY
@given(secret=secrets(("", "-", "_", ".")))
def test_a_token_as_the_user_of_a_url_goes(make, secret):
    """A user without a password is a token, unless it is a plain name."""
    assert_redacted(make(secret))


@pytest.mark.parametrize("text", texts.HARMLESS)
def test_harmless_text_stays(text):
    """Text that is only like a secret does not change."""
    assert text == REDACT.text(text)


@PROPERTY
@given(st.lists(st.sampled_from(texts.HARMLESS), min_size=2, max_size=6))
def test_harmless_lines_stay(lines):
    """The same for several lines, where a name could find its value in the next one."""
    text = "\n".join(lines)

    assert text == REDACT.text(text)


WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(
    lambda word: not re.search("auth|cook|cred|srf|jwt|tok|ses|si|pas|pwd|sec|key|bear|bas|dig", word)
)
VALUES = st.one_of(WORDS, st.text(max_size=12).filter(lambda text: "://" not in text), st.integers(), st.none())


@PROPERTY
@given(
    st.dictionaries(
        WORDS, st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=8)
    ),
    st.sampled_from(
        [json.dumps, str, lambda value: json.dumps(json.dumps(value)), lambda value: str(json.dumps(value))]
    ),
)
def test_harmless_data_stays(data, write):
    """Data without a secret's name is written as it is."""
    text = write(data)

    assert text == REDACT.text(text) or any(word in text.lower() for word in ("bearer", "basic", "digest", "token"))


@PROPERTY
@given(name=st.sampled_from(texts.NAMES), secret=secrets(ANYTHING))
def test_a_second_reading_changes_nothing(name, secret):
    """The text of an exception is read twice if a part of it is left out."""
    for make in texts.QUOTED.values():
        once = REDACT.text(make(name, secret))
        assert [] == [piece for piece in texts.PIECES if piece in REDACT.text(once)]


FIELDS = {
    "a pair of names": {"headers": [{"name": "Authorization", "value": "{}"}, {"name": "age", "value": "7"}]},
    "a pair of keys": {"tags": [{"Key": "db_password", "Value": "{}"}]},
    "a pair in the line": {"name": "X-CSRF-Token", "value": "{}"},
    "arguments": {"argv": ["mysql", "--user", "anna", "--password", "{}", "7"]},
    "an argument": {"argv": ["mysql", "--password={}", "7"]},
    "arguments as bytes": {"argv": [b"mysql", b"--token", b"{}"]},
    "a list": {"passwords": ["{}", "{}"]},
    "an object": {"credentials": {"a": {"b": "{}"}}},
    "a tuple": {"auth": ("anna", "{}")},
    "a validation error": {"errors": [{"loc": ("body", "password"), "input": "{}"}]},
    "cookies": {"cookies": {"a": "{}"}, "PHPSESSID": "{}", "connect.sid": "{}", "laravel_session": "{}"},
    "short names": {"db_pwd": "{}", "smtp_pass": "{}", "dbpass": "{}", "X-Auth": "{}", "creds": "{}"},
    "a key": {"x": {"https://anna:{}@x.org": 7}},
    "a text in a list": {"x": [["a", ("b", "password: {}")]]},
    "bytes": {"x": b"password={}", "y": bytearray(b"Authorization: Bearer {}"), "z": memoryview(b"token={}")},
}


def filled(value, secret):
    """Return a value with the secret in the place of `{}`."""
    if isinstance(value, dict):
        return {filled(key, secret): filled(one, secret) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(one, secret) for one in value)
    if isinstance(value, bytes | bytearray | memoryview):
        return type(value)(bytes(value).replace(b"{}", secret.encode()))
    return value.replace("{}", secret) if isinstance(value, str) else value


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("secret", ["hunter2", "hunter2-S3cr3t/x9Kq", "S3cr3t:x9Kq"])
def test_a_value_in_a_field_goes(kind, secret):
    """The same for the fields of a line: none of them, at any depth, has a part of a secret."""
    found = str(REDACT(None, "info", {"event": "x", **filled(FIELDS[kind], secret)}))

    assert [] == [piece for piece in texts.PIECES if piece in found]
    assert found.count("'7'") == str(FIELDS[kind]).count("'7'")


HARMLESS_FIELDS = {
    "words that contain one": {
        "tokenizer": "gpt2",
        "secretary": "bob",
        "compass": "n",
        "author": "anna",
        "monkey": "x",
    },
    "about a secret": {"token_type": "x", "cookie_domain": "x.org", "token_count": 7, "password_policy": "long"},
    "empty": {"cookies": {}, "passwords": [], "token": "", "secret": None, "has_password": True},
    "lists of names": {"columns": ["id", "password", "email"], "fields": ("a", "token", "b", "c")},
    "pairs": {"x": [{"name": "color", "value": "red"}], "name": "color", "value": "red", "y": [("a", "b")]},
    "arguments": {"argv": ["a", "--token", "--verbose", "-p", "80"]},
}


@pytest.mark.parametrize("kind", HARMLESS_FIELDS)
def test_a_harmless_field_stays(kind):
    """Names that are only like those of secrets keep their values."""
    fields = HARMLESS_FIELDS[kind]

    assert json.dumps(fields) == json.dumps(REDACT(None, "info", dict(fields)))


PEM = "-----BEGIN RSA PRIVATE KEY-----\nhunter2S3cr3t\nx9Kq+/=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize("text", ["{}", "private_key={} 7", "key: {}\n7", "private_key: {}", "'private_key': {!r}, 7"])
def test_a_private_key_goes_as_a_whole(text):
    """All lines of a key go, with a name before it and without."""
    assert_redacted(text.format(PEM), kept=("7",) if "7" in text else ())
    assert_redacted(json.dumps(text.format(PEM)), kept=())


def test_an_unclosed_quote_is_a_secret_to_the_end():
    """If a text ends within a secret, all of its rest is one."""
    assert f'{{"a": 1, "password": "{REDACTED}' == REDACT.text('{"a": 1, "password": "one two, three: 4')


SENTENCE = "a word, another one: the third; "


@pytest.mark.parametrize("size", [65_000, 70_000, 200_000])
@pytest.mark.parametrize(
    "secret",
    [
        'password="hunter2, S3cr3t"',
        "{'passwords': ['hunter2', 'S3cr3t']}",
        "postgresql://anna:hunter2/S3cr3t@db/x",
        "Authorization: Bearer hunter2",
        f"token={'hunter2' * 900}",
        f'"secret": "{"S3cr3t, " * 3000}"',
        json.dumps(json.dumps({"credentials": {"a": ["hunter2"] * 500}})),
    ],
    ids=lambda secret: secret[:12],
)
def test_no_secret_at_the_cut_of_a_long_text(size, secret):
    """A long text is cut before it is read; no secret around a cut stays."""
    for cut in (12_288, 16_384, 61_440, 65_536, size - 16_384, size - 4096, size - 1024):
        for offset in range(-len(secret) - 8, 12, max(1, len(secret) // 4)):
            begin = cut + offset
            text = (SENTENCE * (begin // len(SENTENCE) + 1))[:begin] + f" {secret} "
            text = (text + SENTENCE * (size // len(SENTENCE) + 1))[:size]
            found = REDACT(None, "info", {"event": "x", "text": text})["text"]
            assert [] == [piece for piece in texts.PIECES if piece in found], begin
