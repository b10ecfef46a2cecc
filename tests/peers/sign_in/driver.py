"""What the drivers in Python share: their arguments, the round of calls, and how tokens grow old.

    DRIVER URL [--key KEY] [--expire URL/control]

A driver signs in with $BROWSER, lists the tools, calls `echo` and `whoami`, lets its access token
expire, calls both again, and prints {"tools", "first", "second", ...} as JSON.
"""
import argparse
import json
import shlex
import time
import urllib.request

TWO_HOURS = 7200  # longer than any access token lives
MESSAGE = "Grüße – 你好"


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("--key", help="sent as x-litellm-api-key: Bearer KEY")
    p.add_argument("--expire", metavar="URL", help="the authorization server's /control; without it there is no second round")
    args = p.parse_args()
    args.headers = {"x-litellm-api-key": f"Bearer {args.key}"} if args.key else {}
    return args


def move_clock(control: str) -> None:
    """The authorization server's clock: its access tokens are expired when this returns."""
    raw = json.dumps({"seconds": TWO_HOURS}).encode()
    request = urllib.request.Request(f"{control}/advance", raw, {"content-type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20).read()


def move_both_clocks(control: str) -> None:
    """Ours too: Python's clients refresh when their own clock says so, and sign in anew when only the server's does."""
    move_clock(control)
    real = time.time
    time.time = lambda: real() + TWO_HOURS


async def rounds(args, list_tools, call, expired=move_both_clocks) -> dict:
    async def one() -> dict:
        return {"echo": await call("echo", {"message": MESSAGE}), "add": float(await call("add", {"a": 2.5, "b": 40})), "whoami": await call("whoami", {})}

    seen = {"tools": sorted(await list_tools()), "first": await one()}
    if args.expire:
        expired(args.expire)
        seen["second"] = await one()
    return seen


def browser_command(browser: str) -> str:
    """$BROWSER as Python's `webbrowser` wants it: a program in the background."""
    return f"{shlex.quote(browser)} %s &"
