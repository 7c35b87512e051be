"""A saved policy or reward model as a folder that transformers opens by itself.

A policy becomes a causal language model whose config names its ends, its beginning and a pad token, whose generation
config samples as the policy does, and whose tokenizer has a chat template, so that ``generate`` ends. A reward model
becomes an ``AutoModelForSequenceClassification`` with one label:

    (w . h + b - mean) / scale  =  (w / scale) . h  +  (b - mean) / scale

The head of those classes has no bias for the second term c, which is the same for every text. Where h comes from a
norm with a bias (GPT-2, GPT-NeoX), c w' / |w'|^2 is added to that, w' = w / scale, and the logits are the scores.
Behind a norm without one (Llama, Qwen, Gemma: RMSNorm) no direction of h is constant, and c is ``score_shift`` in the
config. They read the state at the last token that is not the pad token, so the pad token is one that ends no text.

A head that sums over the response (``last+sum``) becomes an ``AutoModelForTokenClassification``, whose head has a bias:
a score is the last token's logit 0 plus the sum of logit 1 over the response's tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.base.errors import UserError
from farm.policies import DESCRIPTOR, load, read_descriptor
from farm.policies.conversation import Conversation


@dataclass(frozen=True)
class Exported:
    """What was written."""

    what: str
    """policy or reward model"""
    opens: str
    """the class of transformers that opens it"""
    shift: float = 0.0
    """what the logit of a reward model lacks, which no weight could carry"""


def export(folder: Path, out: Path) -> Exported:
    """Write the model that was saved in ``folder`` to ``out``.

    Raises:
        UserError: it is neither a policy nor a reward model of a language model, or transformers has no class for it.
    """
    from farm.policies.language_model import LanguageModelPolicy
    from farm.policies.scorer import LanguageModelScorer

    saved = load(folder, device="cpu")
    if isinstance(saved, LanguageModelPolicy):
        return _policy(saved, out)
    if not isinstance(saved, LanguageModelScorer):
        named = read_descriptor(folder)["class"]
        raise UserError(
            f"{folder}: holds a {named}, which transformers has no class for; push a policy or a reward model"
        )
    return _scorer(saved, _conversation_of(folder, saved.tokenizer), out)


def _conversation_of(folder: Path, tokenizer: Any) -> Conversation:
    """How the policies of the same run put a conversation into tokens; a reward model does not say."""
    for beside in sorted(folder.parent.glob(f"*/{DESCRIPTOR}")):
        said = json.loads(beside.read_text(encoding="utf-8"))
        if said.get("class") == "LanguageModelPolicy":
            return Conversation(tokenizer, said.get("template"), said.get("extra_eos") or ())
    return Conversation(tokenizer)


def _policy(policy: Any, out: Path) -> Exported:
    from transformers import GenerationConfig

    from farm.hardware import adapters
    from farm.hardware.models import save_causal_lm

    model, tokenizer, conversation = adapters.plain(policy.model), policy.tokenizer, policy.conversation
    if not conversation.chat:
        tokenizer.chat_template = plain_template(conversation)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = [conversation.eos, *sorted(conversation.ends - {conversation.eos})]
    names = {"eos_token_id": ends if len(ends) > 1 else ends[0], "pad_token_id": tokenizer.pad_token_id}
    names["bos_token_id"] = tokenizer.bos_token_id
    _set(model.config, **names, use_cache=True)
    settings = policy.settings
    model.generation_config = GenerationConfig(
        **names,
        do_sample=True,
        temperature=1.0,
        top_k=settings["top_k"] or 0,
        top_p=settings["top_p"],
        max_new_tokens=settings["max_new_tokens"],
        suppress_tokens=settings["forbidden_tokens"] or None,
    )
    save_causal_lm(model, tokenizer, out)
    return Exported("policy", "AutoModelForCausalLM")


def _scorer(scorer: Any, conversation: Conversation, out: Path) -> Exported:
    import torch
    import transformers

    from farm.hardware import adapters
    from farm.hardware.models import save_causal_lm

    body, tokenizer = adapters.plain(scorer.body.model), scorer.tokenizer
    if conversation.chat:  # what a template writes behind the end of the last turn is not read
        whole = f"{{%- set farm_text -%}}{tokenizer.chat_template}{{%- endset -%}}"
        tokenizer.chat_template = whole + "{{- farm_text if add_generation_prompt else farm_text.rstrip() -}}"
    else:
        tokenizer.chat_template = plain_template(conversation)
    pad = _pad(tokenizer, conversation)
    config = body.config
    names = {"eos_token_id": conversation.eos, "bos_token_id": tokenizer.bos_token_id}
    _set(config, **names, pad_token_id=tokenizer.convert_tokens_to_ids(pad))
    labels = ["reward"] if scorer.head == "last" else ["reward", "reward_of_token"]
    config.num_labels, config.id2label = len(labels), dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    opens = f"AutoModelFor{'Sequence' if len(labels) == 1 else 'Token'}Classification"
    try:
        with torch.random.fork_rng(devices=[]):
            model = getattr(transformers, opens).from_config(config, dtype=body.dtype, trust_remote_code=False)
    except ValueError as error:
        raise UserError(f"transformers has no {opens} for {config.model_type}") from error
    base = getattr(model, model.base_model_prefix).eval()
    base.load_state_dict(body.base_model.state_dict())
    head = next((part for part in model.children() if isinstance(part, torch.nn.Linear)), None)
    if head is None:
        what = f"{opens} of {config.model_type} in transformers has no linear layer of its own for the score"
        raise UserError(f"{what}: push a reward model of another architecture")
    with torch.no_grad():
        head.weight.copy_(scorer.weight.detach() / scorer.scale)
        shift = _carried(float((scorer.bias.detach() - scorer.mean) / scorer.scale), head, base)
    model.config.score_shift = shift
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    save_causal_lm(model.eval(), tokenizer, out)
    return Exported("reward model", opens, shift)


def _carried(shift: float, head: Any, base: Any) -> float:
    """Put what is the same for every text into the bias of the head or of the norm before it; what found no place."""
    if head.bias is not None:
        head.bias.zero_()
        head.bias[0] = shift
        return 0.0
    norm, length = _last_norm(base), head.weight[0].square().sum()
    if norm is None or not length:
        return shift
    norm.bias += shift / length * head.weight[0]
    return 0.0


def _last_norm(base: Any) -> Any:
    """The norm with a bias whose output is the last hidden state, None where that is another's."""
    import torch

    outputs: list[tuple[Any, Any]] = []
    norms = [part for part in base.modules() if isinstance(part, torch.nn.LayerNorm) and part.bias is not None]
    hooks = [norm.register_forward_hook(lambda part, _, output: outputs.append((part, output))) for norm in norms]
    try:
        last = base(input_ids=torch.zeros(1, 1, dtype=torch.long)).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    place = last.untyped_storage().data_ptr()
    return next((norm for norm, output in outputs if output.untyped_storage().data_ptr() == place), None)


