"""Training against TRL: the same model, data, precision, batch and machine, one after the other.

    python benchmarks/train_against_trl.py                              # a small Llama on this machine
    python benchmarks/train_against_trl.py --model FOLDER --bf16        # a real one, such as SmolLM2-135M-Instruct
    python benchmarks/train_against_trl.py --methods sft,dpo --steps 20
    python benchmarks/train_against_trl.py --equal-curves               # the same rows in the same order, step by step

TRL 1.16 and datasets must be importable (PYTHONPATH may name a folder that holds them). Each side of each method runs
in a process of its own, whose peak memory is the system's count; the time is that of the whole training, from the first
batch to the last, with what it computes in advance (a reference, tokens) for ours. What is compared:

    sft, dpo, reward       steps a second; the mean loss of the first and the last quarter of one pass over the rows
    rloo, grpo, online_dpo iterations a second (sample, score, update); the mean reward of the first and the last third

The rows of a pass are the same and their order is not, so losses agree in the mean and not step by step. For that
there is ``--equal-curves``, apart from any timing: TRL is given the rows of each of our optimizer steps, in our order,
and the reward models start with one head; printed is by how much the losses of the steps differ (sft, dpo, reward).

A model that was never trained ends an answer by chance alone, one token in as many as it has: the small Llama cuts most
of them at one length. How many words the answers had on both sides ("words") says how alike the work was.
``--fine-tune 40`` begins with so many steps of supervised fine-tuning on the rows: its answers end, early and late, as
those of any policy that is worth improving do.

The reward is a count of words, so that scoring costs nothing on either side. On a machine with other work the ratio of
processor time ("cpu") is steadier than that of wall time; with one thread they mean the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FIXED = ("sft", "dpo", "reward")
"""methods that learn from fixed rows"""
METHODS = ("sft", "dpo", "reward", "rloo", "grpo", "online_dpo")
GOALS = {"sft": 1.5, "dpo": 1.5, "reward": 1.5, "rloo": 3.0, "grpo": 3.0, "online_dpo": 3.0}
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
    "which one you were her all she there would their we him been has when who will more no if out so said what up "
    "its about into than them can only other new some could time these two may then do first any my now such like "
    "our over man me "
    "even most made after also did many before must through back years where much your way well down should because "
    "each just those people mr how too little state good very make world still own see men work long get here between "
    "both life being under never day same another know while last might us great old year off come since against go "
    "came right used take three"
).split()
LIKED = {"the", "good", "great", "world", "people", "work"}


def texts(rows: int, seed: int) -> list[dict[str, str]]:
    """Rows of ``prompt``, ``chosen`` and ``rejected`` with lengths that vary as those of real ones do."""
    draw = np.random.default_rng(seed)

    def words(mean: float, least: int, most: int) -> str:
        count = int(np.clip(draw.lognormal(np.log(mean), 0.7), least, most))
        return " ".join(draw.choice(WORDS, count))

    found = []
    for _ in range(rows):
        prompt, a, b = words(14, 3, 60), words(32, 4, 110), words(32, 4, 110)
        chosen, rejected = (a, b) if liked(a) >= liked(b) else (b, a)
        found.append({"prompt": prompt, "chosen": " " + chosen, "rejected": " " + rejected})
    return found


def liked(text: str) -> float:
    words = text.split()
    return sum(word in LIKED for word in words) / max(1, len(words))


def tiny(folder: Path) -> None:
    """A Llama of 4 million parameters with a word-level tokenizer, saved in ``folder``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from farm.hardware.models import save_causal_lm, tiny_llama

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *dict.fromkeys(WORDS)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")
    model = tiny_llama(len(vocabulary), 256, 4, 4, 768, 512, seed=0)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_causal_lm(model, tokenizer, folder)


def prepare(_: str, a: argparse.Namespace) -> dict[str, Any]:
    """The model fine-tuned on other rows than those of the comparison, saved in the folder ``fine-tuned``."""
    import pandas as pd

    from farm.hardware.models import load_causal_lm
    from farm.policies.language_model import LanguageModelPolicy
    from farm.roles.protocols import Learning
    from reference_methods.imitation.sft import SFT

    policy = LanguageModelPolicy(*load_causal_lm(a.model), template="{prompt}", max_new_tokens=a.new_tokens)
    rows = pd.DataFrame(texts(a.fine_tune * a.batch, 1)).rename(columns={"prompt": "instruction", "chosen": "output"})
    method = SFT(epochs=1, batch_size=a.batch, learning_rate=20 * a.learning_rate, warm_up=0.1)
    learned: Any = method.train(Learning(seed=1, policy=policy, prompts=rows[["instruction"]], demonstrations=rows))
    samples = learned.sample(rows["instruction"].tolist()[:64], seed=1, purpose="lengths")
    learned.save(Path(a.scratch) / "fine-tuned")
    return {"length": float(samples.lengths().mean()), "cut": float(np.mean(np.array(samples.finish_reason) != "stop"))}


