# SPDX-License-Identifier: Apache-2.0
"""Replies, compared token for token with the definition."""

import pytest
import torch
import transformers
from slow_reference import BARRED, PAD, both_logits, build_chats, calibrated, encode, greedy_reply, sharpen, trim
from tiny_models import END, IDS, build_tokenizer

from open_r1_vision.decoding import CalibratedGenerator, Calibration

#: Bytes that end a reply beside the usual tokens, so that random models stop now and then.
ENDS = (END, *range(60, 80))
BAR = {"suppress_tokens": BARRED}


def replies(model, processor, chats, num_tokens, calibration, **options):
    generator = CalibratedGenerator(model, processor, calibration, eos_token_id=list(ENDS), **BAR, **options)
    return trim(generator.generate_ids(chats, num_tokens), ENDS)


@pytest.fixture(scope="module")
def plain_64(sharp):
    return replies(*sharp, build_chats([1, 2, 0, 1] * 16), 6, Calibration(0.0))


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.6])
def test_greedy_replies_are_those_of_the_definition(sharp, plain_64, scale):
    chats = build_chats([1, 2, 0, 1] * 16)
    expected = [greedy_reply(*sharp, chat, 6, scale, ends=ENDS) for chat in chats]
    assert replies(*sharp, chats, 6, Calibration(scale)) == expected
    # the comparison means something: replies differ from plain ones, from each other, and in length
    assert sum(reply != plain for reply, plain in zip(expected, plain_64, strict=True)) >= 20
    assert len({tuple(reply) for reply in expected}) >= 48
    assert len({len(reply) for reply in expected}) >= 3


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("plausibility", [0.0, 0.5])
def test_every_architecture(load_sharp, architecture, plausibility):
    model, processor = load_sharp(architecture)
    chats = build_chats([1, 0, 2, 1, 1, 2], seed=1)
    expected = [greedy_reply(model, processor, chat, 6, 1.6, plausibility, ENDS) for chat in chats]
    assert replies(model, processor, chats, 6, Calibration(1.6, plausibility)) == expected
    assert replies(model, processor, chats, 6, Calibration(0.0)) != expected
    uncut = replies(model, processor, chats, 6, Calibration(1.6))
    assert (uncut == expected) == (plausibility == 0)


def test_a_model_of_another_family():
    """LLaVA: two-dimensional positions, no grids."""
    torch.manual_seed(0)
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**text, "image_size": 28, "patch_size": 14, "model_type": "clip_vision_model"}
    config = transformers.LlavaConfig(
        text_config={**text, "model_type": "llama", "vocab_size": 264},
        vision_config=vision,
        image_token_index=IDS["<|image_pad|>"],
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    sharpen(model)
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokenizer=build_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=(
            "{% for message in messages %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<|image_pad|>{% else %}{{ part['text'] }}{% endif %}"
            "{% endfor %}{% endfor %}<|im_start|>"
        ),
    )
    chats = build_chats([1, 2, 1, 1, 2, 1])
    expected = [greedy_reply(model, processor, chat, 6, 0.8, ends=ENDS) for chat in chats]
    options = {"pad_token_id": PAD}
    assert replies(model, processor, chats, 6, Calibration(0.8), **options) == expected
    assert replies(model, processor, chats, 6, Calibration(0.0), **options) != expected


def test_calibration_comes_before_the_other_processors(sharp):
    """The repetition penalty divides positive scores and multiplies negative ones, so the order matters."""
    chats = build_chats([1, 2, 1, 1, 2, 1])
    expected = [greedy_reply(*sharp, chat, 8, 0.8, ends=ENDS, penalty=1.5) for chat in chats]
    assert replies(*sharp, chats, 8, Calibration(0.8), repetition_penalty=1.5) == expected
    assert replies(*sharp, chats, 8, Calibration(0.8)) != expected


def sampled_by_definition(model, processor, chats, num_tokens, scale, temperature, top_k):
    """Tokens drawn for all rows together, from both sequences computed from scratch."""
    encoded = [encode(processor, chat) for chat in chats]
    drawn = [[] for _ in chats]
    for _ in range(num_tokens):
        rows = [both_logits(model, *pair) for pair in zip(encoded, drawn, strict=True)]
        logits = torch.stack([calibrated(*row, scale) for row in rows])
        logits[:, BARRED] = -torch.inf
        logits = logits / temperature
        logits[logits < logits.topk(top_k).values[:, -1:]] = -torch.inf
        for reply, token in zip(drawn, logits.softmax(-1).multinomial(1)[:, 0].tolist(), strict=True):
            reply.append(token)
    return drawn


def test_sampled_replies_are_those_of_the_definition(sharp):
    chats = build_chats([1, 2, 1, 1])
    settings = {"do_sample": True, "temperature": 2.0, "top_k": 20}
    generator = CalibratedGenerator(*sharp, Calibration(0.8), **settings, **BAR, eos_token_id=263)
    torch.manual_seed(0)
    got = generator.generate_ids(chats, 12).tolist()
    torch.manual_seed(0)
    assert got == sampled_by_definition(*sharp, chats, 12, 0.8, 2.0, 20)
    torch.manual_seed(0)
    assert got != sampled_by_definition(*sharp, chats, 12, 0.0, 2.0, 20)


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "temperature": 1.5, "top_p": 0.9}])
def test_scale_0_is_plain_generation(sharp, settings):
    model, processor = sharp
    chats = build_chats([1, 0, 2, 1])
    inputs = processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    torch.manual_seed(0)
    plain = model.generate(**inputs, **{"do_sample": False, **settings}, max_new_tokens=8)
    torch.manual_seed(0)
    calibration = Calibration(0.0, plausibility=0.5)
    got = CalibratedGenerator(model, processor, calibration, **settings).generate_ids(chats, 8)
    assert got.tolist() == plain[:, inputs["input_ids"].shape[1] :].tolist()


