"""Texts with a secret in them, in each notation that applications log, and harmless texts that are like them."""

from __future__ import annotations

import base64
import html
import json
import pprint
import shlex
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape

PIECES = ("hunter2", "S3cr3t", "x9Kq")
"""A secret is some of these with other characters between them; not one of them may stay."""

NAMES = (
    *("password", "Password", "db_password", "userPassword", "passwd", "db_pwd", "smtp_pass", "apiKey", "api_key"),
    *("x-api-key", "access_token", "refreshToken", "client_secret", "PHPSESSID", "JSESSIONID", "sessionid"),
    *("session_id", "connect.sid", "X-CSRF-Token", "csrfmiddlewaretoken", "private_key", "jwt", "SECRET_KEY"),
)
HEADERS = ("Authorization", "authorization", "Proxy-Authorization", "Cookie", "Set-Cookie")


@dataclass
class Login:
    """Has a password."""

    user: str
    password: object
    age: int = 7


class Model:
    """Has a repr as that of pydantic's models."""

    def __init__(self, **fields):
        self.fields = fields

    def __repr__(self):
        return f"Model({', '.join(f'{name}={value!r}' for name, value in self.fields.items())})"


def pydantic_error(name, secret):
    """Return the text of pydantic's error for a field."""
    return (
        f"2 validation errors for Login\n{name}\n  String should have at most 3 characters "
        f"[type=string_too_long, input_value={secret!r}, input_type=str]\n"
        "    For further information visit https://errors.pydantic.dev/2.11/v/string_too_long\n"
        "age\n  Input should be a valid integer [type=int_type, input_value='anna is 7', input_type=str]"
    )


def form_field(name, value):
    """Return a field of a form with several parts."""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


