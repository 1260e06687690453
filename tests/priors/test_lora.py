"""Low-rank layers: a merged network answers as one whose layers add B A x to W x."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from tiny_diffusion import BETAS, TEXT, diffusers, unet, vae

from scene4d.errors import DataError
from scene4d.priors.diffusion import LORA, DiffusersKind, load_diffusion
from scene4d.priors.lora import Lora, merge
from scene4d.priors.prior import Condition
from scene4d.priors.prompts import Prompts

pytestmark = pytest.mark.unchecked_shapes
RANK, ALPHA = 2, 3.0
DEEP = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
KERNEL = "down_blocks.0.resnets.0.conv1"
LAYERS = (DEEP, OUT, KERNEL)


def halves(network):
    """A and B of each layer, as peft shapes them."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in LAYERS:
        weight = network.get_submodule(name).weight
        kernel = (1,) * (weight.ndim - 2)
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        found[name] = 0.3 * down, torch.randn(len(weight), RANK, *kernel, generator=generator)
    return found


def answer(network):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(x, 300, encoder_hidden_states=TEXT.expand(2, -1, -1)).sample


def beside(network, scale):
    """The answer where each layer's input also goes through A and B."""
    hooks = []
    for name, (down, up) in halves(network).items():

        def add(layer, given, output, down=down, up=up):
            if down.ndim == 2:
                return output + scale * given[0] @ down.mT @ up.mT
            narrow = torch.nn.functional.conv2d(given[0], down, padding=layer.padding)
            return output + scale * torch.nn.functional.conv2d(narrow, up)

        hooks.append(network.get_submodule(name).register_forward_hook(add))
    found = answer(network)
    for hook in hooks:
        hook.remove()
    return found


def named(network, how):
    """The tensors of a file, and its settings."""
    written, told = {}, {}
    for name, (down, up) in halves(network).items():
        if how == "kohya":
            name = "lora_unet_" + name.replace(".", "_")
            names = (f"{name}.lora_down.weight", f"{name}.lora_up.weight")
            written[f"{name}.alpha"] = torch.tensor(ALPHA)
        elif how == "old":
            names = (f"unet.{name}.lora.down.weight", f"unet.{name}.lora.up.weight")
        else:
            prefix = "base_model.model." if how == "peft" else "unet."
            names = (f"{prefix}{name}.lora_A.weight", f"{prefix}{name}.lora_B.weight")
        written |= {names[0]: down.contiguous(), names[1]: up.contiguous()}
    if how == "each":
        ends = ("attn1.to_q", OUT, "conv1")
        told = {"unet.lora_alpha": 99, "unet.alpha_pattern": dict.fromkeys(ends, ALPHA)}
    if how in ("settings", "rooted"):
        told = {"unet.lora_alpha": ALPHA, "unet.r": RANK, "unet.use_rslora": how == "rooted"}
    return written, {"lora_adapter_metadata": json.dumps(told)} if told else None


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return unet().eval()


@pytest.mark.parametrize(
    ("how", "scale"),
    [
        ("kohya", ALPHA / RANK), ("old", 1.0), ("peft", 1.0), ("diffusers", 1.0),
        ("each", ALPHA / RANK), ("settings", ALPHA / RANK), ("rooted", ALPHA / math.sqrt(RANK)),
    ],
)  # fmt: skip
def test_merged_layers_answer_as_layers_beside(how, scale, network, tmp_path):
    written, told = named(network, how)
    save_file(written, tmp_path / "it.safetensors", metadata=told)
    plain = answer(network)
    for strength in (1.0, 0.5):
        merged = unet().eval()
        merged.load_state_dict(network.state_dict())
        lora = Lora(path=tmp_path / "it.safetensors", strength=strength)
        assert merge(lora, {"unet": merged}) == len(LAYERS)
        wanted = beside(network, strength * scale)
        assert float((wanted - plain).abs().max()) > 0.1
        # float32, other order of sums
        torch.testing.assert_close(answer(merged), wanted, rtol=1e-4, atol=1e-4)


