"""Recording which question each LLM run was asked.

In ``llm | AlignerRunnable()`` a step gets the LLM's output only. A callback handler, registered
once for every callback manager of the process, notes the runs of each run tree, what their LLMs
were asked and what they answered; `aligner_integrations.langchain.questions` looks it up.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import OrderedDict
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from aligner_integrations.langchain.runs import LLMCall, Run, RunTree

MAX_TREES = 1024
MAX_RUNS_PER_TREE = 20_000
MAX_CALLS_PER_TREE = 512
MAX_MESSAGE_IDS = 1024

_STEP = re.compile(r"(?:seq|graph):step:(\d+)")
_TRANSCRIPT = re.compile(r"^(?:System|Human|AI): ", re.MULTILINE)


class QuestionRecorder(BaseCallbackHandler):
    """Keeps run trees while their roots run, and the latest message ids beyond that.

    All of it is bounded: LLM runs that were cancelled never report an end.
    """

    run_inline = True  # in the caller's thread, before the run goes on

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._roots: dict[UUID, UUID] = {}
        self._trees: OrderedDict[UUID, RunTree] = OrderedDict()
        self._ids: OrderedDict[str, list[LLMCall]] = OrderedDict()

    def find_tree(self, run_id: UUID) -> RunTree | None:
        """The tree that a run belongs to. Hold ``lock`` while reading it."""
        root = self._roots.get(run_id)
        return None if root is None else self._trees.get(root)

    def find_calls(self, message_id: str) -> list[LLMCall]:
        """Recent calls, of any tree, that answered with this message id. Hold ``lock``."""
        return self._ids.get(message_id, [])

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a run's place in its tree."""
        self._add(run_id, parent_run_id, tags, inputs, kwargs.get("run_type") == "prompt")

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Tools run chains; they are part of the tree."""
        self._add(run_id, parent_run_id, tags)

    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Retrievers may call LLMs; they are part of the tree."""
        self._add(run_id, parent_run_id, tags)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what a chat model is asked."""
        self._add_call(run_id, parent_run_id, tags, messages[0] if messages else [])

    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what a text model is asked."""
        messages = parse_prompt(prompts[0]) if prompts else []
        self._add_call(run_id, parent_run_id, tags, messages)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Note what an LLM answered: texts and message ids."""
        with self.lock:
            tree = self.find_tree(run_id)
            call = (
                next((c for c in reversed(tree.calls) if c.run_id == run_id), None)
                if tree
                else None
            )
            if tree is not None and call is not None:
                call.ended = True
                for generation in itertools.chain.from_iterable(response.generations):
                    call.outputs.add(generation.text.strip())
                    if isinstance(generation, ChatGeneration):
                        call.outputs.add(str(generation.message.text).strip())
                        self._add_id(tree, generation.message.id, call)
        self._end(run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the input of a run that streamed, known only now."""
        self._end(run_id, kwargs.get("inputs"))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the tree when its root ends."""
        self._end(run_id)

    def _add(
        self,
        run_id: UUID,
        parent: UUID | None,
        tags: list[str] | None,
        inputs: Any = None,
        is_prompt: bool = False,
    ) -> RunTree:
        step = next((int(m[1]) for tag in tags or () if (m := _STEP.fullmatch(tag))), None)
        with self.lock:
            # A parent that was never seen, or is forgotten, makes this run a root.
            root = self._roots.get(parent, run_id) if parent else run_id
            tree = self._trees.setdefault(root, RunTree())
            known = isinstance(inputs, dict)
            tree.runs[run_id] = Run(
                parent if root != run_id else None, step, inputs if known else None, is_prompt
            )
            self._roots[run_id] = root
            if len(self._trees) > MAX_TREES:
                self._forget(next(iter(self._trees)))
            if len(tree.runs) > MAX_RUNS_PER_TREE:
                oldest = next((key for key, run in tree.runs.items() if run.ended), None)
                if oldest is not None:
                    del tree.runs[oldest]
                    self._roots.pop(oldest, None)
            return tree

    def _add_call(
        self,
        run_id: UUID,
        parent: UUID | None,
        tags: list[str] | None,
        messages: list[BaseMessage],
    ) -> None:
        with self.lock:
            tree = self._add(run_id, parent, tags)
            call = LLMCall(run_id, list(messages))
            tree.calls.append(call)
            del tree.calls[:-MAX_CALLS_PER_TREE]
            # LangChain's own ids for messages without one, while streaming and otherwise.
            for message_id in (f"lc_run--{run_id}", f"lc_run--{run_id}-0"):
                self._add_id(tree, message_id, call)

    def _add_id(self, tree: RunTree, message_id: str | None, call: LLMCall) -> None:
        if not message_id:
            return
        for ids in (tree.ids, self._ids):
            calls = ids.setdefault(message_id, [])
            if call not in calls:
                calls.append(call)
                del calls[:-MAX_CALLS_PER_TREE]
        self._ids.move_to_end(message_id)
        while len(self._ids) > MAX_MESSAGE_IDS:
            self._ids.popitem(last=False)

    def _end(self, run_id: UUID, inputs: Any = None) -> None:
        with self.lock:
            tree = self.find_tree(run_id)
            if tree is None:
                return
            tree.runs[run_id].ended = True
            if isinstance(inputs, dict):
                tree.runs[run_id].inputs = inputs
            if self._roots[run_id] == run_id:
                self._forget(run_id)

    def _forget(self, root: UUID) -> None:
        for run_id in self._trees.pop(root).runs:
            self._roots.pop(run_id, None)


def parse_prompt(prompt: str) -> list[BaseMessage]:
    """A text model's prompt as messages.

    Chat prompts reach text models as a transcript ("Human: ...", "AI: ..."); anything else is
    one human message.
    """
    marks = list(_TRANSCRIPT.finditer(prompt))
    if not marks or marks[0].start() != 0:
        return [HumanMessage(prompt)]
    ends = [mark.start() - 1 for mark in marks[1:]] + [len(prompt)]
    kinds = {"Human: ": HumanMessage, "AI: ": AIMessage, "System: ": SystemMessage}
    return [kinds[mark[0]](prompt[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]


RECORDER = QuestionRecorder()
_recorder: ContextVar[QuestionRecorder | None] = ContextVar(
    "aligner_question_recorder", default=RECORDER
)
register_configure_hook(_recorder, inheritable=True)
