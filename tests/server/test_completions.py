"""What is corrected, what goes through as it is, and that nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_integrations import Aligner, CorrectWhen
from aligner_integrations.errors import CorrectionError
from aligner_integrations.gates import is_code, is_json
from aligner_integrations.server.admission import Admission
from aligner_integrations.server.metrics import Metrics
from aligner_integrations.server.streaming import CompletionStream
from aligner_integrations.step import CorrectionStep
from tests.server.conftest import ScriptedEngine, Served
from tests.server.upstream import TOOL_CALL, FakeUpstream


def read(text: str) -> list[dict[str, Any]]:
    events = [e.removeprefix("data: ") for e in text.split("\n\n") if e.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def join(chunks: list[dict[str, Any]], index: int = 0) -> tuple[str, dict[str, Any]]:
    """The text of a choice, and all its other fields."""
    text, fields = "", {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                text += choice["delta"].get("content") or ""
                fields |= {k: v for k, v in {**choice["delta"], **choice}.items() if v is not None}
    return text, fields


def test_fields_are_kept(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    upstream.finish = "length"
    upstream.message = {
        "reasoning_content": "thinking",
        "annotations": [{"type": "url_citation"}],
        "refusal": None,
        "vendor": 1,
    }
    upstream.choice = {"content_filter_results": {"hate": False}}
    served = serve()
    whole = served.post()
    choice = whole.json()["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Eggs?: fine",
        **upstream.message,
    }
    assert choice["finish_reason"] == "length"
    assert choice["content_filter_results"] == {"hate": False}
    assert choice["aligner"]["changed"] is True
    assert whole.json()["usage"]["total_tokens"] == 14
    assert whole.json()["vendor_field"] == {"kept": True}
    assert whole.headers["x-upstream-request-id"] == "req-1"
    chunks = read(served.post({"stream": True, "stream_options": {"include_usage": True}}).text)
    text, fields = join(chunks)
    assert text == "Eggs?: fine"
    assert fields["reasoning_content"] == "thinking"
    assert fields["annotations"] == [{"type": "url_citation"}]
    assert fields["content_filter_results"] == {"hate": False}
    assert fields["finish_reason"] == "length"
    assert fields["aligner"]["changed"] is True
    assert chunks[-1]["usage"]["total_tokens"] == 14
    assert {(c["id"], c["created"], c["model"], c["system_fingerprint"]) for c in chunks} == {
        ("chatcmpl-7", 1_700_000_000, "m", "fp_1")
    }


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_stay_where_the_text_does(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve()
    for changes in (True, False):
        served.engine.write = (lambda job: "other") if changes else (lambda job: job.answer)
        response = served.post({"stream": stream, "logprobs": True})
        if stream:
            text, fields = join(read(response.text))
            logprobs = fields.get("logprobs")
        else:
            choice = response.json()["choices"][0]
            text, logprobs = choice["message"]["content"], choice["logprobs"]
        assert text == ("other" if changes else upstream.answers[0])
        tokens = None if logprobs is None else "".join(t["token"] for t in logprobs["content"])
        assert tokens == (None if changes else upstream.answers[0])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", ["", "Let me look that up."])
def test_tool_calls_pass(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool, said: str
) -> None:
    upstream.answers, upstream.message = [said], {"tool_calls": [TOOL_CALL]}
    upstream.finish = "tool_calls"
    served = serve()
    response = served.post({"stream": stream})
    if stream:
        text, fields = join(read(response.text))
        assert fields["finish_reason"] == "tool_calls"
        assert "aligner" not in fields
        assert '{\\"city\\": \\"Paris\\"}' in response.text
    else:
        message = response.json()["choices"][0]["message"]
        text = message["content"]
        assert message["tool_calls"] == [TOOL_CALL]
    assert text == said
    assert not served.engine.jobs


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_json_mode_passes(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool, kind: str
) -> None:
    served = serve()
    response = served.post({"stream": stream, "response_format": {"type": kind}})
    text = (
        join(read(response.text))[0]
        if stream
        else response.json()["choices"][0]["message"]["content"]
    )
    assert text == upstream.answers[0]
    assert "aligner" not in response.text
    assert not served.engine.jobs


@pytest.mark.parametrize("stream", [False, True])
def test_gates_and_skips_are_recorded(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve(step={"correct_when": CorrectWhen(tags=("public",))})
    for metadata, skipped in ({"audience": "public"}, None), ({"audience": "us"}, "correct_when"):
        response = served.post({"stream": stream, "metadata": metadata})
        choice = join(read(response.text))[1] if stream else response.json()["choices"][0]
        assert choice["aligner"]["skipped"] == skipped
    upstream.answers = [" \n"]
    response = served.post({"stream": stream})
    text = join(read(response.text))[0] if stream else ""
    if not stream:
        text = response.json()["choices"][0]["message"]["content"]
    assert text == " \n"


@pytest.mark.parametrize("stream", [False, True])
def test_policy_is_recorded(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve(step={"on_error": "original"})
    served.engine.error = CorrectionError("no luck")
    response = served.post({"stream": stream})
    choice = join(read(response.text))[1] if stream else response.json()["choices"][0]
    assert choice["aligner"]["policy"] == "original"
    assert choice["aligner"]["error"] == "CorrectionError"
    assert 'outcome="original"} 1.0' in served.gateway.metrics.render().decode()


def say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("history", "messages", "question"),
    [
        ("last", [say("system", "S"), say("user", "Q1"), say("assistant", "A"), say("user", "Q2")],
         "Q2"),
        ("all", [say("system", "S"), say("user", "Q1"), say("assistant", "A"), say("user", "Q2")],
         "User: Q1\nAssistant: A\nUser: Q2"),
        ("last", [say("user", "Q"), say("assistant", None), say("tool", "T")], "Q"),
        ("last", [say("user", [{"type": "text", "text": "What"}, {"type": "image_url"},
                               {"type": "text", "text": "is it?"}])], "What\nis it?"),
        ("last", [say("system", "Say hello.")], "Say hello."),
        (lambda messages: messages[0]["content"], [say("user", "Q"), say("user", "R")], "Q"),
    ],
)  # fmt: skip
def test_question(
    serve: Callable[..., Served],
    upstream: FakeUpstream,
    history: Any,
    messages: list[Any],
    question: str,
) -> None:
    served = serve(history=history)
    assert served.post({"messages": messages}).status_code == 200
    assert served.engine.jobs[0].question == question


@pytest.mark.parametrize("stream", [False, True])
def test_parts_of_content(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    """Some servers answer in parts: thoughts stay, texts are one answer."""
    served = serve()
    thought = {"type": "thinking", "thinking": "hm"}
    parts = [thought, {"type": "text", "text": "Boil "}, {"type": "text", "text": "them."}]
    if not stream:
        upstream.message = {"content": parts}
        content = served.post().json()["choices"][0]["message"]["content"]
        assert content == [thought, {"type": "text", "text": "Eggs?: fine"}]
    else:
        upstream.raw = [
            json.dumps({"choices": [{"index": 0, "delta": {"content": [part]}}]}) for part in parts
        ]
        upstream.raw += ['{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}']
        upstream.raw += ["[DONE]"]
        deltas = [c["choices"][0]["delta"] for c in read(served.post({"stream": True}).text)]
        assert deltas[0] == {"content": [thought]}
        assert "".join(d.get("content", "") for d in deltas[1:]) == "Eggs?: fine"
    assert served.engine.jobs[0].answer == "Boil them."


def test_body_goes_on_unchanged(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    body = b'{"messages": [{"role": "user", "content": "\xc3\xa9"}],  "model":"m", "x": 1.0e2}'
    headers = {
        "content-type": "application/json",
        "openai-project": "p",
        "cookie": "secret",
        "authorization": "Bearer theirs",
    }
    assert serve().post(body, headers=headers).status_code == 200
    assert upstream.bodies == [body]
    assert upstream.headers[0]["openai-project"] == "p"
    assert upstream.headers[0]["authorization"] == "Bearer theirs"
    assert "cookie" not in upstream.headers[0]


def test_azure_and_deepseek_streams(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    """A first chunk without choices goes on at once; usage beside the last choice is kept."""
    upstream.raw = [
        '{"choices": [], "prompt_filter_results": [1]}',
        '{"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]}',
        '{"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],'
        ' "usage": {"total_tokens": 3}}',
        "[DONE]",
    ]
    chunks = read(serve().post({"stream": True}).text)
    assert chunks[0]["prompt_filter_results"] == [1]
    assert chunks[-1]["usage"] == {"total_tokens": 3}
    assert chunks[1]["choices"][0]["delta"] == {"role": "assistant"}


def test_what_comes_after_the_end_comes_last(
    serve: Callable[..., Served], upstream: FakeUpstream
) -> None:
    """As OpenRouter does: the choice once more, with what it cost."""
    upstream.raw = [
        '{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}',
        '{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
        '{"choices": [{"index": 0, "delta": {"content": ""}}], "usage": {"total_tokens": 3}}',
        "[DONE]",
    ]
    chunks = read(serve().post({"stream": True}).text)
    assert join(chunks)[0] == "Eggs?: fine"
    assert chunks[-1]["usage"] == {"total_tokens": 3}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_answers_are_read_while_they_arrive(
    serve: Callable[..., Served], upstream: FakeUpstream
) -> None:
    served = serve()
    upstream.answers = ["one two three"]
    served.engine.ahead = []
    text, _ = join(read(served.post({"stream": True}).text))
    assert text == "Eggs?: fine"
    assert served.engine.ahead == ["Eggs?", "one", " two", " three"]
    assert served.engine.jobs[0].read_ahead is not None


@settings(max_examples=60)
@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=60),
)
def test_streams_equal_whole_answers(answers: list[str], cuts: list[tuple[int, int]]) -> None:
    """However an answer is cut, and however choices interleave, the corrected texts are the same,
    and no choice loses its end."""
    left = list(answers)
    chunks: list[dict[str, Any]] = []

    def put(index: int, text: str, finish: str | None = None) -> None:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        chunks.append({"id": "c", "choices": [choice]})

    for index, size in cuts:
        if index < len(left) and left[index]:
            put(index, left[index][:size])
            left[index] = left[index][size:]
    for index, rest in enumerate(left):
        put(index, rest, f"end {index}")

    async def run() -> list[dict[str, Any]]:
        engine = ScriptedEngine()
        engine.write = lambda job: f"<{job.answer}>"
        step = CorrectionStep(aligner=Aligner(engine))

        async def send() -> AsyncIterator[dict[str, Any]]:
            for chunk in chunks:
                yield chunk

        stream = CompletionStream(send(), lambda p: step.astream("Q", p), Metrics(Admission(1, 1)))
        events = b"".join([event async for event in stream.events()])
        await stream.aclose()
        return read(events.decode())

    done = asyncio.run(run())
    for index, answer in enumerate(answers):
        text, fields = join(done, index)
        skipped = not answer.strip() or is_json(answer) or is_code(answer)
        assert text == (answer if skipped else f"<{answer}>")
        assert fields["finish_reason"] == f"end {index}"
