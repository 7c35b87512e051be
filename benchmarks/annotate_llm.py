"""How fast an LLM annotator asks, when the model takes no time: ours and alpaca-eval's on one instant loopback server.

    python -m benchmarks.annotate_llm                                  ours: 805 and 8,050 pairs, and a cached re-run
    python -m benchmarks.annotate_llm --peer /path/to/venv/bin/python  also the peer, in its own environment

The server answers every chat completion with the same bytes from a process of its own. Texts are the outputs of two
models of AlpacaEval where the reference data is there, else made up with the same lengths. The cached re-run has a
store of 10^6 rows behind it. The peer is given one pair a prompt, as ours, and its default concurrency. On a machine
that does other work compare the CPU seconds: both spend nearly all of their time computing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": "1", "refusal": None},
    "logprobs": {
        "content": [
            {
                "token": "1",
                "logprob": -0.1,
                "bytes": [49],
                "top_logprobs": [
                    {"token": token, "logprob": logprob, "bytes": [ord(token)]}
                    for token, logprob in (("1", -0.1), ("2", -2.4), ("m", -3.0), ("M", -3.5))
                ],
            }
        ],
        "refusal": None,
    },
}
USAGE = {"prompt_tokens": 500, "completion_tokens": 1, "total_tokens": 501}
BODY = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}


class Instant(asyncio.Protocol):
    """Answers as soon as a request is complete."""

    def __init__(self, answer: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
        self._answer, self._got = head + answer, bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._got[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._got) < end + 4 + length:
                return
            del self._got[: end + 4 + length]
            self._transport.write(self._answer)


def serve(content: str) -> None:
    """Serve until killed; the port goes to standard output."""
    choice = {**CHOICE, "message": {**CHOICE["message"], "content": content}}  # type: ignore[dict-item]
    answer = json.dumps({**BODY, "choices": [choice]}).encode()

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Instant(answer), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


@contextlib.contextmanager
def instant_server(content: str) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, __file__, "--serve", content], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def pairs(n: int) -> pd.DataFrame:
    """n pairs with the texts, or the lengths, of AlpacaEval."""
    base = Path(os.environ.get("FARM_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "alpaca_eval"
    if (base / "outputs.parquet").is_file():
        outputs = pd.read_parquet(base / "outputs.parquet").merge(
            pd.read_parquet(base / "instructions.parquet")[["instruction_id", "instruction"]], on="instruction_id"
        )
        names = sorted(outputs["generator"].unique())
        tables = []
        for one, two in zip(names[::2], names[1::2], strict=False):
            both = outputs[outputs["generator"] == one].merge(
                outputs[outputs["generator"] == two], on="instruction_id", suffixes=("_1", "_2")
            )
            tables.append(both.rename(columns={"instruction_1": "instruction"}))
            if sum(map(len, tables)) >= n:
                break
        columns = ["instruction", "output_1", "output_2", "generator_1", "generator_2"]
        return pd.concat(tables)[columns].drop_duplicates(columns[:3]).head(n).reset_index(drop=True)
    text = [f"{i} " + "word " * 250 for i in range(2 * n)]
    return pd.DataFrame(
        {"instruction": [f"Instruction {i}" for i in range(n)], "output_1": text[:n], "output_2": text[n:]}
    )


def ours(n: int, url: str, folder: Path, timed: str = "asked") -> dict[str, Any]:
    from annotators.llm.annotator import LLMAnnotator
    from annotators.llm.session import session
    from farm.storage.store import Store

    table = pairs(n)
    store = Store(folder / f"{n}.sqlite")
    annotator = LLMAnnotator("openai/judge", base_url=url, store=store)
    with session() as run:
        annotator.annotate(table.iloc[:64].assign(instruction=lambda t: t["instruction"] + " warm"), seed=0)
        started, used = time.perf_counter(), time.process_time()
        out = annotator.annotate(table, seed=0)
        seconds, busy = time.perf_counter() - started, time.process_time() - used
        assert (out["status"] == "ok").all()
        assert run.tally.cached == 0
    return {"what": f"ours, {n} {timed}", "rows": n, "seconds": seconds, "rows/s": n / seconds, "CPU s": busy}


def cached(url: str, folder: Path, rows: int) -> dict[str, Any]:
    """A re-run of 805 pairs that the store knows, among ``rows`` others."""
    from annotators.llm.annotator import LLMAnnotator
    from farm.storage.store import Entry, Store, address

    table = pairs(805)
    store = Store(folder / "large.sqlite")
    annotator = LLMAnnotator("openai/judge", base_url=url, store=store)
    first = annotator.annotate(table, seed=0)
    answer = {"text": "1", "labels": {"1": -0.1, "2": -2.4}, "input_tokens": 500, "output_tokens": 1, "finish": "stop"}
    for start in range(0, rows, 50_000):
        store.put("llm answer", [Entry(address(i), answer, 500, 1) for i in range(start, start + 50_000)])
    best = busy = float("inf")
    for _ in range(5):
        started, used = time.perf_counter(), time.process_time()
        again = annotator.annotate(table, seed=0)
        best, busy = min(best, time.perf_counter() - started), min(busy, time.process_time() - used)
    assert again["cached"].all()
    assert (again["preference"] == first["preference"]).all()
    return {"what": f"ours, 805 cached of {rows:,}", "rows": 805, "seconds": best, "rows/s": 805 / best, "CPU s": busy}


PEER = """
import json, sys, time, os, tempfile
import pandas as pd
from alpaca_eval.annotators import PairwiseAnnotator
table = pd.read_json(sys.argv[1], orient="records")
config = {"judge": {
    "prompt_template": sys.argv[2], "fn_completions": "openai_completions",
    "completions_kwargs": {"model_name": "gpt-4", "max_tokens": 1, "temperature": 0, "logprobs": True,
                           "top_logprobs": 5, "requires_chatml": True},
    "fn_completion_parser": "logprob_parser",
    "completion_parser_kwargs": {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False},
    "completion_key": "completions_all", "batch_size": 1}}