def test_a_folders_own_layers_are_merged_into_its_prior(network, tmp_path, caplog):
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=None, tokenizer=None, unet=network, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(**BETAS),
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path)
    Prompts({"": {"embeds": TEXT}}).save(tmp_path / "prompts.safetensors")
    written, told = named(network, "diffusers")
    x, half = torch.randn(1, 4, 8, 8), torch.full((1,), 0.5**0.5)
    plain = DiffusersKind().load(tmp_path, None).denoise(x, half, half, Condition())
    texts = {"text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(1, 1)}
    save_file({**written, **texts}, tmp_path / LORA, metadata=told)
    fitted = DiffusersKind().load(tmp_path, None).denoise(x, half, half, Condition())
    assert float((fitted - plain).abs().max()) > 0.01
    assert "1 tensors are of text encoders" in caplog.text
    back = load_diffusion(
        tmp_path, prompts=Prompts({"": {"embeds": TEXT}}),
        loras=[Lora(path=tmp_path / LORA), Lora(path=tmp_path / LORA, strength=-1.0)],
    )  # fmt: skip
    # float32: what is added is taken away again
    torch.testing.assert_close(back.denoise(x, half, half), plain, rtol=1e-3, atol=1e-4)


def test_each_network_of_a_pair_has_its_own_layers(tmp_path):
    pair = {name: torch.nn.Sequential(torch.nn.Linear(3, 3)) for name in ("one", "one_2")}
    before = {name: net[0].weight.detach().clone() for name, net in pair.items()}
    up, down = torch.ones(3, 1), torch.ones(1, 3)
    layer = {"one_2.0.lora_A.weight": down, "one_2.0.lora_B.weight": up}
    save_file(layer, tmp_path / "it.safetensors")
    assert merge(Lora(path=tmp_path / "it.safetensors"), pair) == 1
    assert torch.equal(pair["one"][0].weight, before["one"])
    torch.testing.assert_close(pair["one_2"][0].weight, before["one_2"] + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unet.mid_block.of.another.lora_A.weight": torch.zeros(2, 16)}, "of.another"),
        ({f"unet.{DEEP}.lora_A.weight": torch.zeros(2, 7)}, "one of \\[16, 7\\] weights"),
        ({f"unet.{DEEP}.lora_B.weight": torch.zeros(16, 3)}, "half a layer"),
        ({f"unet.{DEEP}.dora_scale": torch.zeros(16)}, "dora_scale' is none"),
        ({"unet.conv_in.lora_A.weight": torch.zeros(2, 4, 3, 3)}, "half a layer"),
    ],
    ids=["unknown", "shape", "rank", "dora", "half"],
)
def test_what_does_not_fit_is_told_and_nothing_is_merged(change, words, network, tmp_path):
    written, _ = named(network, "diffusers")
    save_file({**written, **change}, tmp_path / "it.safetensors")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError, match=words):
        merge(Lora(path=tmp_path / "it.safetensors"), {"unet": network})
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_settings_that_are_not_read_are_told(network, tmp_path):
    written, _ = named(network, "diffusers")
    for told, words in (
        ({"unet.use_dora": True}, "more than that"),
        ({"unet.lora_alpha": "much"}, "tells no number"),
        ({"unet.alpha_pattern": {"attn[12].to_q": 2}}, "attn\\[12\\].to_q' is none"),
    ):
        settings = {"lora_adapter_metadata": json.dumps(told)}
        save_file(written, tmp_path / "it.safetensors", metadata=settings)
        with pytest.raises(DataError, match=words):
            merge(Lora(path=tmp_path / "it.safetensors"), {"unet": network})


def test_files_of_something_else_are_told(network, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "it.safetensors")
    for text, words in ((None, "'weight' is none"), (b"{}", "is damaged")):
        if text:
            (tmp_path / "it.safetensors").write_bytes(text)
        with pytest.raises(DataError, match=words):
            merge(Lora(path=tmp_path / "it.safetensors"), {"unet": network})
