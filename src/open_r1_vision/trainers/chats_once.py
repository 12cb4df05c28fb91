# SPDX-License-Identifier: Apache-2.0
"""Each distinct chat through the chat template once, each distinct text through the tokenizer, and back."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image
from transformers import BatchEncoding, PreTrainedTokenizerBase

from open_r1_vision.image_keys import ImageKeys

#: Arguments that don't change how a chat is rendered.
_OF_THE_CALL = {"tokenize", "return_dict"}


@dataclass(frozen=True)
class Call:
    """What a processor is called with for a chat.

    Attributes:
        text: the chat as the template renders it.
        images: of the chat; None where the processor gets none of any chat.
        kwargs: further arguments.
    """

    text: str
    images: list | None
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class UnderWay:
    """Chats that are being rendered: their keys, and for each row of the batch the index of its chat."""

    keys: list[Hashable]
    rows: list[int]


class RememberingChats:
    """The part of a processor or tokenizer that renders each distinct chat once.

    The template is given the chats that are new, and the processor then the texts of all.
    """

    calls_by_chat: dict[Hashable, Call]
    under_way: UnderWay | None
    image_keys: ImageKeys
    timed: Callable[[str], AbstractContextManager]

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """See transformers."""
        with self.timed("preparing"):
            return self._apply(conversation, *args, **kwargs)

    def _apply(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        full: Any = super()
        is_batch = isinstance(conversation, list) and bool(conversation) and isinstance(conversation[0], list)
        tokenize = kwargs.get("tokenize", isinstance(self, PreTrainedTokenizerBase))
        keys = None
        # one chat alone is tokenized in other shapes
        if not args and not kwargs.get("return_assistant_tokens_mask") and (is_batch or not tokenize):
            keys = self._keys(conversation if is_batch else [conversation], kwargs)
        if keys is None:
            return full.apply_chat_template(conversation, *args, **kwargs)
        chats = conversation if is_batch else [conversation]
        places = {key: place for place, key in reversed(list(enumerate(keys)))}
        distinct = list(dict.fromkeys(keys))
        known = all(key in self.calls_by_chat for key in distinct)
        if not tokenize:
            if not known:
                texts = full.apply_chat_template([chats[places[key]] for key in distinct], **kwargs)
                for key, text in zip(distinct, texts, strict=True):
                    self.calls_by_chat.setdefault(key, Call(text, None, {}))
            texts = [self.calls_by_chat[key].text for key in keys]
            return texts if is_batch else texts[0]
        if known and all(self.calls_by_chat[key].kwargs for key in distinct):
            return self._call_again(keys, kwargs)
        self.under_way = UnderWay(distinct, [distinct.index(key) for key in keys])
        try:
            return full.apply_chat_template([chats[places[key]] for key in distinct], **kwargs)
        finally:
            self.under_way = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        full: Any = super()
        under_way, self.under_way = self.under_way, None
        with self.timed("preparing"):
            if under_way is None:
                return full.__call__(*args, **kwargs)
            text = args[0] if args else kwargs.pop("text")
            images = kwargs.get("images")
            for index, key in enumerate(under_way.keys):
                of_chat = None if images is None else images[index]
                self.calls_by_chat[key] = Call(text[index], of_chat, {**kwargs, "images": None})
            if images is not None:
                kwargs["images"] = [images[row] for row in under_way.rows]
            return full.__call__(text=[text[row] for row in under_way.rows], **kwargs)

    def _call_again(self, keys: list[Hashable], kwargs: dict[str, Any]) -> Any:
        """Tokenize chats that are rendered already."""
        calls = [self.calls_by_chat[key] for key in keys]
        arguments = dict(calls[0].kwargs)
        images = [call.images or [] for call in calls]
        if any(images):
            arguments["images"] = images
        elif isinstance(self, PreTrainedTokenizerBase):
            del arguments["images"]
        given: Any = self
        features = given(text=[call.text for call in calls], **arguments)
        # tokenizers return dictionaries unless told otherwise, processors don't
        as_dict = kwargs.get("return_dict", isinstance(self, PreTrainedTokenizerBase))
        return features if as_dict else features["input_ids"]

    def _keys(self, chats: list, kwargs: dict[str, Any]) -> list[Hashable] | None:
        """What tells chats apart; None where that isn't known."""
        settings = {
            name: value
            for name, value in kwargs.items()
            if name not in _OF_THE_CALL and value is not None and value is not False
        }
        try:
            return [(repr(sorted(settings.items())), self._freeze(chat)) for chat in chats]
        except TypeError:
            return None

    def _freeze(self, value: Any) -> Hashable:
        if isinstance(value, dict):
            if value.get("type") in ("video", "audio"):
                raise TypeError(value["type"])
            return tuple((name, self._freeze(part)) for name, part in value.items())
        if isinstance(value, list):
            return ("list", *map(self._freeze, value))
        if isinstance(value, Image):
            return self.image_keys(value)
        if value is None or isinstance(value, (str, int, float, bool)):
            return value
        raise TypeError(type(value).__name__)


class RememberingTexts:
    """The part of a tokenizer that tokenizes each distinct text once."""

    rows_by_key: dict[Hashable, dict[str, list]]

    def __call__(self, text: Any = None, **kwargs: Any) -> Any:
        full: Any = super()
        if not isinstance(text, list) or not all(isinstance(words, str) for words in text) or not text:
            return full.__call__(text, **kwargs)
        if any(kwargs.get(name) for name in ("padding", "return_tensors", "text_pair", "text_target")):
            return full.__call__(text, **kwargs)
        settings = repr(sorted(kwargs.items()))
        missing = [words for words in dict.fromkeys(text) if (settings, words) not in self.rows_by_key]
        if missing:
            features = full.__call__(missing, **kwargs)
            if any(len(values) != len(missing) for values in features.values()):
                return full.__call__(text, **kwargs)
            for row, words in enumerate(missing):
                self.rows_by_key[settings, words] = {name: values[row] for name, values in features.items()}
        rows = [self.rows_by_key[settings, words] for words in text]
        return BatchEncoding({name: [list(row[name]) for row in rows] for name in rows[0]})


class RememberingReplies:
    """The part of a processor or tokenizer that decodes each distinct sequence of tokens once."""

    texts_by_ids: dict[Hashable, str]

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **kwargs: Any) -> list[str]:
        """See transformers."""
        full: Any = super()
        is_batch = isinstance(sequences, list) and bool(sequences) and all(isinstance(ids, list) for ids in sequences)
        if kwargs or not is_batch:
            return full.batch_decode(sequences, skip_special_tokens=skip_special_tokens, **kwargs)
        keys = [(skip_special_tokens, *ids) for ids in sequences]
        new = {key: ids for key, ids in zip(keys, sequences, strict=True) if key not in self.texts_by_ids}
        if new:
            texts = full.batch_decode(list(new.values()), skip_special_tokens=skip_special_tokens)
            self.texts_by_ids.update(zip(new, texts, strict=True))
        return [self.texts_by_ids[key] for key in keys]
