from __future__ import annotations

import inspect
import pickle

import pytest

from aligner_integrations import errors
from aligner_integrations.imports import paused_garbage_collection, require

OURS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.AlignerError)
]


@pytest.mark.parametrize("error", OURS)
def test_every_error_is_caught_as_ours(error: type[Exception]) -> None:
    assert issubclass(error, errors.AlignerError)
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.MissingExtraError, ImportError),
        (errors.ConfigurationError, ValueError),
        (errors.InputTypeError, TypeError),
        (errors.InvalidTextError, ValueError),
        (errors.PromptFormatError, ValueError),
        (errors.ModelNotFoundError, FileNotFoundError),
        (errors.ContextOverflowError, ValueError),
        (errors.CorrectionError, RuntimeError),
        (errors.TruncatedCorrectionError, errors.CorrectionError),
        (errors.QuestionNotFoundError, LookupError),
    ],
)
def test_errors_are_the_builtin_ones_too(error: type, builtin: type) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", [e for e in OURS if e is not errors.MissingExtraError])
def test_messages_survive_pickling(error: type[Exception]) -> None:
    assert str(pickle.loads(pickle.dumps(error("what, why, remedy")))) == "what, why, remedy"


def test_missing_extra_survives_pickling() -> None:
    error = errors.MissingExtraError("langchain_core", "langchain")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_missing_extra_says_what_to_install() -> None:
    require("torch", "all")
    with pytest.raises(
        errors.MissingExtraError,
        match=r"'no_such_package' is not installed; run: pip install 'aligner-integrations\[x\]'",
    ):
        require("no_such_package", "x")
    require("pytest", "dev", "8.3")
    with pytest.raises(errors.MissingExtraError, match=r"'pytest>=1000\.0' is not installed"):
        require("pytest", "dev", "1000.0")


def test_garbage_collection_comes_back() -> None:
    import gc

    with paused_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