folder = tempfile.mkdtemp()
path = os.path.join(folder, "configs.yaml")
import yaml
yaml.safe_dump(config, open(path, "w"))
annotator = PairwiseAnnotator(annotators_config=path, caching_path=os.path.join(folder, "cache.json"))
started, used = time.perf_counter(), time.process_time()
out = annotator.annotate_pairs(table)
seconds, used = time.perf_counter() - started, time.process_time() - used
print("RESULT", len(out), sum(1 for r in out if r["preference"] is not None), seconds, used)
"""
PEER_PROMPT = (
    "<|im_start|>system\nYou compare outputs.\n<|im_end|>\n<|im_start|>user\n{instruction}\n\nm: {output_1}\n\n"
    "M: {output_2}\n\nWhich is better, m or M?\n<|im_end|>\n"
)


def peer(python: str, n: int, url: str, folder: Path) -> dict[str, Any]:
    table = pairs(n)
    table.to_json(folder / "pairs.json", orient="records")
    (folder / "prompt.txt").write_text(PEER_PROMPT)
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [python, "-c", PEER, str(folder / "pairs.json"), str(folder / "prompt.txt")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(f"the peer failed:\n{done.stderr[-3000:]}")
    _, rows, ok, seconds, used = lines[0].split()
    rate, busy = int(rows) / float(seconds), float(used)
    what = f"alpaca-eval, {n} asked ({ok} ok)"
    return {"what": what, "rows": n, "seconds": float(seconds), "rows/s": rate, "CPU s": busy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--peer", help="python of an environment with alpaca-eval")
    parser.add_argument("--large", type=int, default=1_000_000, help="rows in the store of the cached re-run")
    parser.add_argument("--rows", type=int, default=805, help="pairs, and ten times as many in a second run of ours")
    parser.add_argument("--only", choices=["ours", "cached", "peer"])
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    os.environ.setdefault("OPENAI_API_KEY", "none")
    results = []
    with tempfile.TemporaryDirectory() as name, instant_server("1") as url:
        folder = Path(name)
        if chosen.only in (None, "ours"):
            results += [ours(n, url, folder) for n in (chosen.rows, 10 * chosen.rows)]
        if chosen.only in (None, "cached"):
            results.append(cached(url, folder, chosen.large))
    if chosen.peer and chosen.only in (None, "peer"):
        with tempfile.TemporaryDirectory() as name, instant_server("m") as url:
            results.append(peer(chosen.peer, chosen.rows, url, Path(name)))
    print(pd.DataFrame(results).to_string(index=False, float_format=lambda v: f"{v:,.3f}"))


if __name__ == "__main__":
    main()
