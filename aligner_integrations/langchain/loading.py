"""Chat models by name, for commands and configs."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import AlignerError, ConfigurationError
from aligner_integrations.imports import require

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def load_chat_model(name: str, **options: Any) -> Runnable[Any, Any]:
    """A LangChain chat model.

    Args:
        name: ``provider:model``, as for LangChain's ``init_chat_model``, or the dotted path of a
            chat model, or of a function that returns one, in a module that Python can import.
        **options: Such as ``base_url``, ``temperature``, ``max_tokens``; None leaves one out. A
            function gets them as its arguments.

    Raises:
        ConfigurationError: There is no such provider, package, key, module or function.
        MissingExtraError: The package langchain is not installed.

    Example:
        >>> path = "langchain_core.language_models.FakeListChatModel"
        >>> load_chat_model(path, responses=["Boil them."]).invoke("Eggs?").text
        'Boil them.'
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        if _DOTTED.fullmatch(name):
            return _load_object(name, given)
        require("langchain", "agents")
        from langchain.chat_models import init_chat_model

        model: Runnable[Any, Any] = init_chat_model(name, **given)
    except AlignerError:
        raise
    except Exception as error:  # of the provider: no such one, no package, no key
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f"the chat model {name!r} can't be used: {reason}") from error
    return model


def _load_object(path: str, options: dict[str, Any]) -> Runnable[Any, Any]:
    from langchain_core.runnables import Runnable

    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the chat model {path!r} can't be used: {error}; a hosted one is named "
            "provider:model, and the dotted path of your own must be importable from here"
        ) from error
    if isinstance(found, Runnable):
        if options:
            raise ConfigurationError(
                f"the chat model {path!r} is made already and takes no options "
                f"({', '.join(options)}); name a function that makes it"
            )
        return found
    model = found(**options) if callable(found) else found
    if not isinstance(model, Runnable):
        raise ConfigurationError(
            f"{path!r} gives a {type(model).__name__}, which is no LangChain chat model"
        )
    return model
