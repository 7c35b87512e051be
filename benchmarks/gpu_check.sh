#!/usr/bin/env bash
# benchmarks/gpu_check.sh [FOLDER]: what only a GPU can show, in less than ten minutes on one H200, without a network.
#
# The tests of tests/gpu, sampling as CUDA graphs against plain sampling, the throughput of 1.1 and 6.7 billion random
# parameters, and where vLLM is installed its tests and the hand-over of the large model. PYTHON names the interpreter
# (.venv/bin/python). The folder (gpu_check) gets one log a part, figures.jsonl, and summary.txt: each part's status
# (124: it took too long) and seconds. The seconds that the parts may take come to less than ten minutes, so vLLM starts
# without compiling and recording, which takes a minute of a large model.
set -u
cd "$(dirname "$0")/.."
out=${1:-gpu_check}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
: >"$out/summary.txt"
failed=0

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  [ "$status" = 0 ] || failed=1
  echo "$name: status $status, $((SECONDS - began)) s" | tee -a "$out/summary.txt"
}

"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "torch finds no GPU"; exit 2; }
nvidia-smi >"$out/device.log" 2>&1
part tests 120 "$python" -m pytest -m gpu tests/gpu -v --no-header -p no:cacheprovider -k "not recorded"
part graphs 50 "$python" -m pytest -m gpu tests/gpu/test_cuda.py -q -k recorded --no-header -p no:cacheprovider
part train_1b 90 "$python" benchmarks/train_gpu.py --rows 128 --out "$out/figures.jsonl"
part train_7b 90 "$python" benchmarks/train_gpu.py --large --rows 64 --length 256 --steps 2 --out "$out/figures.jsonl"
if "$python" -c 'import vllm' 2>/dev/null; then
  part vllm_7b 140 "$python" benchmarks/train_gpu.py --large --engine vllm --eager --rows 64 --length 256 \
    --steps 2 --out "$out/figures.jsonl"
  part vllm_tests 100 "$python" -m pytest -m vllm tests/engines -q -p no:cacheprovider \
    -k "would or handed or transfer"
else
  echo "vllm: not installed" | tee -a "$out/summary.txt"
fi
exit $failed