QUOTED = {
    "json": lambda n, s: json.dumps({"user": "anna", n: s, "age": 7}),
    "json, compact": lambda n, s: json.dumps({"user": "anna", n: s, "age": 7}, separators=(",", ":")),
    "json, indented": lambda n, s: json.dumps({"user": "anna", n: s, "age": 7}, indent=2),
    "json in json": lambda n, s: json.dumps({"user": "anna", "body": json.dumps({n: s, "age": 7})}),
    "json in json in json": lambda n, s: json.dumps([json.dumps({"b": json.dumps({"user": "anna", n: s, "age": 7})})]),
    "a list in json": lambda n, s: json.dumps({"user": "anna", n: [s, s], "age": 7}),
    "an object in json": lambda n, s: json.dumps({"user": "anna", n: {"a": {"b": s}, "c": [s]}, "age": 7}),
    "a dict": lambda n, s: str({"user": "anna", n: s, "age": 7}),
    "a dict of bytes": lambda n, s: str({"user": "anna", n: s.encode(), "age": 7}),
    "a dict with names of bytes": lambda n, s: str({b"user": b"anna", n.encode(): s.encode(), "age": 7}),
    "a dict with a list": lambda n, s: str({"user": "anna", n: [s, (s,)], "age": 7}),
    "a dict with a dict": lambda n, s: str({"user": "anna", n: {"x": s}, "age": 7}),
    "a dict in a dict, as text": lambda n, s: str({"user": "anna", "body": str({n: s, "age": 7})}),
    "json in a dict": lambda n, s: str({"user": "anna", "body": json.dumps({n: s, "age": 7})}),
    "json in bytes": lambda n, s: str(json.dumps({"user": "anna", n: s, "age": 7}).encode()),
    "a dict in json": lambda n, s: json.dumps({"user": "anna", "body": str({n: s, "age": 7})}),
    "json in a dict in json": lambda n, s: json.dumps({"user": "anna", "b": str({"x": json.dumps({n: s, "age": 7})})}),
    "pprint": lambda n, s: pprint.pformat({"user": "anna", n: f"{s} {s} {s} {s}", "z": "anna", "age": 7}, width=40),
    "a pair": lambda n, s: str([("user", "anna"), (n, s), ("age", 7)]),
    "a pair of bytes": lambda n, s: str([(b"user", b"anna"), (n.encode(), s.encode()), ("age", 7)]),
    "a pair in json": lambda n, s: json.dumps([["user", "anna"], [n, s], ["age", 7]]),
    "name and value": lambda n, s: json.dumps(
        {"headers": [{"name": "user", "value": "anna"}, {"name": n, "value": s}], "age": 7}
    ),
    "value and name": lambda n, s: json.dumps(
        {"headers": [{"value": "anna", "name": "user"}, {"value": s, "name": n}], "age": 7}
    ),
    "name and value in a dict": lambda n, s: str(
        {"headers": [{"key": "user", "value": "anna"}, {"key": n, "value": s}], "age": 7}
    ),
    "arguments": lambda n, s: str(["mysql", "--user", "anna", f"--{n}", s, "--age", "7"]),
    "arguments in json": lambda n, s: json.dumps(["mysql", "--user", "anna", f"--{n}", s, "--age", "7"]),
    "an argument": lambda n, s: str(["mysql", "--user=anna", f"--{n}={s}", "--age=7"]),
    "a shell": lambda n, s: f"mysql --user anna --{n} {shlex.quote(s)} --age 7",
    "a shell, with =": lambda n, s: f"mysql --user=anna --{n}={shlex.quote(s)} --age=7",
    "pydantic": pydantic_error,
    "pydantic, nested": lambda n, s: pydantic_error(f"user.anna.{n}", s),
    "fastapi": lambda n, s: str(
        [{"type": "x", "loc": ("body", "anna", n), "msg": "too 'short'", "input": s, "ctx": {"age": 7}}]
    ),
    "xml": lambda n, s: f"<login><user>anna</user><{n}>{escape(s)}</{n}><age>7</age></login>",
    "html": lambda n, s: html.escape(json.dumps({"user": "anna", "age": 7, n: s})),
    "in a query": lambda n, s: f"/?user=anna&age=7&q={quote(json.dumps({n: s}), safe='')}",
    "a form": lambda n, s: "".join(form_field(*one) for one in (("user", "anna"), (n, s), ("age", "7"))),
    "html, a field": lambda n, s: (
        f'<a name="user" value="anna"><input type="x" name="{n}" value="{html.escape(s)}"><input name="age" value="7">'
    ),
    "html, a field, value first": lambda n, s: f'<a id="anna"><input value="{html.escape(s)}" name="{n}"><p>7</p>',
    "a cookie of cookiejar": lambda n, s: f"Cookie(version=0, name={n!r}, value={s!r}, port=7, domain='anna')",
    "an item": lambda n, s: f"user = 'anna'; config[{n!r}] = {s!r}; age = 7",
    "a variable": lambda n, s: str(["USER=anna", f"{n.upper()}={s}", "AGE=7"]),
    "yaml, name and value": lambda n, s: (
        f"- name: USER\n  value: anna\n- name: {n}\n  value: {json.dumps(s)}\n- name: AGE7\n"
    ),
    "ruby": lambda n, s: f'{{:user => "anna", :{n} => {json.dumps(s)}, "age" => 7}}',
    "toml": lambda n, s: f'user = "anna"\n{n} = {json.dumps(s)}\nage = 7\n',
    "yaml": lambda n, s: f"user: anna\n{n}: {json.dumps(s)}\nage: 7\n",
    "yaml, a list": lambda n, s: f"user: anna\n{n}:\n- {json.dumps(s)}\n- {json.dumps(s)}\nage: 7\n",
    "yaml, an object": lambda n, s: f"user: anna\n{n}:\n  x: {json.dumps(s)}\n  y:\n  - {json.dumps(s)}\nage: 7\n",
}
"""By its kind, a text around a secret of any characters, with a user `anna` and an age 7 beside it."""

