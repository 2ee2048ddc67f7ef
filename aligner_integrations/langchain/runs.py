"""Run trees as LangChain's callbacks tell them, and what comes before what in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage


@dataclass(slots=True, eq=False)
class LLMCall:
    """One LLM run: what it was asked and, once it has ended, what it answered."""

    run_id: UUID
    messages: list[BaseMessage]
    outputs: set[str] = field(default_factory=set)
    ended: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """One run in a tree, with the number that its parent gave it as a step."""

    parent: UUID | None
    step: int | None
    inputs: dict[str, Any] | None
    is_prompt: bool
    ended: bool = False


@dataclass(slots=True, eq=False)
class RunTree:
    """The runs below one root, and the LLM calls among them in the order they began."""

    runs: OrderedDict[UUID, Run] = field(default_factory=OrderedDict)
    calls: list[LLMCall] = field(default_factory=list)
    ids: dict[str, list[LLMCall]] = field(default_factory=dict)

    def path(self, run_id: UUID) -> Iterator[UUID]:
        """A run and its ancestors, from the bottom up."""
        current: UUID | None = run_id
        while current is not None and current in self.runs:
            yield current
            current = self.runs[current].parent

    def ancestors(self, run_id: UUID) -> Iterator[Ancestor]:
        """The runs around a run, nearest first."""
        path = list(self.path(run_id))
        for below, ancestor in pairwise(path):
            yield Ancestor(self, ancestor, below)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A run around ours, seen from ours.

    Attributes:
        tree: The tree of both.
        run_id: The ancestor.
        below: Its child on the way down to our run.
    """

    tree: RunTree
    run_id: UUID
    below: UUID

    @property
    def run(self) -> Run:
        """The ancestor's own entry."""
        return self.tree.runs[self.run_id]

    def find_step(self, run_id: UUID, ended: bool) -> int | None:
        """In which step of this ancestor another run is, if that step comes before ours.

        A later step cannot have ended before us. If it has, the numbers are misleading (a
        sequence that streams numbers equal steps alike), and it does come before us. Runs
        without a number, in a function, come before us if they have ended.
        """
        via = self._child_towards(run_id)
        if via is None or via == self.below:
            return None
        theirs, ours = self.tree.runs[via].step, self.tree.runs[self.below].step
        if ended or (theirs is not None and ours is not None and theirs < ours):
            return theirs or 0
        return None

    def _child_towards(self, run_id: UUID) -> UUID | None:
        below = None
        for current in self.tree.path(run_id):
            if current == self.run_id:
                return below
            below = current
        return None
