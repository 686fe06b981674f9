"""Networks of text."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from tests.matrix.row import AROUND, BY_PARTS, REENTRANT, Refused, Row, Works
from tests.matrix.training import CLASSES, per_token, steps, tokens

VOCABULARY = 20


class Recurrent(nn.Module):
    """An embedding, two recurrent layers and a head."""

    def __init__(self, kind: Any = nn.LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.body = kind(8, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(x))[0])


class Carried(Recurrent):
    """The same, which takes and returns its state."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        hidden, state = self.body(self.embedding(x), state)
        return self.head(hidden), state


class Encoder(nn.Module):
    """An embedding, PyTorch's encoder and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(x)))


class EncoderDecoder(nn.Module):
    """PyTorch's Transformer from tokens to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.body = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        return self.head(self.body(x, x))


class Tied(nn.Module):
    """A language model whose head has the weights of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.GELU())
        self.head = nn.Linear(8, CLASSES, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(x)))


class Experts(nn.Module):
    """A mixture of experts that are chosen for each token, with an auxiliary loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(x)
        share = self.gate(x).softmax(-1)
        chosen = share.argmax(-1)
        mixed = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            taken = chosen == index
            mixed[taken] = expert(x[taken]) * share[taken][:, index : index + 1]
        return self.head(x + mixed), share.mean((0, 1)).square().sum()


def _experts_loss(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    return per_token(out[0], y) + 0.1 * out[1]


def _transformers(name: str, config: str, **options: Any) -> nn.Module:
    import transformers

    return getattr(transformers, name)(getattr(transformers, config)(**options))


BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 16, "num_labels": CLASSES,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2,
    "num_heads": 2, "decoder_start_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "max_position_embeddings": 16, "pad_token_id": 0,
    "decoder_start_token_id": 0, "forced_eos_token_id": None, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
MAMBA = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def bert() -> nn.Module:
    """Return a small BERT that classifies."""
    return _transformers("BertForSequenceClassification", "BertConfig", **BERT)


def _labelled() -> Any:
    x = torch.randint(0, VOCABULARY, (4, 6))
    return (), {"input_ids": x, "labels": x}, None


def _classified() -> Any:
    x = torch.randint(0, VOCABULARY, (4, 6))
    return (), {"input_ids": x, "labels": torch.randint(0, CLASSES, (4,))}, None


def _own_loss(out: Any, _: None) -> Tensor:
    return out.loss


def _hf(name: str, config: str, options: dict[str, Any], batch: Any = _labelled) -> Any:
    return steps(partial(_transformers, name, config, **options), batch, _own_loss)


def _clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16,
        "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def _pairs() -> Any:
    x = torch.randint(0, VOCABULARY, (4, 6))
    images = torch.randn(4, 3, 32, 32)
    return (), {"input_ids": x, "pixel_values": images, "return_loss": True}, None


def _lora() -> nn.Module:
    from peft import get_peft_model, LoraConfig

    config = LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    return get_peft_model(bert(), config)


def _checkpointed() -> nn.Module:
    network = _transformers("GPT2LMHeadModel", "GPT2Config", **GPT2)
    network.gradient_checkpointing_enable({"use_reentrant": False})
    return network


def _reentrant() -> nn.Module:
    # Random numbers of dropout stay drawn where a pass is refused at its end.
    dropout = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.0)
    network = _transformers("GPT2LMHeadModel", "GPT2Config", **GPT2, **dropout)
    network.gradient_checkpointing_enable({"use_reentrant": True})
    return network


HF = ("transformers",)
IN_SPACE = {"recurrent": False}

ROWS = [
    Row("`nn.LSTM`", steps(Recurrent, tokens(), per_token, **IN_SPACE), "`recurrent=False`"),
    Row(
        "`nn.GRU`",
        steps(partial(Recurrent, nn.GRU), tokens(), per_token, **IN_SPACE),
        "`recurrent=False`",
    ),
    Row("`nn.TransformerEncoder`", steps(Encoder, tokens(), per_token)),
    Row("`nn.Transformer`", steps(EncoderDecoder, tokens(), per_token)),
    Row("tied weights", steps(Tied, tokens(vocabulary=CLASSES), per_token)),
    Row(
        "mixture of experts",
        steps(Experts, tokens(), _experts_loss),
        "an expert gets some of the tokens; the network returns a loss of its own",
        expected={"eager": Refused(AROUND, instead={"layers": "embedding"})},
    ),
    Row(
        "transformers BERT",
        _hf("BertForSequenceClassification", "BertConfig", BERT, _classified),
        needs=HF,
    ),
    Row(
        "transformers GPT-2",
        _hf("GPT2LMHeadModel", "GPT2Config", GPT2),
        needs=HF,
    ),
    Row(
        "transformers T5",
        _hf("T5ForConditionalGeneration", "T5Config", T5),
        needs=HF,
        expected=BY_PARTS,
    ),
    Row(
        "transformers BART",
        _hf("BartForConditionalGeneration", "BartConfig", BART),
        needs=HF,
        expected=BY_PARTS,
    ),
    Row(
        "transformers Llama",
        _hf("LlamaForCausalLM", "LlamaConfig", LLAMA),
        needs=HF,
    ),
    Row(
        "transformers Mamba",
        _hf("MambaForCausalLM", "MambaConfig", MAMBA),
        needs=HF,
    ),
    Row(
        "transformers CLIP",
        steps(_clip, _pairs, _own_loss),
        "two networks side by side: nothing separates them",
        needs=HF,
        expected={"eager": Refused(AROUND)},
    ),
    Row(
        "PEFT LoRA on BERT",
        steps(_lora, _classified, _own_loss),
        "`eager=True` with `layers=2`: the default cuts at frozen embeddings learn nothing",
        needs=("transformers", "peft"),
        expected={"eager": Works({"layers": 2})},
    ),
    Row(
        "GPT-2 with checkpoints, `use_reentrant=False`",
        steps(_checkpointed, _labelled, _own_loss),
        needs=HF,
    ),
    Row(
        "GPT-2 with checkpoints, `use_reentrant=True`",
        steps(_reentrant, _labelled, _own_loss),
        "take `use_reentrant=False`",
        needs=HF,
        expected={"exact every": REENTRANT},
    ),
]
