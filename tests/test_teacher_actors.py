"""The shares of the actors that ask on a Ray cluster; tests/test_ray.py runs them."""

from stages.lib.params import Run, load_params
from stages.lib.teacher.actors import LIMITS, most_actors, parts, summed
from stages.lib.teacher.backends import Endpoint
from stages.lib.teacher.pool import Assignment
from tests.workspace import ROOT


def limited(**limits: int | None) -> Run:
    return load_params(ROOT / "params.yaml").run.model_copy(update=limits)


def assigned(run: Run, *endpoints: Endpoint) -> Assignment:
    return Assignment(endpoints, "distill.teacher", "m", run, 0)


def test_the_limits_of_all_actors_add_up_to_those_of_the_run_and_of_each_server() -> None:
    run = limited(concurrency=10, requests_per_minute=7, tokens_per_minute=100_001)
    servers = Endpoint("http://a/v1", "", concurrency=5), Endpoint("http://b/v1", "", requests_per_minute=3)
    assert most_actors(64, assigned(run, *servers)) == 3
    shares = parts(assigned(run, *servers), 3)
    for name in LIMITS:
        assert sum(getattr(share.run, name) for share in shares) == getattr(run, name)
    first, second = ([share.endpoints[place] for share in shares] for place in (0, 1))
    assert [endpoint.concurrency for endpoint in first] == [1, 2, 2]
    assert [endpoint.requests_per_minute for endpoint in second] == [1, 1, 1]
    assert {endpoint.requests_per_minute for endpoint in first} | {endpoint.concurrency for endpoint in second} == {
        None
    }


def test_there_are_no_more_actors_than_calls_in_flight_or_calls_a_minute() -> None:
    server = Endpoint("http://a/v1", "")
    assert most_actors(2, assigned(limited(concurrency=16), server)) == 2
    assert most_actors(64, assigned(limited(concurrency=16), server)) == 16
    assert most_actors(64, assigned(limited(concurrency=16, requests_per_minute=1), server)) == 1


def test_the_figures_of_a_server_are_those_of_all_actors() -> None:
    one = {"base_url": "http://a/v1", "answers": 3, "completion_tokens": 30, "seconds_an_answer": 2.0, "set_aside": 1}
    two = {"base_url": "http://a/v1", "answers": 1, "completion_tokens": 10, "seconds_an_answer": 6.0, "set_aside": 0}
    none = {"base_url": "http://a/v1", "answers": 0, "completion_tokens": 0, "seconds_an_answer": None, "set_aside": 2}
    found = {"answers": 4, "completion_tokens": 40, "set_aside": 3, "seconds_an_answer": 3.0}
    assert summed([one, two, none]) == {"base_url": "http://a/v1"} | found
    assert summed([none])["seconds_an_answer"] is None
