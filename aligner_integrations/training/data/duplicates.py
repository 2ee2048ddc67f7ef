"""Near-duplicates within a data set, and leakage from training into evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.imports import require
from aligner_integrations.training.data.measures import split_words
from aligner_integrations.training.data.triples import Triple

if TYPE_CHECKING:
    import numpy as np

Part = Literal["question", "answer", "correction", "all"]
"""What of an example is compared; ``"all"`` is its question and answer together."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two examples that are nearly the same.

    Attributes:
        place: ``file:line`` of the later one; in a leak, of the evaluation's.
        other: ``file:line`` of the earlier one; in a leak, of the training's.
        similarity: Jaccard similarity of their word shingles, exact; 1 for the same words.
        text: The beginning of the later one's text.
    """

    place: str
    other: str
    similarity: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


class NearIndex:
    """Texts in which near-duplicates are found: MinHash and LSH over shingles of words.

    The same seed finds the same. What LSH proposes is compared exactly, so nothing is reported
    that is less similar than the threshold; a pair right at it may be missed.

    Args:
        threshold: Least Jaccard similarity.
        shingle: Words of a shingle.
        permutations: Hash functions of a MinHash; more miss less.
        seed: Seed of the hash functions.

    Raises:
        ConfigurationError: A value is out of range.
        MissingExtraError: datasketch is not installed.

    Example:
        >>> index = NearIndex(threshold=0.5)
        >>> index.add("How do I boil an egg well?", "train.jsonl:1")
        >>> index.find("How do I boil an egg quickly?")
        ('train.jsonl:1', 0.6667)
    """

    def __init__(
        self, threshold: float = 0.8, shingle: int = 3, permutations: int = 128, seed: int = 0
    ) -> None:
        if not 0.2 <= threshold <= 1:
            raise ConfigurationError(f"threshold={threshold} must be from 0.2 to 1")
        if shingle < 1 or permutations < 16:
            raise ConfigurationError(
                f"shingle={shingle} must be at least 1 and permutations={permutations} at least 16"
            )
        require("datasketch", "train")
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self._size = shingle
        self._template = MinHash(num_perm=permutations, seed=seed, hashfunc=int)
        # A lower threshold makes LSH propose more; the exact comparison sorts that out.
        self._lsh = MinHashLSH(threshold=max(0.1, threshold - 0.15), num_perm=permutations)
        self._last: tuple[tuple[str, ...], np.ndarray[Any, Any], Any] | None = None
        self._same: dict[tuple[str, ...], str] = {}
        self._entries: list[tuple[str, np.ndarray[Any, Any]]] = []

    def add(self, text: str, place: str) -> None:
        """Put a text in; of several with the same words, the first stays."""
        words = normalise(text)
        if words in self._same:
            return
        self._same[words] = place
        shingles, minhash = self._hash(words)
        self._lsh.insert(len(self._entries), minhash)
        self._entries.append((place, shingles))

    def find(self, text: str) -> tuple[str, float] | None:
        """The place and similarity of the most similar text, the earliest of equals."""
        import numpy as np

        words = normalise(text)
        if (place := self._same.get(words)) is not None:
            return place, 1.0
        shingles, minhash = self._hash(words)
        best: tuple[str, float] | None = None
        for key in sorted(self._lsh.query(minhash)):
            place, others = self._entries[key]
            shared = len(np.intersect1d(shingles, others, assume_unique=True))
            similarity = shared / (len(shingles) + len(others) - shared)
            if similarity >= self.threshold and (best is None or similarity > best[1]):
                best = place, similarity
        return best and (best[0], round(best[1], 4))

    def _hash(self, words: tuple[str, ...]) -> tuple[np.ndarray[Any, Any], Any]:
        """The hashed shingles, sorted, and their MinHash."""
        import numpy as np

        if self._last is not None and self._last[0] == words:  # looked for, then put in
            return self._last[1:]
        size = min(self._size, len(words))
        joined = {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)}
        hashes = {
            int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=4).digest(), "big")
            for shingle in joined
        }
        shingles = np.array(sorted(hashes), dtype=np.uint64)
        minhash = self._template.copy()
        minhash.update_batch(shingles)
        self._last = words, shingles, minhash
        return shingles, minhash


def normalise(text: str) -> tuple[str, ...]:
    """The words that are compared; a text without words is compared as it is."""
    return tuple(word.casefold() for word in split_words(text)) or (text.strip(),)


def find_duplicates(
    triples: Iterable[Triple], part: Part = "all", index: NearIndex | None = None
) -> list[Duplicate]:
    """Examples that nearly repeat an earlier one, each with the earlier one it is most like.

    Args:
        triples: The examples.
        part: What is compared.
        index: An empty index with other settings.

    Example:
        >>> triple = Triple("Eggs?", "No.", "Boil them.", place="a.jsonl:1")
        >>> [found.similarity for found in find_duplicates([triple, triple])]
        [1.0]
    """
    seen = index if index is not None else NearIndex()
    found = []
    for triple in triples:
        text = select(triple, part)
        if match := seen.find(text):
            found.append(Duplicate(triple.place, *match, text[:80]))
        seen.add(text, triple.place)
    return found


def find_leaks(
    train: Iterable[Triple],
    evaluation: Iterable[Triple],
    part: Part = "question",
    index: NearIndex | None = None,
) -> list[Duplicate]:
    """Evaluation examples that the training split nearly holds as well.

    Args:
        train: The training split.
        evaluation: The split that is measured on.
        part: What is compared.
        index: An empty index with other settings.

    Example:
        >>> train = [Triple("Eggs?", "No.", "Boil them.", place="train.jsonl:1")]
        >>> [leak.other for leak in find_leaks(train, [Triple("eggs", "Boil.", "Boil.")])]
        ['train.jsonl:1']
    """
    seen = index if index is not None else NearIndex()
    for triple in train:
        seen.add(select(triple, part), triple.place)
    return [
        Duplicate(triple.place, *match, select(triple, part)[:80])
        for triple in evaluation
        if (match := seen.find(select(triple, part)))
    ]


def select(triple: Triple, part: Part) -> str:
    """The text that is compared."""
    if part not in get_args(Part):
        raise ConfigurationError(
            f"part={part!r} must be one of {', '.join(map(repr, get_args(Part)))}"
        )
    return f"{triple.question}\n{triple.answer}" if part == "all" else str(getattr(triple, part))
