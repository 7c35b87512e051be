"""How a prompt and its response become tokens, and a response becomes text again.

A tokenizer with a chat template has it applied once to the whole conversation. Any other gets a plain template, for
each turn of the user once more; a response in the history ends with the end of sequence, as the policy wrote it.
The texts of users and models are data: a special token spelt out in one is broken up, so it cannot end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from farm.base.errors import UserError
from farm.roles.protocols import Tokens
from farm.tables.turns import Prompt, messages, prompt_of, turns_of

INSTRUCTION = "### Instruction:\n{prompt}\n\n### Response:\n"
"""The plain template, for tokenizers without a chat template."""


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts that a tokenizer takes for tokens of its own: ends of turns and the like."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted({str(t) for t in tokenizer.all_special_tokens} | {str(t) for t in added if t.special})


def as_data(text: str, special: Sequence[str]) -> str:
    """A text in which special tokens are broken up, so that they are read as the letters that they are."""
    for token in special:
        if token in text:
            text = text.replace(token, token[0] + " " + token[1:])
    return text


class Conversation:
    """The two directions between text and tokens, with the tokens that end a response.

    Args:
        tokenizer: a transformers tokenizer.
        template: a text with ``{prompt}`` in it, for a turn of the user; given, it is used even where the tokenizer has
            a chat template.
        extra_eos: further tokens (ids or texts) that end a response, beside the tokenizer's own end of sequence.
        generation_eos: end tokens that the model's generation config names; heeded with a chat template only.
        control: texts, special tokens or not, of which a method puts one or more at the start of a prompt to say what
            it wants; there they stay as they are, and anywhere else they are data.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        extra_eos: Sequence[int | str] = (),
        generation_eos: int | Sequence[int] | None = None,
        control: Sequence[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.control = tuple(sorted(filter(None, control), key=len, reverse=True))
        self.chat = template is None and bool(getattr(tokenizer, "chat_template", None))
        self.template = INSTRUCTION if template is None else template
        if "{prompt}" not in self.template:
            raise ValueError("the template must have {prompt} in it")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token, so no response could ever end")
        self.eos = int(tokenizer.eos_token_id)
        named = generation_eos if self.chat and generation_eos is not None else []
        also = [self._id(token) for token in extra_eos]
        also += [named] if isinstance(named, int) else list(named)
        self.ends = frozenset([self.eos, *also])
        self._special = special_tokens(tokenizer)
        default = tokenizer("a").input_ids
        bos = tokenizer.bos_token_id
        self._bos = bos if bos is not None and bos != self.eos and default[:1] == [bos] else None
        self._known: dict[Prompt, Tokens] = {}

    @property
    def begins(self) -> bool:
        """Whether the tokenizer's beginning of sequence comes before every prompt."""
        return self._bos is not None

    def _id(self, token: int | str) -> int:
        if isinstance(token, int):
            return token
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer does not know the token {token!r}")
        return int(found)

    def prompts(self, prompts: Sequence[Prompt]) -> list[Tokens]:
        """The tokens before the response, for each prompt; the same prompt always gives the same array."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._known]
        if new:
            if len(self._known) > 200_000:
                self._known.clear()
                new = list(dict.fromkeys(prompts))
            for prompt, tokens in zip(new, self._tokenise([self._before(p) for p in new]), strict=True):
                if self._bos is not None and tokens[:1] != [self._bos]:
                    tokens.insert(0, self._bos)
                if not tokens:
                    raise UserError("a prompt is empty: with this template it gives no token to start from")
                array = np.array(tokens, dtype=np.int32)
                array.flags.writeable = False
                self._known[prompt] = array
        return [self._known[p] for p in prompts]

    def responses(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> list[Tokens]:
        """The tokens of given outputs, each with exactly one end token, its last."""
        texts = [self._after(p, o) for p, o in zip(prompts, outputs, strict=True)]
        out = []
        for tokens in self._tokenise(texts):
            end = next((i for i, token in enumerate(tokens) if token in self.ends), None)
            out.append(np.array([*tokens, self.eos] if end is None else tokens[: end + 1], dtype=np.int32))
        return out

    def texts(self, responses: Iterable[Tokens]) -> list[str]:
        """Responses as text, special tokens and outer white space removed."""
        lists = [tokens.tolist() for tokens in responses]
        if not lists:
            return []
        decoded = self.tokenizer.batch_decode(lists, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in decoded]

    def _before(self, prompt: Prompt) -> str:
        given = self._texts_as_data(prompt)
        if self.chat:
            return self._render(messages(given), add_generation_prompt=True)
        first, *history = turns_of(given)
        text = self.template.replace("{prompt}", first)
        again = self.template.removeprefix(self.tokenizer.bos_token or "")  # a sequence begins once
        for response, reply in zip(history[::2], history[1::2], strict=True):
            text += response + self.tokenizer.eos_token + again.replace("{prompt}", reply)
        return text

    def _after(self, prompt: Prompt, output: str) -> str:
        """What follows the prompt in the rendered conversation; the bare output if the template changes the prompt."""
        output = as_data(output, self._special)
        if not self.chat:
            return output
        turns = [*messages(self._texts_as_data(prompt)), {"role": "assistant", "content": output}]
        whole, before = self._render(turns, add_generation_prompt=False), self._before(prompt)
        return whole[len(before) :] if whole.startswith(before) else output

    def _render(self, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
        )

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        # The templates spell out their special tokens, a beginning of sequence among them: add none.
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False).input_ids] if texts else []

    def _texts_as_data(self, prompt: Prompt) -> Prompt:
        """The prompt with its texts as data, but for the control texts at its start."""
        first, *rest = turns_of(prompt)
        start = 0
        while control := next((text for text in self.control if first.startswith(text, start)), ""):
            start += len(control)
        given = [first[:start] + as_data(first[start:], self._special)]
        return prompt_of(given + [as_data(text, self._special) for text in rest])
