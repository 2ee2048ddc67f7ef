"""`AlignerPostprocessor`: corrects the text of retrieved nodes, before an LLM reads it."""

from __future__ import annotations

from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.batches import Pair
from aligner_integrations.correction import Correction
from aligner_integrations.errors import QuestionNotFoundError
from aligner_integrations.llama_index.component import AligningComponent, make_fields
from aligner_integrations.step import RECORD_KEY, StepArguments


class AlignerPostprocessor(AligningComponent, BaseNodePostprocessor):  # type: ignore[misc]
    """Corrects retrieved texts as answers to the query.

    For sources that hold answers: forum threads, support tickets, chat logs, FAQ entries. The
    nodes are copied, so index and document store keep what they have. A copy keeps its id,
    score, relationships and metadata, to which the record of its correction is added under
    ``"aligner"``, hidden from LLM and embedding model. The embedding of a text that was changed
    is dropped. Nodes without text and nodes with an image, sound or video pass through.

    To correct what the LLM answers, use `AlignerQueryEngine`.

    Args:
        aligner: The aligner; by default one is loaded when the first nodes come.
        callback_manager: As in `BaseNodePostprocessor`.
        **step: See `CorrectionStep`. They are fields too, which may be changed later.

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

    def __init__(
        self,
        aligner: Aligner | None = None,
        *,
        callback_manager: CallbackManager | None = None,
        **step: Unpack[StepArguments],
    ) -> None:
        super().__init__(
            **make_fields(aligner, step),
            callback_manager=callback_manager or CallbackManager([]),
        )
        self._aligner = aligner

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex writes this component down."""
        return "AlignerPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        pairs = _find_pairs(nodes, query_bundle)
        if not pairs:
            return list(nodes)
        corrections = self._traced().correct_batch(list(pairs.values()))
        return _replace_texts(nodes, dict(zip(pairs, corrections, strict=True)))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        pairs = _find_pairs(nodes, query_bundle)
        if not pairs:
            return list(nodes)
        corrections = await self._traced().acorrect_batch(list(pairs.values()))
        return _replace_texts(nodes, dict(zip(pairs, corrections, strict=True)))


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
