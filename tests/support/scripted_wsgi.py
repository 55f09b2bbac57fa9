"""A WSGI application that runs steps, and a small server by PEP 3333; both record all events."""

from __future__ import annotations

import io
import itertools
import sys
from wsgiref.util import FileWrapper

from support.exchanges import environ


class Chunks:
    """What an application returns, which writes down how it is treated."""

    def __init__(self, plan, story, start_response):
        self.plan, self.story, self.start_response = plan, story, start_response

    def generate(self):
        """Yield the chunks, start late, and fail at the planned step."""
        try:
            start_as_planned(self.plan["late_starts"], self.start_response, self.story)
            for number, chunk in enumerate(self.plan["chunks"]):
                if number == self.plan["fails_at"]:
                    raise self.plan["with_"]("in the body")
                yield chunk
        finally:
            self.story.append("generator over")

    def __iter__(self):
        self.story.append("iterated")
        return self.generate()

    def close(self):
        """Write it down."""
        self.story.append("closed")
        if self.plan["close_raises"] is not None:
            raise self.plan["close_raises"]("in close")


class Sized(Chunks):
    """One that lies about its length."""

    def __len__(self):
        return 1


class CloseableList(list):
    """A list with a `close` method."""

    story = ()

    def close(self):
        """Write it down."""
        self.story.append("closed")


class File(io.BytesIO):
    """A file that writes down when it was closed."""

    def close(self):
        """Write it down."""
        if not self.closed:
            self.story.append("file closed")
        super().close()


def start_as_planned(plans, start_response, story):
    """Call `start_response` as often and in the ways that were planned."""
    for how, status, headers in plans:
        if how == "keywords":
            start_response(status=status, headers=headers)
        elif how == "exc_info":
            try:
                raise ValueError("again")  # noqa: TRY301
            except ValueError:
                start_response(status, headers, sys.exc_info())
        elif how == "caught":
            try:
                start_response(status, headers)
            except Exception as error:
                story.append(("caught", type(error), str(error)))
        else:
            write = start_response(status, headers)
            if how == "write":
                write(b"written")


def application(env, start_response):
    """Run the steps of the environ."""
    plan, story = env["plan"], env["story"]
    start_as_planned(plan["starts"], start_response, story)
    if plan["raises"] is not None:
        raise plan["raises"]("by the application")
    chunks = Chunks(plan, story, start_response)
    closeable = CloseableList(plan["chunks"])
    closeable.story = story
    file = File(b"".join(chunk for chunk in plan["chunks"] if isinstance(chunk, bytes)))
    file.story = story
    return {
        "list": list(plan["chunks"]),
        "tuple": tuple(plan["chunks"]),
        "generator": chunks.generate(),
        "iterator": iter(plan["chunks"]),
        "sized": Sized(plan, story, start_response),
        "closeable list": closeable,
        "file": env["wsgi.file_wrapper"](file, 2),
        "none": None,
        "text": "text",
        "not iterable": 17,
    }[plan["kind"]]


class Server:
    """A small server after PEP 3333, which writes down what it saw."""

    def __init__(self, *, reads, closes, start_fails_at, start_error, sends_files):
        self.reads, self.closes, self.sends_files = reads, closes, sends_files
        self.start_fails_at, self.start_error = start_fails_at, start_error
        self.story = []
        self.starts = 0
        self.is_started = self.is_sent = False

    def start_response(self, status, headers, exc_info=None):
        """Take the status, or refuse it."""
        if isinstance(headers, list):
            headers = [one for one in headers if one[0] != "X-Request-ID"]
        self.story.append(("start", repr(status), headers, exc_info is not None))
        self.starts += 1
        if self.starts - 1 == self.start_fails_at:
            raise self.start_error("by the server")
        if exc_info is not None and self.is_sent:
            raise exc_info[1]
        if exc_info is None and self.is_started:
            raise AssertionError("started twice")
        self.is_started = True
        return self.write

    def write(self, data):
        """Send."""
        if not self.is_started:
            raise AssertionError("not started")
        self.is_sent = True
        self.story.append(("sent", b"" + data))

    def run(self, app, plan, **more):
        """Serve one request, with more keys in its environ, and return how it ended."""
        more |= {"plan": plan, "story": self.story, "wsgi.file_wrapper": FileWrapper}
        result = None
        try:
            result = app(environ(**more), self.start_response)
            self.story.append(("length", len(result) if hasattr(result, "__len__") else None))
            if self.sends_files and isinstance(result, FileWrapper):
                self.write(result.filelike.read())
            else:
                for chunk in itertools.islice(result, self.reads):
                    self.write(chunk)
        except BaseException as error:
            self.story.append((type(error), str(error), type(error.__cause__)))
        for _ in range(self.closes):
            try:
                if hasattr(result, "close"):
                    result.close()
            except BaseException as error:
                self.story.append(("close raised", type(error), str(error)))
