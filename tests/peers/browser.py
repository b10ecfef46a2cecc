"""A browser without a screen: keeps cookies, follows redirects (to loopback listeners too), and fills
in the forms it meets the way a person would who says yes.

As a program it is what $BROWSER names: `browser.py URL`. It appends one JSON line to $BROWSER_LOG:
{"hops": [{"method", "url", "status"}], "title", "text"}. From Python: `Browser(...).visit(url)`.
$BROWSER_USER signs in (default alice), $BROWSER_DENY=1 presses the button that denies, $BROWSER_CA is
a file of extra authorities, $BROWSER_COOKIES a file that keeps the cookies from run to run.
"""
import dataclasses
import fcntl
import html.parser
import http.client
import http.cookiejar
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

DEADLINE = 20.0
APPROVE = re.compile(r"\b(allow|approve|accept|authori[sz]e|continue|yes|sign in|log in|login)\b", re.I)
DENY = re.compile(r"\b(deny|cancel|reject|refuse|decline|no)\b", re.I)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass
class Form:
    action: str
    method: str
    fields: list[tuple[str, str, str]]  # type, name, value
    buttons: list[tuple[str, str, str]]  # name, value, label


class Page(html.parser.HTMLParser):
    """The forms and the text of a page."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.title, self.text = "", ""
        self._form: Form | None = None
        self._button: tuple[str, str] | None = None
        self._label, self._in = "", ""
        self.feed(body)

    def handle_starttag(self, tag, attributes) -> None:
        a = {k: v or "" for k, v in attributes}
        self._in = tag
        if tag == "form":
            self._form = Form(a.get("action", ""), a.get("method", "get").lower(), [], [])
            self.forms.append(self._form)
        elif self._form is None:
            return
        elif tag == "button" and a.get("type", "submit") == "submit":
            self._button, self._label = (a.get("name", ""), a.get("value", "")), ""
        elif tag == "input":
            kind = a.get("type", "text").lower()
            if kind == "submit":
                self._form.buttons.append((a.get("name", ""), a.get("value", ""), a.get("value", "")))
            elif kind not in ("checkbox", "radio") or "checked" in a:
                self._form.fields.append((kind, a.get("name", ""), a.get("value", "on" if kind == "checkbox" else "")))

    def handle_endtag(self, tag) -> None:
        self._in = ""
        if tag == "button" and self._button and self._form is not None:
            self._form.buttons.append((*self._button, self._label.strip()))
            self._button = None
        elif tag == "form":
            self._form = None

    def handle_data(self, data) -> None:
        if self._button is not None:
            self._label += data
        if self._in == "title":
            self.title += data
        elif self._in not in ("script", "style"):
            self.text += data


@dataclasses.dataclass
class Answer:
    url: str
    status: int
    headers: http.client.HTTPMessage
    body: str
    page: Page


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs):
        return None


class Browser:
    def __init__(self, user: str = "alice", deny: bool = False, ca: str | None = None, cookies: str | None = None) -> None:
        # As browsers do, cookies marked Secure also go to loopback addresses.
        policy = http.cookiejar.DefaultCookiePolicy(secure_protocols=("https", "wss", "http"))
        self.jar = http.cookiejar.LWPCookieJar(cookies, policy=policy)
        if cookies and os.path.exists(cookies):
            self.jar.load(ignore_discard=True)
        self.user, self.deny = user, deny
        self.hops: list[dict] = []
        tls = ssl.create_default_context(cafile=ca)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect, urllib.request.HTTPSHandler(context=tls), urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, url: str, form: list[tuple[str, str]] | None = None, referer: str | None = None) -> Answer:
        """One request; a redirect is an answer like any other."""
        to = urllib.parse.urlsplit(url)
        if to.scheme not in ("http", "https") or to.hostname not in LOOPBACK:
            raise RuntimeError(f"the browser was sent off this machine: {url}")
        headers = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "accept-language": "en", "user-agent": "Mozilla/5.0 (peers)"}
        if form is not None:
            headers |= {"content-type": "application/x-www-form-urlencoded"}
            # What browsers send with a form: its own origin, which servers compare.
            at = urllib.parse.urlsplit(referer or url)
            headers |= {"origin": f"{at.scheme}://{at.netloc}", "sec-fetch-site": "same-origin" if at.netloc == to.netloc else "cross-site"}
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(url.partition("#")[0], data, headers)
        until = time.monotonic() + DEADLINE
        while True:
            try:
                answer = self.opener.open(request, timeout=DEADLINE)
            except urllib.error.HTTPError as e:
                answer = e
            except urllib.error.URLError as e:
                # Some clients open the browser first and their listener after it; a person is slower than both.
                if not isinstance(e.reason, ConnectionRefusedError) or time.monotonic() > until:
                    raise
                time.sleep(0.02)
                continue
            body = answer.read().decode("utf-8", "replace")
            self.hops.append({"method": request.get_method(), "url": url, "status": answer.status})
            return Answer(url, answer.status, answer.headers, body, Page(body))

    def visit(self, url: str, stop: str | None = None, limit: int = 30) -> Answer:
        """Goes on until a page without a form to fill in; what begins with `stop` is not asked for."""
        answer = self.get(url)
        for _ in range(limit):
            location = answer.headers.get("location")
            if location and 300 <= answer.status < 400:
                url = urllib.parse.urljoin(answer.url, location)
                if stop and url.startswith(stop):
                    self.hops.append({"method": "GET", "url": url, "status": 0})
                    return Answer(url, 0, answer.headers, "", Page(""))
                answer = self.get(url)
                continue
            filled = self.fill_in(answer) if answer.status == 200 else None
            if filled is None:
                return answer
            action, method, fields = filled
            if method == "post":
                answer = self.get(action, fields, answer.url)
            else:
                answer = self.get(f"{action.partition('?')[0]}?{urllib.parse.urlencode(fields)}")
        raise RuntimeError(f"no end after {limit} pages: {[hop['url'] for hop in self.hops]}")

    def fill_in(self, answer: Answer):
        """The first form with a button to press: its hidden fields as they are, a name where one is asked for."""
        wanted = [DENY, APPROVE] if self.deny else [APPROVE]
        for pattern in wanted:
            for form in answer.page.forms:
                for name, value, label in form.buttons:
                    if not pattern.search(f"{label} {value}"):
                        continue
                    fields = [(n, v or {"text": self.user, "email": f"{self.user}@example.test", "password": "secret"}.get(kind, ""))
                              for kind, n, v in form.fields if n]
                    return urllib.parse.urljoin(answer.url, form.action), form.method, fields + ([(name, value)] if name else [])
        return None

    def save(self) -> None:
        if self.jar.filename:
            self.jar.save(ignore_discard=True)


def query(url: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True))


def main(url: str) -> None:
    env = os.environ.get
    browser = Browser(env("BROWSER_USER", "alice"), env("BROWSER_DENY") == "1", env("BROWSER_CA"), env("BROWSER_COOKIES"))
    seen = {"hops": browser.hops}
    try:
        answer = browser.visit(url)
        seen |= {"title": answer.page.title, "text": " ".join(answer.page.text.split())[:500]}
        browser.save()
    except Exception as e:  # whatever it is, the test has to see it
        seen |= {"error": repr(e)}
    if env("BROWSER_LOG"):
        with open(env("BROWSER_LOG"), "a") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
