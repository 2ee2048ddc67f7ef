"""One request through the gateway, from its plan to its end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from docs.benchmarks.reliability.plans import CANCELLED, RIGHT, Plan
from docs.benchmarks.reliability.tally import Tally

SILENCE = 120.0
"""Seconds without a byte after which a request counts as lost."""


@dataclass(frozen=True, slots=True)
class End:
    """How a request ended, and what there is to say about it."""

    how: str
    detail: str = ""


class Client:
    """Asks as planned, and looks at every byte that comes back.

    Args:
        http: A client; its connections are used again.
        url: The gateway.
        tally: Where ends are counted.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, tally: Tally) -> None:
        self._http = http
        self._url = f"{url}/v1/chat/completions"
        self._tally = tally

    async def ask(self, plan: Plan) -> None:
        """Ask once, and count how it ended."""
        started = time.perf_counter()
        taken: dict[str, float] = {}
        with anyio.move_on_after(plan.hang_up) as patience:
            try:
                end = await self._exchange(plan, started, taken)
            except httpx.HTTPError as error:
                end = End("lost", f"{type(error).__name__}: {error}")
            except (ValueError, KeyError, TypeError) as error:  # no completion, no error either
                end = End("mixed up", f"{type(error).__name__}: {error}")
        if patience.cancelled_caught:
            end = End(CANCELLED)
        if self._tally.note(plan.name, end.how, plan.ends, end.detail) and end.how == RIGHT:
            kind = "stream" if plan.stream else "whole"
            slow = ", slow upstream" if plan.fault == "slow" else ""
            self._tally.note_seconds(kind + slow, time.perf_counter() - started)
            if "first" in taken and not slow:
                self._tally.first.append(taken["first"])

    async def _exchange(self, plan: Plan, started: float, taken: dict[str, float]) -> End:
        body = _write_body(plan)
        headers = {"content-type": "application/json"}
        async with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                return _read_error(response)
            if not plan.stream:
                return _read_whole(plan, json.loads(await response.aread()))
            reader = _StreamReader(plan)
            async for line in response.aiter_lines():
                end = reader.read(line)
                if reader.text and "first" not in taken:
                    taken["first"] = time.perf_counter() - started
                if end is not None and end.how == "mixed up":
                    return end
            return reader.end or End("lost", f"the stream ended after {reader.text!r:.200}")


class _StreamReader:
    """A stream's lines; after [DONE] or an error nothing may come."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.text = ""
        self._finished = False
        self.end: End | None = None

    def read(self, line: str) -> End | None:
        if not line or line.startswith(":"):
            return self.end
        if self.end is not None:
            self.end = End("mixed up", f"after the end came {line!r:.200}")
        elif line == "data: [DONE]":
            right = self._finished and self.text == self._plan.pair.text
            self.end = End(RIGHT) if right else _mixed(self._plan, self.text)
        else:
            self.end = self._take(json.loads(line.removeprefix("data: ")))
        return self.end

    def _take(self, chunk: dict[str, Any]) -> End | None:
        if "error" in chunk:
            return End(f"event {chunk['error'].get('code')}", chunk["error"]["message"])
        if chunk["id"] != self._plan.name:
            return End("mixed up", f"a chunk of {chunk['id']}")
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""
            self._finished = self._finished or choice["finish_reason"] is not None
        if not self._plan.pair.text.startswith(self.text):  # so nothing uncorrected, ever
            return _mixed(self._plan, self.text)
        return None


def _write_body(plan: Plan) -> bytes:
    if plan.fault == "bad body":
        return b'{"model": "m", "messages": ['
    body = {
        "model": "other" if plan.fault == "other model" else "m",
        "messages": [{"role": "user", "content": plan.pair.question}],
        "stream": plan.stream,
        "metadata": {"request": plan.name, "fault": plan.fault},
    }
    return json.dumps(body).encode()


def _read_error(response: httpx.Response) -> End:
    error = response.json()["error"]
    return End(f"{response.status_code} {error.get('code')}", error["message"])


def _read_whole(plan: Plan, completion: dict[str, Any]) -> End:
    (choice,) = completion["choices"]
    text = choice["message"]["content"]
    if completion["id"] != plan.name:
        return End("mixed up", f"the answer of {completion['id']}")
    return End(RIGHT) if text == plan.pair.text else _mixed(plan, text)


def _mixed(plan: Plan, text: str) -> End:
    return End("mixed up", f"{text!r:.200} instead of {plan.pair.text!r:.200}")
