"""The server engine against a server of the tests' own on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from farm.base.errors import UserError
from farm.engines import server as module
from farm.engines.server import Server, disconnect
from farm.engines.transformers import Transformers
from farm.policies import load
from farm.policies.language_model import LanguageModelPolicy
from farm.roles import config
from farm.roles.protocols import Learning, SamplingEngine, World
from reference_methods.online.rloo import RLOO
from reference_methods.selection.best_of_n import BestOfNPolicy
from tests.engines.conftest import Loopback, largest_gap, make_policy, perturb
from tests.policies.conftest import PROMPTS
from tests.reference_methods.tables import recorder


def served(loopback: Loopback, **settings: Any) -> LanguageModelPolicy:
    return make_policy().with_settings(engine=Server(loopback.url, parallel=4, **settings))


def rows(samples: Any) -> list[list[int]]:
    return [tokens.tolist() for tokens in samples.response_tokens]


def test_tokens_limits_and_ends_are_the_policys(loopback: Loopback) -> None:
    own, policy = make_policy(), served(loopback)
    samples = policy.sample(PROMPTS * 5, seed=0, purpose="t")
    assert largest_gap(policy, samples) < 1e-4
    assert [t.tolist() for t in samples.prompt_tokens] == [t.tolist() for t in own.conversation.prompts(PROMPTS * 5)]
    ends = own.conversation.ends
    for tokens, reason in zip(samples.response_tokens, samples.finish_reason, strict=True):
        assert (int(tokens[-1]) in ends) == (reason == "stop")
        assert not set(tokens[:-1].tolist()) & ends
        assert reason == "stop" or len(tokens) == 12
    assert {"stop", "length"} == set(samples.finish_reason)
    greedy = policy.sample(PROMPTS, seed=0, purpose="t", temperature=0)
    assert rows(greedy) == rows(own.sample(PROMPTS, seed=0, purpose="t", temperature=0))
    assert not np.concatenate(greedy.log_probabilities).any()


def test_a_draw_follows_its_key_and_not_the_batch(loopback: Loopback) -> None:
    policy = served(loopback)
    straight = policy.sample(PROMPTS * 3, seed=0, purpose="t")
    assert rows(policy.sample((PROMPTS * 3)[::-1], seed=0, purpose="t"))[::-1][6:12] == rows(straight)[6:12]
    assert rows(policy.sample(PROMPTS, seed=0, purpose="t")) == rows(straight)[:6]
    assert rows(policy.sample(PROMPTS * 3, seed=1, purpose="t")) != rows(straight)


def test_new_weights_are_handed_over_once_and_change_what_is_written(loopback: Loopback) -> None:
    policy = served(loopback)
    before = rows(policy.sample(PROMPTS, seed=0, purpose="t"))
    policy.sample(PROMPTS, seed=1, purpose="t")
    reloads = [path for path, _ in loopback.asked if path == "/collective_rpc"]
    assert len(reloads) == 1  # the first time nobody knows what the server holds; then nothing has changed
    perturb(policy)
    after = policy.sample(PROMPTS, seed=0, purpose="t")
    assert rows(after) != before
    assert largest_gap(policy, after) < 1e-4
    assert len([path for path, _ in loopback.asked if path == "/collective_rpc"]) == 2


def test_a_server_that_keeps_its_old_weights_is_found_out(loopback: Loopback) -> None:
    policy = served(loopback)
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy, size=2.0)
    loopback.deaf = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="does not hold these weights"):
            policy.sample(PROMPTS, seed=0, purpose="t")


def test_weights_that_were_not_looked_at_are_looked_at_the_next_time(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    policy = served(loopback)
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy, size=2.0)
    loopback.deaf = True  # it says that it took them, and keeps the old ones
    loopback.plain = True
    with pytest.raises(UserError, match="token ids"):  # so that nothing is written after the hand-over
        policy.sample(PROMPTS, seed=0, purpose="t")
    loopback.plain = False
    with pytest.raises(RuntimeError, match="does not hold these weights"):
        policy.sample(PROMPTS, seed=0, purpose="t")


def test_two_runs_at_one_server_do_not_write_with_each_others_weights(loopback: Loopback) -> None:
    """Engines of different settings are to the server what engines of two processes are."""
    first, second = served(loopback), served(loopback, timeout=60.0)
    perturb(second)
    for seed in range(3):
        for policy in (first, second):
            assert largest_gap(policy, policy.sample(PROMPTS, seed=seed, purpose="t")) < 1e-4


def test_processes_with_the_same_weights_hand_them_over_once(loopback: Loopback) -> None:
    first, second = served(loopback), served(loopback, timeout=60.0)
    for policy in (first, second):  # at first nobody knows
        policy.sample(PROMPTS, seed=0, purpose="t")
    before = len([path for path, _ in loopback.asked if path == "/collective_rpc"])
    for policy in (first, second):
        perturb(policy)
        assert largest_gap(policy, policy.sample(PROMPTS, seed=0, purpose="t")) < 1e-4
    assert len([path for path, _ in loopback.asked if path == "/collective_rpc"]) == before + 1


def test_weights_are_not_kept_once_the_server_has_them(loopback: Loopback, tmp_path: Path) -> None:
    policy = served(loopback, folder=str(tmp_path / "weights"))
    policy.sample(PROMPTS, seed=0, purpose="t")
    assert not list((tmp_path / "weights").rglob("*.safetensors"))
    disconnect()
    assert not list((tmp_path / "weights").iterdir())


def test_a_cache_of_prompts_that_cannot_be_emptied_is_said(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    loopback.held = True
    with pytest.raises(UserError, match="prompt cache"):
        served(loopback).sample(PROMPTS, seed=0, purpose="t")


def test_the_servers_own_defaults_do_not_count(loopback: Loopback) -> None:
    """vLLM takes what a request does not say from the model's generation_config.json."""
    served(loopback).sample(PROMPTS, seed=0, purpose="t")
    body = loopback.asked[-1][1]
    neutral = {"top_k": -1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert body.items() >= (neutral | {"presence_penalty": 0.0, "frequency_penalty": 0.0}).items()


def test_responses_that_the_server_cut_are_refused(loopback: Loopback) -> None:
    loopback.cut = 1
    with pytest.raises(UserError, match="cut responses"):
        served(loopback).sample(PROMPTS, seed=0, purpose="t")


def test_without_a_way_to_hand_over_training_is_refused(loopback: Loopback) -> None:
    policy = served(loopback, hand_over="none")
    policy.sample(PROMPTS, seed=0, purpose="t")
    perturb(policy)
    with pytest.raises(UserError, match="hand_over: none"):
        policy.sample(PROMPTS, seed=0, purpose="t")


def test_forbidden_tokens_are_never_written(loopback: Loopback) -> None:
    policy = make_policy(forbidden_tokens=list(range(10, 30))).with_settings(engine=Server(loopback.url))
    samples = policy.sample(PROMPTS * 4, seed=0, purpose="t")
    assert not set(np.concatenate(samples.response_tokens).tolist()) & set(range(10, 30))
    assert largest_gap(policy, samples) < 1e-4


def test_what_goes_wrong_is_said(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    loopback.busy = 2
    assert len(served(loopback).sample(PROMPTS, seed=0, purpose="t")) == 6  # asked again
    loopback.broken = 2
    assert len(served(loopback).sample(PROMPTS, seed=0, purpose="t")) == 6
    loopback.busy = 100
    with pytest.raises(UserError, match="503"):
        served(loopback).sample(PROMPTS, seed=0, purpose="t")
    loopback.busy, loopback.plain = 0, True
    with pytest.raises(UserError, match="does not return token ids"):
        served(loopback).sample(PROMPTS, seed=0, purpose="t")
    with pytest.raises(UserError, match="FARM_NO_SUCH_KEY"):
        served(loopback, key="FARM_NO_SUCH_KEY").sample(PROMPTS, seed=0, purpose="t")
    with pytest.raises(UserError, match="does not answer"):
        make_policy(engine=Server("http://127.0.0.1:9/v1")).sample(PROMPTS, seed=0, purpose="t")


def test_an_online_step_samples_there_compares_and_corrects(loopback: Loopback) -> None:
    policy = served(loopback)
    lines, log = recorder()
    given = Learning(
        seed=3,
        policy=policy,
        prompts=pd.DataFrame({"instruction": PROMPTS}),
        models={"reward_model": make_policy().scorer(0)},
        log=log,
    )
    learned = RLOO(steps=3, rollouts=24, minibatches=2, learning_rate=1e-3, missing_eos_reward=None).train(given)
    assert len(lines) == 3
    for line in lines:
        assert line["sampler_gap"] < 1e-4 and line["sampler_error"] == pytest.approx(1, abs=1e-4)
        assert line["importance_cut"] == 0 and line["sampler_gap_max"] >= 1
    assert largest_gap(learned, learned.sample(PROMPTS, seed=9, purpose="after")) < 1e-4
    completions = [body for path, body in loopback.asked if path == "/v1/completions"]
    assert len({body["seed"] for body in completions if body["temperature"] == 1.0}) == 3 * 24 + 6


def test_the_engine_is_chosen_by_configuration_and_never_by_a_saved_policy(loopback: Loopback, tmp_path: Path) -> None:
    engine = config.build(SamplingEngine, {"use": "server", "url": loopback.url, "parallel": 2})
    assert engine == Server(loopback.url, parallel=2)
    policy = make_policy(engine=engine)
    policy.save(tmp_path / "p")
    again = load(tmp_path / "p", engine)
    assert isinstance(again, LanguageModelPolicy) and again.engine == engine
    assert rows(again.sample(PROMPTS, seed=0, purpose="t")) == rows(policy.sample(PROMPTS, seed=0, purpose="t"))
    descriptor = tmp_path / "p" / "farm_policy.json"
    strange = {"class": "farm.engines.server.Server", "url": "https://strange.example/v1", "key": "AWS_SECRET"}
    descriptor.write_text(json.dumps({**json.loads(descriptor.read_text()), "engine": strange}))
    stranger = load(tmp_path / "p")
    assert isinstance(stranger, LanguageModelPolicy) and isinstance(stranger.engine, Transformers)
    BestOfNPolicy(policy, make_policy().scorer(0), 2, 1000).save(tmp_path / "best")
    assert load(tmp_path / "best", engine).policy.engine == engine  # type: ignore[union-attr]
    with pytest.raises(UserError, match="http"):
        config.build(SamplingEngine, {"use": "server", "url": "file:///etc/passwd"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://8.8.8.8/v1"}, "use https"),
        ({"url": "https://u:hunter2@host/v1"}, "user or a password"),
        ({"url": "https://host/v1", "key": "OPENAI_API_KEY"}, "goes to api"),
        ({"url": "https://host/v1", "key": "sk-hunter2"}, "name of an environment variable"),
    ],
)
def test_keys_and_addresses_are_checked_before_anything_is_sent(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config.build(SamplingEngine, {"use": "server", **settings})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("odd", [[], "data", 1, {}, {"data": None}, {"data": 1}, {"data": ["m"]}, {"data": [{"a": 1}]}])
def test_a_list_of_models_that_is_none_is_one_sentence(loopback: Loopback, odd: Any) -> None:
    loopback.odd["/v1/models"] = odd
    with pytest.raises(UserError, match="does not answer with a list of models; name one as `model`"):
        served(loopback).sample(PROMPTS[:1], seed=0, purpose="t")


@pytest.mark.parametrize("odd", [[], "done", 0, {"success": "no"}, {"success": None}])
def test_an_answer_that_says_nothing_of_the_prompt_cache_is_one_sentence(loopback: Loopback, odd: Any) -> None:
    loopback.odd["/reset_prefix_cache"] = odd
    with pytest.raises(UserError, match="does not say whether the prompt cache"):
        served(loopback).sample(PROMPTS[:1], seed=0, purpose="t")


def test_an_answer_without_end_is_not_read_to_it(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2_000)
    loopback.odd["/v1/completions"] = "x" * 3_000
    with pytest.raises(UserError, match="answers with more than 2,000 bytes"):
        served(loopback).sample(PROMPTS[:1], seed=0, purpose="t")
    assert len(loopback.asked) == 3, "weights, prompt cache and one question, which is not asked again"


def test_a_redirect_takes_the_key_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_TEST_KEY", "sk-hunter2")
    heard: list[str | None] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(307 if self.path == "/v1/models" else 200)
            self.send_header("Location", f"http://localhost:{server.server_address[1]}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    engine = Server(f"http://127.0.0.1:{server.server_address[1]}/v1", key="FARM_TEST_KEY")
    with pytest.raises(UserError, match="redirect, which is not followed"):
        make_policy(engine=engine).sample(PROMPTS, seed=0, purpose="t")
    server.shutdown()
    server.server_close()
    assert heard == ["Bearer sk-hunter2"]


def test_no_prompts_ask_nothing(loopback: Loopback) -> None:
    assert len(served(loopback).sample([], seed=0, purpose="t")) == 0 and not loopback.asked


def test_one_key_of_the_world_chooses_the_engine(loopback: Loopback, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text('[{"instruction": "w1"}, {"instruction": "w2 w3"}]')
    spec = {"use": "text", "model": str(saved), "instructions": str(tmp_path / "i.json")}
    world = config.build(World, {**spec, "engine": {"use": "server", "url": loopback.url}})
    policy = world.base_policy()
    assert policy.engine == Server(loopback.url)  # type: ignore[attr-defined]
    assert len(policy.sample(["w1", "w2"], seed=0, purpose="t", max_new_tokens=3)) == 2
    assert [path for path, _ in loopback.asked].count("/v1/completions") == 3  # one of them greedy, to compare
    assert config.build(World, spec).base_policy().engine == Transformers()  # type: ignore[attr-defined]
    described = config.described(World, {**spec, "engine": "vllm"})
    assert described["engine"]["class"] == "farm.engines.vllm.VLLM" and described["engine"]["memory"] == 0.4
    with pytest.raises(UserError, match="did you mean `vllm`"):
        config.build(World, {**spec, "engine": "vlm"})


@pytest.mark.parametrize(
    "token, chosen", [(10**30, -1.0), (1.5, -1.0), (True, -1.0), (1, None), (1, float("nan")), (1, float("-inf"))]
)
def test_numbers_that_are_none_are_refused(token: float, chosen: float | None) -> None:
    answer = {"choices": [{"token_ids": [token], "logprobs": {"token_logprobs": [chosen]}, "finish_reason": "length"}]}
    with pytest.raises(UserError, match="does not return token ids with their log-probabilities"):
        module._read(answer, "http://127.0.0.1", greedy=False)
