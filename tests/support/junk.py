"""Anything at all, for arguments that want something."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

_WORDS = st.sampled_from(
    ["", " ", "a\n", "A", "-a", "a" * 300, "*", "**", "\x00", "é", "1s", "-1s", "443", "65536", "a/b", "a.b"]
)
_FIELDS = st.sampled_from(["from", "to", "when", "source", "operation", "principals", "key", "values", "keys"])
_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.fractions()
    | _WORDS
    | _FIELDS
    | st.text(max_size=5)
    | st.binary(max_size=3)
)
JUNK = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.sets(_ATOMS, max_size=2)
        | st.dictionaries(_ATOMS, inner, max_size=3)
    ),
    max_leaves=8,
)


def taken_or_refused(build: Callable[..., Any], call: Mapping[str, Any], argument: str, junk: object) -> Any:
    """What `build` returns with `junk` for one argument of a good call; None where it names an argument as wrong."""
    arguments = inspect.signature(build).parameters
    try:
        return build(**copy.deepcopy(dict(call)) | {argument: junk})
    except ValueError as error:
        message = str(error)
        named = re.match(r"[a-z_0-9]+", message)
        assert named is not None and named[0] in arguments, message
        assert message.isprintable(), message
        assert len(message) < 1000, message
        return None
