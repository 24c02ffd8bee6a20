"""What an answer costs, in every layout of ``usage`` that providers send."""

from typing import Any

import pytest

from stages.lib.params import Price
from stages.lib.replies.usage import Tokens, tokens
from stages.lib.teacher.pricing import money, tokens_cost

PRICE = Price(input=4.0, cached_input=1.0, output=16.0)
M = 1_000_000


def cost(usage: dict[str, Any], price: Price) -> float:
    return tokens_cost(tokens(usage), price)


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        ({"prompt_tokens": M}, 4.0),
        ({"completion_tokens": M}, 16.0),
        ({"prompt_tokens": M, "completion_tokens": M, "total_tokens": 2 * M}, 20.0),
        ({"prompt_tokens": M, "prompt_tokens_details": {"cached_tokens": M // 4}}, 3.25),
        ({"prompt_tokens": M, "prompt_cache_hit_tokens": M // 4, "prompt_cache_miss_tokens": M * 3 // 4}, 3.25),
        (
            {
                "prompt_tokens": M,
                "prompt_cache_hit_tokens": M // 4,
                "prompt_tokens_details": {"cached_tokens": 250_000},
            },
            3.25,
        ),
        ({"completion_tokens": M, "completion_tokens_details": {"reasoning_tokens": 900_000}}, 16.0),
    ],
    ids=["prompt", "completion", "both", "OpenAI's cache", "DeepSeek's cache", "both caches", "reasoning"],
)
def test_each_kind_of_token_has_its_price(usage: dict[str, Any], price: float) -> None:
    assert cost(usage, PRICE) == pytest.approx(price)


@pytest.mark.parametrize("strange", [None, "12", 12.5, -12, True, [], {}, float("nan")])
def test_what_is_no_count_costs_nothing(strange: object) -> None:
    for usage in (
        {"prompt_tokens": strange, "completion_tokens": strange, "prompt_tokens_details": strange},
        {"prompt_cache_hit_tokens": strange, "prompt_tokens_details": {"cached_tokens": strange}},
    ):
        assert tokens(usage) == Tokens()
    assert cost({}, PRICE) == 0


def test_more_cached_tokens_than_tokens_do_not_make_an_answer_cheaper_than_cached() -> None:
    assert cost({"prompt_tokens": M, "prompt_cache_hit_tokens": 3 * M}, PRICE) == pytest.approx(1.0)


def test_tokens_add_up_to_what_their_sum_costs() -> None:
    usages = [{"prompt_tokens": n, "prompt_cache_hit_tokens": n // 2, "completion_tokens": 7 * n} for n in range(50)]
    total = sum((tokens(usage) for usage in usages), Tokens())
    assert tokens_cost(total, PRICE) == pytest.approx(sum(cost(usage, PRICE) for usage in usages))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00 CNY"),
        (0.00123, "0.0012 CNY"),
        (0.5, "0.5000 CNY"),
        (12.345, "12.35 CNY"),
        (1234567.8, "1,234,567.80 CNY"),
    ],
)
def test_money_is_written_as_people_write_it(amount: float, text: str) -> None:
    assert money(amount, "CNY") == text