# --- one side of one method, in a process of its own ------------------------------------------------------------------


def ours(method: str, a: argparse.Namespace) -> dict[str, Any]:
    import pandas as pd
    import torch

    from farm.experiments.asker import FeedbackAsker
    from farm.feedback.kind import kind
    from farm.hardware.models import load_causal_lm
    from farm.policies.language_model import LanguageModelPolicy
    from farm.roles.protocols import Learning
    from farm.tables.records import USAGE_COLUMNS
    from reference_methods.games.online_dpo import OnlineDPO
    from reference_methods.imitation.sft import SFT
    from reference_methods.models.reward_model import RewardModel
    from reference_methods.online.grpo import GRPO
    from reference_methods.online.rloo import RLOO
    from reference_methods.pairs.dpo import DPO

    class Count:
        """A reward model, and an annotator, that counts words."""

        def scores(self, samples: Any) -> torch.Tensor:
            return torch.tensor([liked(output) for output in samples.outputs])

        def annotate(self, pairs: pd.DataFrame, **_: Any) -> pd.DataFrame:
            first, second = pairs["output_1"].map(liked), pairs["output_2"].map(liked)
            preference = np.where(first > second, 1.0, np.where(first < second, 2.0, 1.5))
            answered = {"annotator": "count", "preference": preference, "p_first": None, "status": "ok"}
            return pairs.assign(**answered, **dict.fromkeys(USAGE_COLUMNS, 0.0))

    model, tokenizer = load_causal_lm(a.model)
    if torch.cuda.is_available():
        model = model.cuda()
    policy = LanguageModelPolicy(
        model,
        tokenizer,
        template="{prompt}",
        max_new_tokens=a.new_tokens,
        compute_dtype="bfloat16" if a.bf16 else None,
    )
    table = pd.DataFrame(texts(a.steps * a.batch, 0)).rename(columns={"prompt": "instruction"})
    pairs = table.assign(output_1=table["chosen"], output_2=table["rejected"], preference=1.0, status="ok")
    shared = {"learning_rate": a.learning_rate, "schedule": "constant", "warm_up": 0.0}
    fixed = {"epochs": 1, "batch_size": a.batch, "micro_batch_tokens": a.micro_batch_tokens, **shared}
    online = {"steps": a.steps, "epochs": 1, "minibatches": 1, "micro_batch_tokens": a.micro_batch_tokens, **shared}
    sampled = {"rollouts": a.batch, "samples_per_prompt": 4, "missing_eos_reward": None, "same": 0.1, **online}
    methods: dict[str, Any] = {
        "sft": SFT(**fixed),
        "dpo": DPO(**fixed),
        "reward": RewardModel(**fixed, held_out_share=0.0, calibration_samples=0),
        "rloo": RLOO(**sampled, beta=0.05, whiten=False),
        "grpo": GRPO(**sampled, beta=0.04),
        "online_dpo": OnlineDPO(prompts_per_step=a.batch // 2, samples_per_prompt=2, **online),
    }
    if a.equal_curves:
        write_down(Path(a.scratch) / method)
    lines: list[dict[str, float]] = []
    words: list[int] = []

    def gold(samples: Any) -> np.ndarray:
        words.extend(len(output.split()) for output in samples.outputs)
        return np.array([liked(output) for output in samples.outputs])

    learning = Learning(
        seed=0,
        policy=policy,
        prompts=table[["instruction"]],
        demonstrations=table.assign(output=table["chosen"])[["instruction", "output"]],
        feedback={"pairs": pairs.drop(columns=["chosen", "rejected"])},
        asked={"pairs": FeedbackAsker(kind("pairs"), Count(), 0)},
        models={"reward_model": Count()},  # type: ignore[arg-type] (scores are all that these methods ask for)
        gold=gold,
        log=lines.append,
    )
    started, worked = time.perf_counter(), time.process_time()
    methods[method].train(learning)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    name = "loss" if method in FIXED else "gold"
    curve = [line[name] for line in lines if name in line]
    return {"seconds": seconds, "cpu": cpu, "curve": curve, "words": mean_of(words)}


def write_down(folder: Path) -> None:
    """From now on a training on fixed rows leaves behind, in ``folder``, which rows each of its optimizer steps had
    (rows.json) and with which head a reward model began (head.safetensors)."""
    from safetensors.torch import save_file

    from reference_methods.parts import trainer, training

    folder.mkdir(parents=True)
    dealt, begun = trainer.minibatches, training.Training.start_scorer

    def minibatches(*given: Any, **more: Any) -> Any:
        batches = dealt(*given, **more)
        (folder / "rows.json").write_text(json.dumps([rows.tolist() for rows in batches]))
        return batches

    def start_scorer(self: Any, *given: Any) -> Any:
        scorer: Any = begun(self, *given)
        save_file({"weight": scorer.weight.detach().cpu().contiguous()}, folder / "head.safetensors")
        return scorer

    trainer.minibatches, training.Training.start_scorer = minibatches, start_scorer  # type: ignore[method-assign]


def follow(trainer: Any, method: str, folder: Path) -> list[float]:
    """Make TRL's trainer take its rows as they stand and begin with our head; the list fills with each step's loss."""
    from safetensors.torch import load_file
    from torch.utils.data import SequentialSampler

    if method == "reward":
        trainer.model.score.weight.data.copy_(load_file(folder / "head.safetensors")["weight"])
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    losses: list[float] = []
    step = trainer.training_step

    def training_step(*given: Any, **more: Any) -> Any:
        loss = step(*given, **more)
        losses.append(float(loss))
        return loss

    trainer.training_step = training_step
    return losses


def theirs(method: str, a: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    tokenizer = AutoTokenizer.from_pretrained(a.model, trust_remote_code=False)
    kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
    labels = {"num_labels": 1} if method == "reward" else {}
    model = kind.from_pretrained(a.model, dtype=torch.float32, trust_remote_code=False, **labels)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    rows = texts(a.steps * a.batch, 0)
    if a.equal_curves:
        rows = [rows[i] for step in json.loads((Path(a.scratch) / method / "rows.json").read_text()) for i in step]
    shared = {
        "output_dir": os.path.join(a.scratch, "trl", method),
        "per_device_train_batch_size": a.batch,
        "learning_rate": a.learning_rate,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "max_steps": a.steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": a.bf16,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    words: list[int] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        words.extend(len(text.split()) for text in completions)
        return [liked(text) for text in completions]

    prompts = Dataset.from_list([{"prompt": row["prompt"]} for row in rows])
    long = {"max_length": 1024}
    sampled = {"num_generations": 4, "max_completion_length": a.new_tokens, "temperature": 1.0, "top_p": 1.0}
    sampled |= {"top_k": 0}
    given = {"model": model, "processing_class": tokenizer, "callbacks": [Clock()]}
    if method == "sft":
        from trl import SFTConfig, SFTTrainer

        data = Dataset.from_list([{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows])
        trainer = SFTTrainer(args=SFTConfig(**shared, **long, completion_only_loss=True), train_dataset=data, **given)
    elif method == "dpo":
        from trl import DPOConfig, DPOTrainer

        trainer = DPOTrainer(args=DPOConfig(**shared, **long, beta=0.1), train_dataset=Dataset.from_list(rows), **given)
    elif method == "reward":
        from trl import RewardConfig, RewardTrainer

        trainer = RewardTrainer(args=RewardConfig(**shared, **long), train_dataset=Dataset.from_list(rows), **given)
    elif method == "rloo":
        from trl import RLOOConfig, RLOOTrainer

        config = RLOOConfig(**shared, **sampled, beta=0.05)
        trainer = RLOOTrainer(args=config, reward_funcs=reward, train_dataset=prompts, **given)
    elif method == "grpo":
        from trl import GRPOConfig, GRPOTrainer

        config = GRPOConfig(**shared, **sampled, beta=0.04, loss_type="grpo")
        trainer = GRPOTrainer(args=config, reward_funcs=reward, train_dataset=prompts, **given)
    else:
        from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

        config = OnlineDPOConfig(
            **{**shared, "per_device_train_batch_size": a.batch // 2},
            max_new_tokens=a.new_tokens,
            max_length=1024,
            temperature=1.0,
            top_k=0,
            beta=0.1,
            missing_eos_penalty=None,
        )
        trainer = OnlineDPOTrainer(args=config, reward_funcs=reward, train_dataset=prompts, **given)
    losses = follow(trainer, method, Path(a.scratch) / method) if a.equal_curves else []
    started, worked = time.perf_counter(), time.process_time()
    trainer.train()
    cpu = time.process_time() - worked
    name = {"sft": "loss", "dpo": "loss", "reward": "loss"}.get(method, "reward")
    history = trainer.state.log_history
    curve = [
        next(line[k] for k in (name, "rewards/mean", "rewards/reward/mean", "objective/scores") if k in line)
        for line in history
        if any(k in line for k in (name, "rewards/reward/mean", "objective/scores"))
    ]
    curve = losses or [float(x) for x in curve]
    return {"seconds": marks[-1] - started, "cpu": cpu, "curve": curve, "words": mean_of(words)}


def worker(side: str, method: str, a: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(a.threads)
    found = {"trl": theirs, "ours": ours, "prepare": prepare}[side](method, a)
    if torch.cuda.is_available():
        found["memory"] = torch.cuda.max_memory_allocated() / 1e6
    else:
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print("RESULT " + json.dumps(found))


# --- all of it --------------------------------------------------------------------------------------------------------


def run(side: str, method: str, a: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--model", a.model, "--scratch", a.scratch]
    done = subprocess.run([*command, "--worker", side, method], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line[len("RESULT ") :]))
    return {"error": (done.stderr.strip().splitlines() or ["no result"])[-1][:200]}


def mean_of(words: list[int]) -> float | None:
    """of the answers that were scored; None where none is sampled"""
    return round(float(np.mean(words)), 1) if words else None


def ends(curve: list[float], part: int) -> str:
    size = max(1, len(curve) // part)
    return f"{np.mean(curve[:size]):.3f} to {np.mean(curve[-size:]):.3f}" if curve else "none"


def compare_curves(a: argparse.Namespace) -> None:
    """Ours first, then TRL on the same rows step by step."""
    print(f"{'method':8} {'steps':>5} {'largest difference':>19} {'mean':>10} {'mean loss':>10}   first and last step")
    for method in a.methods.split(","):
        if method not in FIXED:
            print(f"{method:8} draws its own samples: no equal curves")
            continue
        own, trl = run("ours", method, a), run("trl", method, a)
        if "error" in trl or "error" in own:
            print(f"{method:8} failed: TRL {trl.get('error', 'ran')}; ours {own.get('error', 'ran')}", flush=True)
            continue
        mine, other = np.array(own["curve"]), np.array(trl["curve"])
        if len(mine) != len(other):
            print(f"{method:8} failed: {len(mine)} steps here and {len(other)} in TRL", flush=True)
            continue
        apart = np.abs(mine - other)
        print(
            f"{method:8} {len(mine):5} {apart.max():19.2e} {apart.mean():10.2e} {mine.mean():10.4f}   "
            f"{mine[0]:.6f} to {mine[-1]:.6f}, TRL {other[0]:.6f} to {other[-1]:.6f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a folder in Hugging Face format; a small Llama if omitted")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32, help="rows of a step, pairs of dpo and reward, or completions")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--micro-batch-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16 on both sides")
    parser.add_argument("--equal-curves", action="store_true", help="compare losses step by step instead of timing")
    parser.add_argument("--fine-tune", type=int, default=0, help="steps of fine-tuning before anything is compared")
    parser.add_argument("--scratch", default="", help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker:
        worker(*a.worker, a)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        a.scratch = scratch
        if not a.model:
            a.model = str(Path(scratch) / "tiny")
            tiny(Path(a.model))
        if a.fine_tune:
            done = run("prepare", "sft", a)
            if "error" in done:
                raise SystemExit(f"the fine-tuning failed: {done['error']}")
            a.model = str(Path(scratch) / "fine-tuned")
            print(
                f"after {a.fine_tune} steps: answers of {done['length']:.0f} tokens, {done['cut']:.0%} cut", flush=True
            )
        if a.equal_curves:
            compare_curves(a)
            return
        heads = f"{'ratio':>6} {'cpu s':>13} {'ratio':>6} {'goal':>5} {'memory MB':>15}   curves"
        print(f"{'method':11} {'TRL s/step':>11} {'ours':>7} {heads}")
        for method in a.methods.split(","):
            trl, own = run("trl", method, a), run("ours", method, a)
            if "error" in trl or "error" in own:
                print(f"{method:11} failed: TRL {trl.get('error', 'ran')}; ours {own.get('error', 'ran')}", flush=True)
                continue
            part = 4 if method in FIXED else 3
            wall, cpu = (trl[unit] / own[unit] for unit in ("seconds", "cpu"))
            print(
                f"{method:11} {trl['seconds'] / a.steps:11.3f} {own['seconds'] / a.steps:7.3f} {wall:6.2f} "
                f"{trl['cpu'] / a.steps:6.3f} {own['cpu'] / a.steps:6.3f} {cpu:6.2f} "
                f"{GOALS[method]:5.1f} {trl['memory']:7.0f} {own['memory']:7.0f}   "
                f"TRL {ends(trl['curve'], part)}, ours {ends(own['curve'], part)}"
                + (f"; words {trl['words']}, {own['words']}" if own["words"] else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