IDENTIFIERS = {
    "a dataclass": lambda n, s: str(Login("anna", s)),
    "a dataclass of bytes": lambda n, s: str(Login("anna", s.encode())),
    "a dataclass with a list": lambda n, s: str(Login("anna", [s, {"x": s}])),
    "a dataclass in a dict": lambda n, s: str({"a": Login("anna", s), "age": 7}),
    "a dataclass in json": lambda n, s: json.dumps({"a": str(Login("anna", s)), "age": 7}),
    "a namespace": lambda n, s: str(SimpleNamespace(user="anna", password=s, age=7)),
    "a model": lambda n, s: str(Model(user="anna", password=Model(value=s), age=7)),
    "a call": lambda n, s: f"login(user='anna', password={s.encode()!r}, age=7)",
    "an f-string": lambda n, s: f"user = 'anna'; token = f{s!r}; age = 7",
    "a call with a keyword": lambda n, s: f"login('anna', age=7, token={s!r})",
    "an annotation": lambda n, s: f"    user: str = 'anna'\n    password: str | None = {s!r}\n    age: int = 7",
    "sql, identified": lambda n, s: f"CREATE USER 'anna' IDENTIFIED BY {s!r} WITH 7",
    "sql": lambda n, s: "ALTER USER anna WITH PASSWORD '" + s.replace("'", "''") + "' CONNECTION LIMIT 7",
}

BARE = {
    "=": lambda n, s: f"user=anna {n}={s} age=7",
    "= with spaces": lambda n, s: f"user = anna\n{n} = {s}\nage = 7",
    ":": lambda n, s: f"user: anna, {n}: {s}, age: 7",
    ": at the end": lambda n, s: f"user: anna, age: 7, {n}: {s}",
    "yaml": lambda n, s: f"user: anna\n{n}: {s}\nage: 7\n",
    "a flag": lambda n, s: f"mysql --user anna --{n} {s} --age 7",
    "a flag with =": lambda n, s: f"mysql --user=anna --{n}={s} --age=7",
    "a single dash": lambda n, s: f"java -user anna -{n} {s} -age 7",
    "go": lambda n, s: f"map[age:7 {n}:{s} user:anna]",
    "java": lambda n, s: f"Login{{user=anna, {n}={s}, age=7}}",
    "go, a struct": lambda n, s: f"{{User:anna {n}:{s} Age:7}}",
    "a connection string": lambda n, s: f"Server=x;User Id=anna;{n}={s};Age=7",
    "netrc": lambda n, s: f"machine x7 login anna password {s}\n",
    "curl with a user": lambda n, s: f"curl -u anna:{s} --user anna:{s} https://x7.org",
    "an environment": lambda n, s: f"USER=anna\n{n}={s}\nAGE=7",
    "a query": lambda n, s: f"GET /login?user=anna&{n}={s}&age=7 HTTP/1.1",
    "a query at the end": lambda n, s: f"https://x.org/login?user=anna&age=7&{n}={s}",
    "a query in json": lambda n, s: json.dumps({"q": f"user=anna&age=7&{n}={s}", "z": 1}, separators=(",", ":")),
    "a query in a dict": lambda n, s: str({"url": f"/x?user=anna&age=7&{n}={s}", "z": 1}),
    "a form's name": lambda n, s: f"user[name]=anna&user[{n}]={s}&age=7",
    "a list in a form": lambda n, s: f"user[]=anna&{n}[]={s}&{n}[0]={s}&{n}%5B%5D={s}&age=7",
    "a path": lambda n, s: f"/x;user=anna;{n}={s};age=7",
    "a header": lambda n, s: f"GET / HTTP/1.1\r\nUser: anna\r\n{n}: {s}\r\nAge: 7\r\n",
    "a header in a dict": lambda n, s: str({"raw": f"User: anna\r\nAge: 7\r\n{n}: {s}\r\n", "z": 1}),
    "curl": lambda n, s: f"curl -H 'User: anna' -H '{n}: {s}' -H 'Age: 7' https://x.org",
    "a log": lambda n, s: f"[user=anna] [{n}={s}] [age=7]",
    "bearer": lambda n, s: f"user=anna {n}=Bearer {s} age=7",
}
"""The same for a secret without spaces and quotes."""