def test_a_seed_repeats_replies_and_leaves_the_global_generator_alone(sharp):
    chats = build_chats([1, 2, 1, 1])
    state = torch.get_rng_state()
    runs = []
    for seed in (7, 7, 8):
        generator = CalibratedGenerator(*sharp, Calibration(0.8), seed=seed, do_sample=True, temperature=3.0)
        runs.append([generator.generate_ids(chats, 8).tolist() for _ in range(2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0] == runs[1] != runs[2]
    assert runs[0][0] != runs[0][1]


def test_several_replies_to_a_chat(sharp):
    chats = build_chats([1, 0, 2])
    greedy = replies(*sharp, chats, 6, Calibration(1.6))
    settings = {"do_sample": True, "top_k": 1, "num_return_sequences": 2}
    got = replies(*sharp, chats, 6, Calibration(1.6), **settings)
    assert got == [reply for reply in greedy for _ in range(2)]
    assert len({tuple(reply) for reply in greedy}) == 3


def test_chats_without_image_are_decoded_plainly_and_mentioned_once(sharp, caplog):
    model, processor = sharp
    chats = build_chats([0, 0, 1])
    generator = CalibratedGenerator(model, processor, Calibration(1.6))
    calibrated_replies, plain = generator(chats, 6), CalibratedGenerator(model, processor, Calibration(0.0))(chats, 6)
    assert calibrated_replies[:2] == plain[:2]
    assert calibrated_replies[2] != plain[2]
    assert generator(chats[:2], 6) == plain[:2]
    messages = [record.getMessage() for record in caplog.records if "hold no image" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("2 of 3 chats hold no image, so there is nothing to calibrate against")


def test_text_contents_and_video(sharp):
    chat = [{"role": "system", "content": "Be brief."}, *build_chats([1])[0]]
    assert replies(*sharp, [chat], 4, Calibration(0.8)) == [greedy_reply(*sharp, chat, 4, 0.8, ends=ENDS)]
    chat[1]["content"].append({"type": "video", "video": "page.mp4"})
    with pytest.raises(ValueError, match="holds a video.*give frames of the video as images"):
        CalibratedGenerator(*sharp, Calibration(0.8))([chat], 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_beams": 4}, "mean beam search, but .* one reply for each row: .*num_beams=1"),
        ({"num_beams": 2, "do_sample": True}, "mean beam sample"),
        ({"prompt_lookup_num_tokens": 3}, "mean assisted generation"),
        ({"guidance_scale": 1.5}, "guidance_scale is 1.5, which runs forward passes of its own"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size is 8"),
        ({"max_new_tokens": 5}, "max_new_tokens can't be given: .*given with each call"),
        ({"temprature": 0.5}, "temprature can't be given"),
    ],
)
def test_options_that_calibration_does_not_go_with(sharp, options, message):
    with pytest.raises(ValueError, match=message):
        CalibratedGenerator(*sharp, Calibration(0.8), **options)


def test_beam_search_of_the_models_own_settings(load_sharp):
    model, processor = load_sharp()
    generator = CalibratedGenerator(model, processor, Calibration(0.8))
    model.generation_config.num_beams = 2
    with pytest.raises(ValueError, match="mean beam search"):
        generator(build_chats([1]), 2)
    with pytest.raises(ValueError, match="mean beam search"):
        CalibratedGenerator(model, processor, Calibration(0.8))


class WithoutPositions(transformers.Qwen2_5_VLForConditionalGeneration):
    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **kwargs):
        return super().forward(input_ids, attention_mask, past_key_values=past_key_values, **kwargs)


class WithItsOwnGenerate(transformers.Qwen2_5_VLForConditionalGeneration):
    def generate(self, *args, **kwargs):
        return super().generate(*args, **kwargs)


def test_other_models_are_refused_by_name(load_sharp, tiny_model):
    from peft import LoraConfig, get_peft_model

    model, processor = load_sharp()
    small = {"vocab_size": 264, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    text_only = transformers.LlamaForCausalLM(transformers.LlamaConfig(**small, num_attention_heads=2))
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    encoder_decoder = load_sharp()[0]
    encoder_decoder.config.is_encoder_decoder = True
    for refused, message in (
        (torch.nn.Linear(2, 2), "^Linear can't be calibrated: it is no model of transformers"),
        (adapted, "^PeftModel can't be calibrated: .*get_base_model"),
        (text_only, "^LlamaForCausalLM can't be calibrated: AutoModelForImageTextToText doesn't load"),
        (encoder_decoder, "^Qwen2_5_VLForConditionalGeneration can't be calibrated: it encodes the prompt once"),
        (WithItsOwnGenerate.from_pretrained(tiny_model), "^WithItsOwnGenerate .* a `generate` of its own"),
        (WithoutPositions.from_pretrained(tiny_model), "^WithoutPositions .* its forward takes no position_ids"),
    ):
        with pytest.raises(ValueError, match=message):
            CalibratedGenerator(refused, processor, Calibration(0.8))
    chats = build_chats([1, 2])
    assert replies(adapted.get_base_model(), processor, chats, 4, Calibration(0.8)) == [
        greedy_reply(model, processor, chat, 4, 0.8, ends=ENDS) for chat in chats
    ]
