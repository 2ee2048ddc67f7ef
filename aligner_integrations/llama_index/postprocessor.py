"""`AlignerPostprocessor`: corrects the text of retrieved nodes, before an LLM reads it."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from aligner_integrations.aligner import Aligner, Options, Pair
from aligner_integrations.correction import Correction
from aligner_integrations.errors import ConfigurationError, QuestionNotFoundError
from aligner_integrations.llama_index.base import RECORD_KEY, CorrectionStep
from aligner_integrations.options import GenerationOptions, Policy


class AlignerPostprocessor(BaseNodePostprocessor):  # type: ignore[misc]
    """Corrects retrieved texts as answers to the query.

    For sources that hold answers: forum threads, support tickets, chat logs, FAQ entries. The
    nodes are copied, so index and document store keep what they have. A copy keeps its id,
    score, relationships and metadata, to which the record of its correction is added under
    ``"aligner"``, hidden from LLM and embedding model. The embedding of a text that was changed
    is dropped. Nodes without text and nodes with an image, sound or video pass through.

    To correct what the LLM answers, use `AlignerQueryEngine`.

    Args:
        aligner: The aligner; by default one is loaded when the first nodes come.
        model: What to load: a directory or a model hub id, see `Aligner.from_pretrained`; None
            for the bundled model.
        on_error: What becomes of a text that could not be corrected: ``"raise"`` the error, the
            ``"original"`` text, or ``"refuse"``.
        on_overflow: The same for a text that does not fit the aligner's context; by default what
            the options say.
        options: How to write corrections; by default the aligner's own options.
        source: All arguments of `Aligner.from_pretrained` in place of ``model``; `from_dict`
            passes what `to_dict` wrote.
        **kwargs: Fields of `BaseNodePostprocessor`.

    Raises:
        ConfigurationError: An argument has a value that cannot work.

    Example:
        >>> from aligner_integrations.llama_index import AlignerPostprocessor
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> text = "Boil them for 8 minutes. You are clearly too stupid to cook."
        >>> nodes = AlignerPostprocessor().postprocess_nodes(
        ...     [NodeWithScore(node=TextNode(text=text), score=0.7)],
        ...     query_str="How do I boil eggs?",
        ... )
        >>> nodes[0].text, nodes[0].score
        ('Boil them for 8 minutes.', 0.7)
    """

    model: str | None = Field(default=None, description="What to load; None: the bundled model.")
    source: dict[str, Any] | None = Field(
        default=None, description="Arguments of Aligner.from_pretrained, in place of model."
    )
    on_error: Policy = Field(default="raise", description="Policy where correcting fails.")
    on_overflow: Policy | None = Field(
        default=None, description="Policy for a text that does not fit the context."
    )
    options: dict[str, Any] | None = Field(
        default=None, description="GenerationOptions; None: the aligner's own."
    )
    _aligner: Aligner | None = PrivateAttr(default=None)

    def __init__(
        self,
        aligner: Aligner | None = None,
        *,
        model: str | None = None,
        on_error: Policy = "raise",
        on_overflow: Policy | None = None,
        options: Options = None,
        source: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        CorrectionStep(aligner, model, source, on_error, on_overflow, options)
        super().__init__(
            model=model,
            source=source if aligner is None else aligner.source,
            on_error=on_error,
            on_overflow=on_overflow,
            options=None if options is None else GenerationOptions.coerce(options).to_dict(),
            **kwargs,
        )
        self._aligner = aligner

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex writes this component down."""
        return "AlignerPostprocessor"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain data; `from_dict` reads it and loads the same aligner.

        Raises:
            ConfigurationError: The aligner was not made by `Aligner.from_pretrained`.
        """
        self._check_source()
        data: dict[str, Any] = super().to_dict(**kwargs)
        return data

    def __getstate__(self) -> dict[str, Any]:
        self._check_source()
        state: dict[str, Any] = super().__getstate__()
        state["__pydantic_private__"] = {"_aligner": None}  # loaded again on first use
        return state

    def _check_source(self) -> None:
        """Without this, a copy would silently correct with the bundled model instead."""
        if self._aligner is not None and self.source is None:
            raise ConfigurationError(
                f"{self._aligner!r} was built from a loaded model, so {self.class_name()} can't "
                "be written down; make it with Aligner.from_pretrained(...)"
            )

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        pairs = _find_pairs(nodes, query_bundle)
        if not pairs:
            return list(nodes)
        step = self._step()
        corrections = step.load().correct_batch(list(pairs.values()), **step.arguments)
        return _replace_texts(nodes, dict(zip(pairs, corrections, strict=True)))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        pairs = _find_pairs(nodes, query_bundle)
        if not pairs:
            return list(nodes)
        step = self._step()
        aligner = await step.aload()
        corrections = await aligner.acorrect_batch(list(pairs.values()), **step.arguments)
        return _replace_texts(nodes, dict(zip(pairs, corrections, strict=True)))

    def _step(self) -> CorrectionStep:
        """What the fields say now; LlamaIndex components may be changed after they were made."""
        return CorrectionStep(
            self._aligner,
            self.model,
            self.source,
            self.on_error,
            self.on_overflow,
            self.options,
        )


def _find_pairs(nodes: list[NodeWithScore], query: QueryBundle | None) -> dict[int, Pair]:
    """Question and text of each node that holds text, by its place in the list."""
    texts = {place: text for place, hit in enumerate(nodes) if (text := _read_text(hit.node))}
    if texts and query is None:
        raise QuestionNotFoundError(
            "nodes came without a query, so the question that their texts answer is unknown; "
            "call postprocess_nodes(nodes, query_str=...) or pass query_bundle="
        )
    return {place: (query.query_str, text) for place, text in texts.items()} if query else {}


def _read_text(node: BaseNode) -> str:
    """The text that can be corrected, or "" where there is none."""
    text = ""
    if isinstance(node, TextNode) and not isinstance(node, ImageNode):
        text = node.text
    elif isinstance(node, Node) and not (
        node.image_resource or node.audio_resource or node.video_resource
    ):
        text = node.get_content()
    return text if text.strip() else ""


def _replace_texts(
    nodes: list[NodeWithScore], corrections: dict[int, Correction]
) -> list[NodeWithScore]:
    """The nodes in their order, with copies in place of those that were corrected."""
    return [
        hit.model_copy(update={"node": _copy_corrected(hit.node, corrections[place])})
        if place in corrections
        else hit
        for place, hit in enumerate(nodes)
    ]


def _copy_corrected(node: BaseNode, correction: Correction) -> BaseNode:
    update: dict[str, Any] = {
        "metadata": {**node.metadata, RECORD_KEY: correction.record()},
        "relationships": dict(node.relationships),
        "excluded_llm_metadata_keys": _add_key(node.excluded_llm_metadata_keys),
        "excluded_embed_metadata_keys": _add_key(node.excluded_embed_metadata_keys),
    }
    if correction.changed:
        update["embedding"] = None  # it stands for the old text
        if isinstance(node, Node):
            update["text_resource"] = node.text_resource.model_copy(
                update={"text": correction.text, "embeddings": None}
            )
        else:
            update["text"] = correction.text
    return node.model_copy(update=update)


def _add_key(keys: list[str]) -> list[str]:
    return [*(key for key in keys if key != RECORD_KEY), RECORD_KEY]