def _set(config: Any, **names: Any) -> None:
    """Set names in a config, and in that of the text model where it is one of several."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for name, value in names.items():
            setattr(part, name, value)


def _pad(tokenizer: Any, conversation: Conversation) -> str:
    """A pad token that is no text's last: the tokenizer's own, or another special token, or a new one."""
    ends = {*conversation.ends, tokenizer.eos_token_id}
    for name in ("pad_token", "unk_token", "bos_token"):
        token = getattr(tokenizer, name)
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in ends:
            tokenizer.pad_token = token
            return str(token)
    tokenizer.add_special_tokens({"pad_token": "<|farm_pad|>"})
    return "<|farm_pad|>"


def plain_template(conversation: Conversation) -> str:
    """A chat template (Jinja) that writes what a plain template of ours does; a system turn begins the user's first."""
    tokenizer = conversation.tokenizer
    begin = tokenizer.bos_token or ""
    first, again = conversation.template, conversation.template.removeprefix(begin)
    if conversation.begins and not first.startswith(begin):
        first = begin + first
    return (
        "{%- set said = namespace(system='', before=false) -%}{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}{%- set said.system = message['content'] ~ '\\n\\n' -%}"
        "{%- elif message['role'] == 'user' -%}{%- set content = said.system ~ message['content'] -%}"
        f"{{{{- ({_around(again)}) if said.before else ({_around(first)}) -}}}}"
        "{%- set said.system = '' -%}{%- set said.before = true -%}"
        f"{{%- else -%}}{{{{- message['content'] ~ {_literal(tokenizer.eos_token)} -}}}}{{%- endif -%}}{{%- endfor -%}}"
    )


def _around(template: str) -> str:
    return " ~ content ~ ".join(_literal(part) for part in template.split("{prompt}"))


def _literal(text: str) -> str:
    """A text as Jinja writes it: escapes as in JSON, other characters as they are."""
    return json.dumps(text, ensure_ascii=False)
