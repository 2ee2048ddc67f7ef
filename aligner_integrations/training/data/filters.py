"""Choosing among examples, and making identities of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from rapidfuzz.distance import Indel

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.data.triples import Triple


def keep_close(
    triples: Iterable[Triple],
    *,
    max_length_ratio: float | None = None,
    min_similarity: float | None = None,
) -> Iterator[Triple]:
    """Only examples whose correction is near the answer.

    The two answers of a preference pair were written independently; most pairs teach to replace,
    not to edit.

    Args:
        triples: The examples.
        max_length_ratio: How many times longer, in characters, one of the two may be.
        min_similarity: Least Levenshtein (Indel) ratio of the two, from 0 to 1.

    Raises:
        ConfigurationError: A bound is out of range.

    Example:
        >>> far = Triple("Eggs?", "No.", "Boil them for eight minutes.")
        >>> list(keep_close([far], max_length_ratio=2))
        []
    """
    if max_length_ratio is not None and max_length_ratio < 1:
        raise ConfigurationError(f"max_length_ratio={max_length_ratio} must be 1 or more")
    if min_similarity is not None and not 0 <= min_similarity <= 1:
        raise ConfigurationError(f"min_similarity={min_similarity} must be from 0 to 1")
    return _keep_close(triples, max_length_ratio, min_similarity)


def _keep_close(
    triples: Iterable[Triple], most: float | None, least: float | None
) -> Iterator[Triple]:
    for triple in triples:
        short, long = sorted((len(triple.answer), len(triple.correction)))
        if most is not None and long > most * max(short, 1):
            continue
        if least is not None and (
            Indel.normalized_similarity(triple.answer, triple.correction) < least
        ):
            continue
        yield triple


def make_identity(triple: Triple) -> Triple:
    """The correction as a good answer to be copied, as the warm-up stage needs it.

    Example:
        >>> make_identity(Triple("Eggs?", "No.", "Boil them.")).answer
        'Boil them.'
    """
    kind = f"{triple.kind}:identity" if triple.kind else "identity"
    return Triple(
        triple.question, triple.correction, triple.correction, kind, triple.meta, triple.place
    )


def add_identities(triples: Iterable[Triple], share: float, seed: int = 0) -> Iterator[Triple]:
    """The examples, each edit followed by its identity with probability ``share``.

    The choice goes by the text, so it does not depend on order, and a question that gets an
    identity in one file gets it in every file.

    Raises:
        ConfigurationError: ``share`` is not from 0 to 1.

    Example:
        >>> triple = Triple("Eggs?", "No.", "Boil them.")
        >>> [t.is_identity for t in add_identities([triple], share=1.0)]
        [False, True]
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share={share} of identities must be from 0 to 1")
    return _add_identities(triples, share, seed)


def _add_identities(triples: Iterable[Triple], share: float, seed: int) -> Iterator[Triple]:
    for triple in triples:
        yield triple
        text = f"{triple.question}\0{triple.correction}"
        if not triple.is_identity and hash_to_unit(text, seed) < share:
            yield make_identity(triple)


def hash_to_unit(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed alone."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"),
        digest_size=8,
        salt=seed.to_bytes(16, "big", signed=True),
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