ENCODED = {
    "a query": lambda n, s: f"GET /?{urlencode({'user': 'anna', n: s, 'age': 7})} HTTP/1.1",
    "a query in a query": lambda n, s: f"/?user=anna&age=7&next={quote_plus(f'/x?{urlencode({n: s})}')}&z=1",
    "in a query in a query": lambda n, s: f"/?user=anna&age=7&next={quote_plus(quote_plus(f'/x?{urlencode({n: s})}'))}",
    "an encoded name": lambda n, s: f"/?user=anna&%{ord(n[0]):02X}{n[1:]}={quote(s, safe='')}&age=7",
    "a form in json": lambda n, s: json.dumps({"body": urlencode({"user": "anna", n: s, "age": 7}), "z": 1}),
}
"""The same for any secret, percent-encoded."""


def basic(secret, *, padded=True):
    """Return the credentials of Basic."""
    text = base64.b64encode(f"anna:{secret}".encode()).decode()
    return text if padded else text.rstrip("=")


SCHEMES = {
    "bearer": lambda s: f"Bearer {s}",
    "BEARER": lambda s: f"BEARER {s}",
    "bearer with a colon": lambda s: f"bearer {s}:{s}",
    "basic": lambda s: f"Basic {basic(s)}",
    "basic, lower case": lambda s: f"basic {basic(s, padded=False)}",
    "digest": lambda s: f'Digest username="anna", realm="x", nonce="1", uri="/", response="{s}", opaque="{s}"',
    "digest, upper case": lambda s: f"DIGEST username=anna, response={s}",
}
"""Credentials, which need no name before them."""

HEADER_SCHEMES = SCHEMES | {
    "token": lambda s: f"Token {s}",
    "negotiate": lambda s: f"Negotiate {s}",
    "aws": lambda s: f"AWS4-HMAC-SHA256 Credential={s}/eu/s3, SignedHeaders=host;x, Signature={s}",
    "hawk": lambda s: f'Hawk id="{s}", ts="1", mac="{s}"',
    "no scheme": lambda s: s,
}


def _escaped(secret):
    return secret.replace('"', '\\"')


HEADER_PLACES = {
    "a header": lambda h, s: f"GET /x HTTP/1.1\r\nHost: anna\r\n{h}: {s}\r\nAge: 7\r\n",
    "a message": lambda h, s: f"user=anna age=7 {h}: {s}",
    "json": lambda h, s: json.dumps({"user": "anna", h: s, "age": 7}),
    "json in json": lambda h, s: json.dumps({"user": "anna", "b": json.dumps({h: s}), "age": 7}),
    "a dict": lambda h, s: str({"user": "anna", h: s, "age": 7}),
    "pairs of bytes": lambda h, s: str([(b"user", b"anna"), (h.encode(), s.encode()), (b"age", b"7")]),
    "curl": lambda h, s: f"curl -H 'User: anna' -H '{h}: {s}' -H 'Age: 7' https://x.org",
    "curl in json": lambda h, s: json.dumps({"command": f'curl -u anna -H "{h}: {_escaped(s)}"', "age": 7}),
    "lines in json": lambda h, s: json.dumps({"raw": f"User: anna\r\n{h}: {s}\r\nAge: 7", "z": 1}),
    "lines in bytes": lambda h, s: str(f"User: anna\r\n{h}: {s}\r\nAge: 7\r\n".encode()),
    "=": lambda h, s: f"user=anna age=7 {h}={s}",
}

URLS = {
    "postgresql": lambda s: f"postgresql://anna:{s}@db:5432/orders?age=7",
    "redis": lambda s: f"redis://:{s}@db.anna:6379/7",
    "https": lambda s: f"GET https://anna:{s}@x.org/y?age=7 failed",
    "amqp in json": lambda s: json.dumps({"url": f"amqp://anna:{s}@mq/%2F", "age": 7}),
    "mongodb in a dict": lambda s: str({"url": f"mongodb+srv://anna:{s}@m.x.org", "age": 7}),
    "two": lambda s: f"postgresql://anna:{s}@db1:7/x,postgresql://anna:{s}@db2:7/x",
}
"""URLs with a password."""

