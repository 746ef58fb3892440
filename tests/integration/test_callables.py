"""Functions that are no tools get their context as tools do."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from snakepit_mp import Pool
from snakepit_mp.errors import InvalidArguments


def context_first(ctx: Any, n: int) -> tuple[Any, int, int]:
    return ctx.session_id, ctx.attempt, n


def context_last(n: int, *, ctx: Any) -> tuple[Any, int, int]:
    return context_first(ctx, n)


def context_if_any(n: int, ctx: Any = None) -> Any:
    return getattr(ctx, "session_id", ctx)


@pytest.mark.parametrize(
    "function", [context_first, context_last, lambda n, ctx: context_first(ctx, n)]
)
@pytest.mark.parametrize("args", [(3,), {"n": 3}])
def test_ctx_is_given_to_a_function_that_has_no_default_for_it(pool: Pool, function, args):
    with pool.session() as session:
        assert session.execute(function, args) == (session.id, 1, 3)
    assert pool.execute(function, args) == (None, 1, 3)


def test_ctx_is_given_to_a_partial(pool: Pool):
    assert pool.execute(partial(context_first, n=3)) == (None, 1, 3)


def test_a_ctx_of_the_caller_is_left_alone(pool: Pool):
    assert pool.execute(context_if_any, {"n": 1, "ctx": "mine"}) == "mine"
    assert pool.execute(context_if_any, (1, "mine")) == "mine"


def test_ctx_is_for_variables(pool: Pool):
    with pool.session() as session:
        session["x"] = 20
        assert session.execute(lambda ctx, y: ctx["x"] + y, (1,)) == 21


@pytest.mark.parametrize("args", [(), (1, 2, 3), {"m": 1}])
def test_what_does_not_fit_beside_ctx_is_refused_before_it_runs(pool: Pool, args):
    before = pool.stats()

    with pytest.raises(InvalidArguments, match="context_first"):
        pool.execute(context_first, args)

    assert pool.stats() == before


def test_the_missing_argument_is_named_and_not_ctx(pool: Pool):
    with pytest.raises(InvalidArguments, match="missing a required argument: 'n'"):
        pool.execute(context_first)
