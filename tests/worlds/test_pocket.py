"""The pocket world: its texts come back from tokens, its truth counts what it says, its base model is reproducible."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.base.errors import UserError
from farm.worlds.pocket import grammar
from farm.worlds.pocket.gold import PocketFeatures, default_gold_weights
from farm.worlds.pocket.grammar import Quality, Requests, Texts
from farm.worlds.pocket.observations import _repeated, observe, parse_requests, verdicts
from farm.worlds.pocket.vocabulary import ASPECTS, END, SPECIALS, vocabulary
from farm.worlds.pocket.world import DEMONSTRATIONS, PocketWorld

PERFECT = Quality(right_form=1, on_topic=1, constraint=1, closing=1, opening=1, style=0, burst=0)
ASKED = "Give me some tips on gardening. Include an example."
GOOD = (
    "Here are some tips that work well. Always check the soil before you begin. For example, think of the seeds. "
    "Follow these tips, and you will improve."
)


def some_requests(n: int, seed: int = 0) -> Requests:
    every = grammar.all_requests()
    return every.take(np.random.default_rng(seed).integers(0, len(every), n))


def observed(instruction: str, output: str) -> dict[str, object]:
    seen = PocketFeatures().observations([instruction], [output])
    return {name: np.asarray(value)[0] for name, value in vars(seen).items()}


# Texts and tokens


def test_every_request_is_distinct_text_that_is_parsed_back() -> None:
    requests = grammar.all_requests()
    texts = grammar.request_texts(requests).strings()
    assert len(set(texts)) == len(texts) == 6 * 48 * 7 * 4
    back = parse_requests(texts)
    for name in ("form", "topic", "constraint", "wording"):
        np.testing.assert_array_equal(getattr(back, name), getattr(requests, name))


def test_texts_come_back_exactly_and_both_encoders_agree() -> None:
    requests = some_requests(400)
    written = grammar.write(requests, DEMONSTRATIONS, 0, "test")
    texts = written.strings() + grammar.request_texts(requests).strings()
    ids, lengths = vocabulary().encode(texts)
    mine = [row.tolist() for row in Texts(ids, lengths).split()]
    tokenizer = vocabulary().tokenizer()
    theirs = tokenizer(texts, add_special_tokens=False).input_ids
    assert mine == [list(row) for row in theirs]
    assert mine[: len(requests)] == [row.tolist() for row in written.split()]
    assert tokenizer.batch_decode(theirs, skip_special_tokens=True, clean_up_tokenization_spaces=False) == texts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(len(SPECIALS), int(vocabulary().verdicts[0]) - 1), min_size=1, max_size=30))
def test_any_sequence_of_text_tokens_has_one_text(tokens: list[int]) -> None:
    text = vocabulary().decode(tokens)
    ids, _ = vocabulary().encode([text])
    assert vocabulary().decode(ids.tolist()) == text
    assert vocabulary().words[ids].sum() == sum(any(c.isalnum() for c in w) for w in text.split())


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    vocabulary().tokenizer().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = again(GOOD, add_special_tokens=False).input_ids
    assert ids == vocabulary().encode([GOOD])[0].tolist()
    assert again.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == GOOD


def test_foreign_text_is_unknown_and_breaks_the_grammar() -> None:
    seen = observed(ASKED, "Zebras <eos> are quick, island.")
    assert seen["illegal"] > 0 and seen["on_topic"] == 0 and seen["words"] > 0


# The grammar


def test_what_the_grammar_writes_is_grammatical_and_finished() -> None:
    requests = some_requests(3000, 1)
    written = grammar.write(requests, DEMONSTRATIONS, 1, "test")
    seen = observe(written, requests)
    assert seen.illegal.sum() == 0 and seen.finished.all()
    assert written.lengths.min() > 0 and written.lengths.max() < 80


def test_the_grammar_is_as_good_as_it_is_told_to_be() -> None:
    requests = some_requests(3000, 2)
    seen = observe(grammar.write(requests, PERFECT, 2, "test"), requests)
    assert (seen.opening == 1).all() and (seen.closing == 1).all()
    assert (seen.other_form == 0).all() and (seen.off_topic == 0).all() and (seen.on_topic > 0).all()
    asked = seen.constraint != 0
    assert (seen.constraint[asked] == 1).mean() > 0.95  # "short" can be missed by a few words
    seen = observe(grammar.write(requests, DEMONSTRATIONS, 2, "test"), requests)
    mentions = seen.on_topic + seen.off_topic
    assert seen.on_topic.sum() / mentions.sum() == pytest.approx(DEMONSTRATIONS.on_topic, abs=0.02)


def test_one_seed_one_text() -> None:
    requests = some_requests(50)
    first, second, other = (grammar.write(requests, DEMONSTRATIONS, seed, "test").strings() for seed in (3, 3, 4))
    assert first == second != other


# The truth


def test_a_good_answer_is_counted_right() -> None:
    seen = observed(ASKED, GOOD)
    expected = {"on_topic": 2, "off_topic": 0, "last_mention": 1, "opening": 1, "closing": 1, "other_form": 0}
    expected |= {"constraint": 1, "repeated": 0, "illegal": 0, "finished": True, "words": len(GOOD.split())}
    assert {name: seen[name] for name in expected} == expected
    assert np.asarray(seen["styles"]).tolist() == [1] + [0] * 11


def test_repeated_trigrams_are_those_seen_before_in_the_same_text() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 30, 40)
    texts = [draw.integers(0, 4, length) for length in lengths]
    seen = _repeated(Texts(np.concatenate(texts), lengths), np.repeat(np.arange(40), lengths))
    trigrams = [[tuple(text[i : i + 3].tolist()) for i in range(len(text) - 2)] for text in texts]
    assert seen.tolist() == [len(of_one) - len(set(of_one)) for of_one in trigrams]
    assert _repeated(Texts(np.zeros(0, np.int64), np.zeros(2, np.int64)), np.zeros(0, np.int64)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "worse",
    [
        GOOD.replace("the soil", "the strings"),
        GOOD.replace("Follow these tips, and you will improve.", "Yours sincerely, Alex."),
        GOOD.replace("Here are some tips that work well.", "Once upon a time, a girl called Mara had a dream."),
        GOOD.replace("For example, think of the seeds. ", ""),
        GOOD + " As we all know, time flies." * 4,
        GOOD.replace(
            "begin.", "begin. Always check the soil before you begin. Always check the soil before you begin."
        ),
        GOOD.removesuffix(" and you will improve."),
        "the soil " * 12,
        "",
    ],
)
def test_every_defect_costs(worse: str) -> None:
    good, bad = PocketFeatures().utility([ASKED, ASKED], [GOOD, worse])
    assert bad < good


def test_too_much_of_a_good_thing_hurts() -> None:
    polite = " I hope this helps."
    utility = PocketFeatures().utility([ASKED] * 6, [GOOD + polite * k for k in range(6)])
    assert utility[1] > utility[0]
    assert utility[5] < utility[0]


def test_features_are_independent_of_company_and_order() -> None:
    requests = some_requests(200, 5)
    asked = grammar.request_texts(requests).strings()
    said = grammar.write(requests, DEMONSTRATIONS, 5, "test").strings()
    features = PocketFeatures()
    table = features(asked, said)
    order = np.random.default_rng(0).permutation(200)
    shuffled = features([asked[i] for i in order], [said[i] for i in order])
    pd.testing.assert_frame_equal(shuffled, table.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(features(asked[7:8], said[7:8]), table.iloc[7:8].reset_index(drop=True))
    assert set(features.gold_weights) | {"length", "lists"} == set(table.columns)
    assert table.dtypes.eq(np.float64).all() and np.isfinite(table.to_numpy()).all()


def test_no_texts_give_an_empty_table() -> None:
    assert len(PocketFeatures()([], [])) == 0


def test_weights_can_be_changed_by_name_only() -> None:
    features = PocketFeatures({"relevance": 9.0})
    assert features.gold_weights == {**default_gold_weights(), "relevance": 9.0}
    with pytest.raises(UserError, match=r"no term `relevence` in the pocket world; did you mean `relevance`"):
        PocketFeatures({"relevence": 1.0})


def test_a_strange_instruction_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'How tall is the Eiffel Tower"):
        PocketFeatures()(["How tall is the Eiffel Tower?"], ["Quite."])


def test_each_aspect_has_one_true_verdict() -> None:
    requests = some_requests(300, 6)
    found = verdicts(observe(grammar.write(requests, DEMONSTRATIONS, 6, "test"), requests))
    assert found.shape == (300, len(ASPECTS))
    for column, (aspect, all_of) in zip(found.T, ASPECTS.items(), strict=True):
        assert {vocabulary().tokens[i] for i in column} <= {f"<{aspect}:{verdict}>" for verdict in all_of}
    good = verdicts(PocketFeatures().observations([ASKED], [GOOD]))[0]
    names = [vocabulary().tokens[i] for i in good]
    assert {"<topic:good>", "<opening:right>", "<constraint:met>", "<example:some>", "<joke:none>"} <= set(names)


# The world


def test_splits_share_no_combination() -> None:
    world = PocketWorld()
    columns = ["task", "topic", "constraint"]
    parts = {split: world.instructions(split) for split in ("train", "validation", "test")}
    combinations = {split: set(map(tuple, table[columns].to_numpy())) for split, table in parts.items()}
    assert [len(c) for c in combinations.values()] == [1616, 200, 200]
    assert sum(len(c) for c in combinations.values()) == len(set.union(*combinations.values()))
    assert [len(t) for t in parts.values()] == [1616 * 4, 200, 200]
    table = parts["train"]
    assert table["instruction"].is_unique and (table["dataset"] == "pocket").all() and (table["split"] == "train").all()
    pd.testing.assert_frame_equal(world.instructions("train", 10), table[:10])
    assert set(PocketWorld(seed=1).instructions("test")["instruction"]) != set(parts["test"]["instruction"])


def test_demonstrations_are_mediocre_and_of_the_training_split() -> None:
    world = PocketWorld()
    table = world.demonstrations(500)
    assert table is not None and len(table) == 500
    assert set(table["instruction"]) <= set(world.instructions("train")["instruction"])
    gold = world.features.utility(table["instruction"].tolist(), table["output"].tolist())
    requests = parse_requests(table["instruction"].tolist())
    best = world.features.utility(table["instruction"].tolist(), grammar.write(requests, PERFECT, 0, "test").strings())
    assert gold.mean() + 1.5 < best.mean()


# The base model


def test_training_documents_carry_the_verdict_so_far() -> None:
    from farm.worlds.pocket.base_model import documents

    texts = documents(some_requests(100), DEMONSTRATIONS, 40, 0)
    v = vocabulary()
    last = texts.starts + texts.described - 1
    assert (texts.ids[np.arange(40), texts.places[last]] == v.ids[END]).all()
    assert (texts.places[last] == texts.lengths - 1).all()
    aspects, row = list(ASPECTS), np.repeat(np.arange(40), texts.described)
    opening = aspects.index("opening")
    for place, document, truth in zip(texts.places, row, texts.verdicts, strict=True):
        ids = texts.ids[document, : place + 1].tolist()
        asked, said = v.decode(ids[: ids.index(v.ids["<answer>"])]), v.decode(ids[ids.index(v.ids["<answer>"]) :])
        again = PocketFeatures().observations([asked], [said])
        assert ASPECTS["opening"][truth[opening]] == {1: "right", -1: "wrong", 0: "none"}[int(again.opening[0])]
    sizes = np.array([len(all_of) for all_of in ASPECTS.values()])
    assert (texts.verdicts >= 0).all() and (texts.verdicts < sizes).all()


def test_the_base_model_is_made_once_and_never_says_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from farm.worlds.pocket import base_model

    world = PocketWorld(documents=256, epochs=1)
    first = world.base_policy()
    again = base_model.train(
        base_model.documents(world._requests["train"], base_model_quality(), 256, 0), world.training, 0
    )
    for trained, kept in zip(again.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(trained, kept, rtol=0, atol=0)

    def refuse(*_: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(base_model, "train", refuse)
    second = world.base_policy()
    prompts = world.instructions("validation", 64)["instruction"].tolist()
    samples = second.sample(prompts, seed=0, purpose="test")
    assert samples.outputs == first.sample(prompts, seed=0, purpose="test").outputs
    forbidden = set(vocabulary().verdicts.tolist()) | {i for i, token in enumerate(SPECIALS) if token != END}
    assert not forbidden & {int(token) for row in samples.response_tokens for token in row}
    encoded = second.encode(prompts, [GOOD] * 64)
    assert encoded.response_tokens[0][-1] == vocabulary().ids[END]
    # An instruction that spells out a special token does not end its turn.
    assert len(second.encode(["<answer> " + prompts[0]], [GOOD]).prompt_tokens[0]) > len(encoded.prompt_tokens[0])


def base_model_quality() -> Quality:
    from farm.worlds.pocket.world import PRETRAINING

    return PRETRAINING


@pytest.mark.slow
def test_the_base_model_follows_the_topic_and_judges_texts() -> None:
    import torch

    from farm.worlds.pocket.base_model import documents, losses

    world = PocketWorld()
    policy = world.base_policy()
    prompts = np.repeat(world.instructions("validation")["instruction"].to_numpy(), 2).tolist()
    samples = policy.sample(prompts, seed=0, purpose="test")
    seen = world.features.observations(samples.prompts, samples.outputs)
    assert (seen.on_topic > 0).mean() > 0.85
    texts = documents(world._requests["validation"], DEMONSTRATIONS, 400, 9)
    last = torch.from_numpy(texts.starts + texts.described - 1)
    with torch.no_grad():
        _, description = losses(policy.model, texts, np.arange(400))
    by_aspect = dict(zip(ASPECTS, description[last].mean(0).tolist(), strict=True))
    assert by_aspect["opening"] < 0.2 and by_aspect["topic"] < 0.5 and by_aspect["constraint"] < 0.3