TOKEN_URLS = {
    "github": lambda s: f"git clone https://{s}@github.com/anna/x7.git",
    "github, a password": lambda s: f"https://ghp_{s}:x-oauth-basic@github.com/anna/x7.git",
    "sentry": lambda s: f"SENTRY=https://{s}@o7.ingest.anna.io/7",
    "json": lambda s: json.dumps({"url": f"https://{s}@x.org/anna/7"}),
    "a known prefix": lambda s: f"redis://ghp_{s}@anna:7/",
}
"""URLs with a token as the user."""

HARMLESS = (
    "a=1, b: 2, 'c': 3, it's \"fine\": http://x.org/y?page=2",
    "GET /orders/7?page=2&sort=name HTTP/1.1",
    "connected to postgresql://db:5432/orders as anna",
    "redis://cache:6379/0, amqp://mq:5672/%2F, http://localhost:8080/users/anna@example.org",
    "ssh://git@github.com/anna/x.git",
    "mail from anna@example.org to bob@example.org: hello",
    "the author: anna, the passenger: bob, the monkey=george, basket=[1], compass: north, keyboard: qwerty",
    "bearer of good news, a basic understanding, to digest the news, a token of love",
    "Basic information about the plan: see https://x.org/basic",
    '401 WWW-Authenticate: Bearer realm="x", error="invalid_token"',
    'WWW-Authenticate: Basic realm="x"',
    "{'prompt_tokens': 12, 'completion_tokens': 7, 'total_tokens': 19}",
    '{"usage": {"input_tokens": 12, "max_tokens": 4096}}',
    "tokens=12 max_tokens: 7",
    '{"tokenizer": "gpt2", "secretary": "bob", "token_type": "x", "cookie_domain": "x.org", "token_count": 7}',
    "password=None token=null secret=true cookie: False",
    '{"password": null, "token": "", "cookies": {}, "secrets": []}',
    "it took 12:30:15, at 2026-11-29T11:40:50Z, on host:8080 and [::1]:8080",
    "C:\\Users\\anna\\x.txt and /var/lib/x/y.txt",
    "the password is wrong, the token has expired",
    "the user has no password, the session ended",
    '["id", "name", "email", 7, null, true]',
    'Traceback (most recent call last):\n  File "/app/x.py", line 7, in f\n    raise ValueError(x)\nValueError: x',
    "session started for anna (auth ok), pass 3 of 7, sid file missing",
    "std::token::Token::new and token://x",
    "<user>anna</user><age>7</age>",
    "Field(name='color', value='red'), <input name=\"color\" value=\"red\">, - name: color\n  value: red",
    "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
    'Cannot pass "subdomain" or "scheme" with "base".',
    "docker run --user 1000:1000 -u anna:staff x, ps -u root",
    "auth: failed, session: closed, pass: done",
    "SELECT id, name FROM users WHERE name = 'anna' AND age > 7",
    "http://token-service:8080/x and http://secrets.internal:8200/v1",
    'key: value, keys=[1, 2], primary_key=7, foreign key: id, sort_key="name"',
    "a --verbose --dry-run --port 80 b",
    "class 'shop.auth.Session' at 0x7f, authors: anna, authored=bob, oauth2: yes",
    "assert 1 == 2, x != y, a <= b, f(x=1)(y=2), {z: 3}",
    "1 error for Order\nage\n  Input should be an integer [type=int_type, input_value='seven', input_type=str]",
    "ünïcödé: ja, 漢=字, \u0130: \u0131, \u017f=s",
    "%3D %26 %zz 100% a%20b=c%20d x%2Fy=7",
)
"""Texts that stay as they are."""
