"""What is pushed to a hub on loopback: sets and models with their cards, and nothing without the user's word."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import farm
from farm import cli
from farm.base.errors import UserError
from farm.experiments import run_folder
from farm.policies.tabular import TabularPolicy
from farm.publishing import cards
from farm.publishing.checkpoint import Exported, export
from farm.storage import sealed
from farm.tables import feedback_sets, formats
from farm.tables.turns import messages
from tests.hub_double import Hub
from tests.policies.conftest import PROMPTS, make_policy, small_model, word_tokenizer
from tests.run_double import made_up

pytest.importorskip("huggingface_hub")
TALKED: list[Any] = ["w1", ("w2 w3", "w4", "w5 w6"), "w7 w8 w9"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as double:
        double.use(monkeypatch, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", Hub.token)
        yield double


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of another's words: whatever stands in its settings is data."""
    folder = made_up(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {
        "world": {
            "class": "farm.worlds.text.TextWorld",
            "model": "owner/base",
            "instructions": "/home/me/secret/i.json",
        },
        "feedback": {
            "pairs": {"annotator": {"class": "annotators.noise.flip.Flip", "rate": 0.25, "note": "```\n# no"}}
        },
        "methods": {"dpo": {"class": "reference_methods.pairs.dpo.DPO", "beta": 0.1}},
    }
    run_folder.write_config(folder, config)
    return folder


def header(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_a_name_in_a_code_span_is_as_it_is_and_ends_nothing() -> None:
    assert cards.span("pocket_best_of_n") == "`pocket_best_of_n`"
    assert cards.span("a`\n# b|c") == "`a' # b/c`"


def test_a_run_goes_out_as_a_data_set_and_comes_back(hub: Hub, run: Path) -> None:
    said = farm.push(run, "me/feedback", license="cc-by-4.0", yes=True)
    assert said["address"] == f"{hub.address}/datasets/me/feedback"
    assert hub.repositories["dataset", "me/feedback"].private
    assert set(said["files"]) | {".gitattributes"} == set(hub.files("dataset", "me/feedback"))
    card = hub.files("dataset", "me/feedback")["README.md"].decode()
    assert card == said["card"] and header(card)["license"] == "cc-by-4.0"
    assert "rate: 0.25" in card and "Krippendorff's alpha" in card and "$0.36" in card
    assert "secret" not in card and "instructions: i.json" in card  # a place of this machine is nobody's business
    assert "\n````yaml\n" in card  # a block that a setting could have ended
    given = formats.read_table(run / "tables" / "preferences.parquet")
    back = feedback_sets.read("me/feedback")
    assert back.format == "preferences" and len(back.table) == int(given["preference"].isin([1, 2]).sum())
    whole = feedback_sets.read("me/feedback:annotations").table
    assert whole["preference"].tolist() == given["preference"].tolist()


def test_nothing_is_pushed_without_the_users_word(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for further in ([], ["--dry-run"], ["--dry-run", "--yes"]):
        monkeypatch.setattr(sys, "argv", ["farm", "push", str(run), "me/feedback", *further])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        said = capsys.readouterr().out
        assert "# small" in said and "annotations.parquet" in said and "nothing is pushed; with --yes" in said
    assert not hub.seen and not hub.repositories


def test_a_file_goes_out_as_it_is(hub: Hub, tmp_path: Path) -> None:
    rows = [("q", "a", "b", 1, who) for who in "xy"] + [("q", "b", "a", 1, "z")]
    table = pd.DataFrame(rows, columns=["instruction", "output_1", "output_2", "preference", "annotator"])
    formats.write_table(table, tmp_path / "votes.jsonl")
    farm.push(tmp_path / "votes.jsonl", "me/votes", public=True, yes=True)
    there = hub.files("dataset", "me/votes")
    assert there["votes.jsonl"] == (tmp_path / "votes.jsonl").read_bytes()
    assert not hub.repositories["dataset", "me/votes"].private
    card = there["README.md"].decode()
    assert "1 pairs have several votes" in card and "None was named" in card and "license" not in header(card)
    assert "synthetic" not in header(card)["tags"]  # failed: they may be people's


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ([500], "me/set could not be pushed to the hub"),
        ([403], "set HF_TOKEN to a token that may write there"),
        ([0], "me/set could not be pushed to the hub"),
    ],
)
def test_a_hub_that_is_broken_is_one_sentence(hub: Hub, run: Path, fail: list[int], said: str) -> None:
    hub.fail = fail
    with pytest.raises(UserError, match=said) as caught:
        farm.push(run, "me/set", yes=True)
    assert len(str(caught.value)) < 300
    farm.push(run, "me/set", yes=True)  # and the same again works
    assert "README.md" in hub.files("dataset", "me/set")


def test_a_slow_hub_is_waited_for(hub: Hub, run: Path) -> None:
    hub.slow = 0.1
    assert farm.push(run, "me/set", yes=True)["address"]


def test_a_hub_that_does_not_answer_is_one_sentence(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import get_session

    monkeypatch.setattr("farm.tables.hub.PATIENCE", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0)
    hub.slow, before = 600, get_session().timeout
    with pytest.raises(UserError, match=r"me/set could not be pushed.*no answer within 0\.2 seconds.*set HF_HUB_DOWN"):
        farm.push(run, "me/set", yes=True)
    assert get_session().timeout == before  # other users of the client in this process keep theirs


@pytest.mark.parametrize(
    ("repository", "licence", "said"),
    [("me", None, "say OWNER/NAME"), ("me/x y", None, "say OWNER/NAME"), ("me/x", "My own!", "no name of a licence")],
)
def test_what_is_no_name_is_refused(run: Path, repository: str, licence: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        farm.push(run, repository, license=licence)


def test_without_a_token_or_offline_it_is_one_sentence(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="set HF_TOKEN"):
        farm.push(run, "me/set", yes=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        farm.push(run, "me/set", yes=True)


# --- models -----------------------------------------------------------------------------------------------------------


def rendered(tokenizer: Any, prompts: list[Any], outputs: list[str] | None = None) -> list[list[int]]:
    """The tokens of the chat template, of prompts or of whole conversations."""
    said = [messages(p) for p in prompts]
    if outputs is not None:
        said = [[*m, {"role": "assistant", "content": o}] for m, o in zip(said, outputs, strict=True)]
    found = tokenizer.apply_chat_template(said, add_generation_prompt=outputs is None, return_dict=True)
    return [list(ids) for ids in found["input_ids"]]


@pytest.mark.parametrize("settings", [{"chat": True}, {}, {"template": '<bos>é "{prompt}"\nw1 '}], ids=str)
def test_a_policy_opens_in_transformers_and_generate_ends(settings: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = make_policy(**settings, top_k=7, forbidden_tokens=[9])
    policy.save(tmp_path / "saved")
    assert export(tmp_path / "saved", tmp_path / "out").opens == "AutoModelForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = [list(map(int, tokens)) for tokens in policy.conversation.prompts(TALKED)]
    assert rendered(tokenizer, TALKED) == expected
    assert model.config.eos_token_id == tokenizer.eos_token_id == policy.conversation.eos
    assert model.config.pad_token_id == tokenizer.pad_token_id is not None and model.config.bos_token_id is not None
    for kept, tokens in zip(policy.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(kept, tokens)
    tokens = torch.tensor(expected[:1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        written = model.generate(tokens.repeat(40, 1), attention_mask=torch.ones(40, tokens.shape[1]).long())
    answers = written[:, tokens.shape[1] :]
    ended = (answers == policy.conversation.eos).any(1)
    assert ended.sum() > 0 and answers.shape[1] <= 12 and not (answers == 9).any()
    after = (answers == policy.conversation.eos).cumsum(1) > 1
    assert (answers[after] == tokenizer.pad_token_id).all()


def printed(what: Exported, folder: Path, said: list[dict[str, str]]) -> float:
    """What the code on the card of a reward model prints of a conversation: its score."""
    card = cards.model("m", what.what, what.opens, what.shift, None, "m", None)
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("OWNER/NAME", str(folder))  # type: ignore[index]
    lines = [f"said = {said!r}" if line.startswith("said = ") else line for line in code.splitlines()]
    seen: list[Any] = []
    exec("\n".join(lines), {"print": seen.append})
    return float(seen[0].detach())


def reward_models(policy: Any, folder: Path, head: str) -> Iterator[tuple[list[float], Exported, Path]]:
    """A policy's scorer before and after calibration: its scores of the answers to TALKED, and what became of it."""
    policy.save(folder / "dpo")
    scorer = policy.scorer(seed=1, head=head)
    with torch.no_grad():
        scorer.weight.copy_(torch.linspace(-1, 1, scorer.weight.numel()).reshape(scorer.weight.shape))
    for name in ("raw", "calibrated"):
        if name == "calibrated":
            scorer.calibrate(0.3, 1.7)
        scorer.save(folder / name)
        made = export(folder / name, folder / f"out_{name}")
        yield scorer.scores(policy.encode(TALKED, ANSWERS)).tolist(), made, folder / f"out_{name}"


ANSWERS = ["w3 w4 w5 w6", "w9", "w1 w2"]
SAID = [[*messages(p), {"role": "assistant", "content": o}] for p, o in zip(TALKED, ANSWERS, strict=True)]


@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_opens_as_a_classifier_with_the_same_scores(chat: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    policy = make_policy(chat, **({} if chat else {"template": "{prompt}\n"}))
    for expected, made, out in reward_models(policy, tmp_path, "last"):
        assert made.opens == "AutoModelForSequenceClassification" and (made.shift != 0) is (out.name != "out_raw")
        tokenizer = AutoTokenizer.from_pretrained(out)
        model = AutoModelForSequenceClassification.from_pretrained(out).eval()
        rows = rendered(tokenizer, TALKED, ANSWERS)
        samples = policy.encode(TALKED, ANSWERS)
        both = zip(samples.prompt_tokens, samples.response_tokens, strict=True)
        assert rows == [[*map(int, p), *map(int, r)] for p, r in both]
        for side in ("left", "right"):
            tokenizer.padding_side = side
            padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            logits = model(**padded).logits.detach().numpy()[:, 0] + model.config.score_shift
            np.testing.assert_allclose(logits, expected, atol=2e-5)
        np.testing.assert_allclose([printed(made, out, said) for said in SAID], expected, atol=2e-5)


def test_behind_a_norm_with_a_bias_the_logits_are_the_scores(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel

    from farm.policies.language_model import LanguageModelPolicy

    tokenizer = word_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=2, n_head=2)
        ).eval()
    policy = LanguageModelPolicy(model, tokenizer, template="{prompt}\n", max_new_tokens=4)
    for expected, made, out in reward_models(policy, tmp_path, "last"):
        assert made.shift == 0 == AutoModelForSequenceClassification.from_pretrained(out).config.score_shift
        np.testing.assert_allclose([printed(made, out, said) for said in SAID], expected, atol=2e-5)


def test_a_sum_over_the_response_opens_as_a_classifier_of_tokens(tmp_path: Path) -> None:
    for expected, made, out in reward_models(make_policy(True), tmp_path, "last+sum"):
        assert made.opens == "AutoModelForTokenClassification" and made.shift == 0
        np.testing.assert_allclose([printed(made, out, said) for said in SAID], expected, rtol=1e-5, atol=2e-5)


def test_a_pad_token_that_ends_texts_is_another_one_in_a_reward_model(tmp_path: Path) -> None:
    """With the end of sequence as pad, transformers would read the score at the last token before the end."""
    from farm.policies.language_model import LanguageModelPolicy

    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    policy = LanguageModelPolicy(small_model(), tokenizer, template="{prompt}", max_new_tokens=4)
    policy.scorer(seed=1, head="last").save(tmp_path / "reward")
    export(tmp_path / "reward", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pad_token_id"] not in (None, config["eos_token_id"])


def test_a_checkpoint_of_a_run_goes_out_with_what_the_run_knows(hub: Hub, run: Path) -> None:
    make_policy(True).save(run / "checkpoints" / "dpo")
    farm.push(run / "checkpoints" / "dpo", "me/dpo", license="apache-2.0", yes=True)
    files = hub.files("model", "me/dpo")
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors"} < set(files)
    card = files["README.md"].decode()
    assert header(card)["base_model"] == "owner/base" and "beta: 0.1" in card and "rate: 0.25" in card
    assert "| dpo |" in card and 'from_pretrained("me/dpo")' in card and "secret" not in card


def test_a_model_that_was_a_folder_is_not_named_as_one_of_the_hub(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is pushed from a place without that folder."""
    (tmp_path / "owner" / "base").mkdir(parents=True)
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        run_folder.write_config(run, yaml.safe_load((run / "config.yaml").read_text()))
    make_policy(True).save(run / "checkpoints" / "dpo")
    said = farm.push(run / "checkpoints" / "dpo", "me/dpo")
    assert "base_model" not in header(said["card"]) and "model: owner/base" in said["card"]


@pytest.mark.parametrize("name", ["owner/base", "{here}/gone", "./gone", "a/b/gone"])
def test_a_folder_that_moved_since_is_not_named_as_one_of_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Any name was the hub's that was no folder at the end of the run."""
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["world"]["model"] = name.format(here=tmp_path)
    run_folder.write_config(run, settings)
    assert "base_model" not in json.loads((run / "environment.json").read_text())


def test_a_classifier_whose_head_is_no_linear_layer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a StopIteration."""
    from transformers import AutoModelForSequenceClassification

    made = AutoModelForSequenceClassification.from_config

    def elsewhere(config: Any, **how: Any) -> Any:
        model = made(config, **how)
        model.score = torch.nn.Sequential(model.score)
        return model

    make_policy(True).scorer(seed=1, head="last").save(tmp_path / "reward")
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_config", elsewhere)
    with pytest.raises(UserError, match="SequenceClassification of llama in transformers has no linear layer"):
        export(tmp_path / "reward", tmp_path / "out")


def test_what_transformers_has_no_class_for_is_one_sentence(tmp_path: Path) -> None:
    TabularPolicy(["q"], ["a", "b"], np.zeros((1, 2))).save(tmp_path / "table")
    with pytest.raises(UserError, match="holds a TabularPolicy, which transformers has no class for"):
        export(tmp_path / "table", tmp_path / "out")


def test_files_of_a_stage_can_be_read_by_whoever_reads_the_others(tmp_path: Path) -> None:
    """safetensors writes for its owner alone, and a group that shares FARM_HOME could not open the models."""
    with sealed.written(tmp_path / "stage") as new:
        make_policy().save(new / "model")
        (new / "plain").write_text("x")
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "stage").rglob("*") if p.is_file()}
    assert modes == {stat.S_IMODE((tmp_path / "stage" / "plain").stat().st_mode)}
    assert PROMPTS and sealed.flaw(tmp_path / "stage") is None
