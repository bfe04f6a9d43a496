"""State-space and recurrent language models."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.entry import Entry, register
from zoo.pypi.common import VOCAB, hf, token_ids, tokens, whole

MAMBA = {"vocab_size": VOCAB, "num_hidden_layers": 2, "state_size": 8, "use_cache": False}

hf("mamba", "MambaForCausalLM", "MambaConfig", {"hidden_size": 64, "time_step_rank": 4}, token_ids,
   fixed=MAMBA)  # fmt: skip
hf("mamba2", "Mamba2ForCausalLM", "Mamba2Config", {"hidden_size": 64, "num_heads": 8}, token_ids,
   fixed={**MAMBA, "head_dim": 16, "n_groups": 1, "chunk_size": 8})  # fmt: skip
hf("falcon-mamba", "FalconMambaForCausalLM", "FalconMambaConfig",
   {"hidden_size": 64, "time_step_rank": 4}, token_ids, fixed=MAMBA)  # fmt: skip
hf("rwkv", "RwkvForCausalLM", "RwkvConfig",
   {"hidden_size": 64, "attention_hidden_size": 64, "intermediate_size": 256}, token_ids,
   fixed={"vocab_size": VOCAB, "num_hidden_layers": 2, "context_length": 64,
          "use_cache": False})  # fmt: skip
hf("recurrent-gemma", "RecurrentGemmaForCausalLM", "RecurrentGemmaConfig",
   {"hidden_size": 64, "intermediate_size": 192, "lru_width": 64}, token_ids,
   fixed={"vocab_size": VOCAB, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 1, "attention_window_size": 8, "use_cache": False})  # fmt: skip
hf("xlstm", "xLSTMForCausalLM", "xLSTMConfig", {"hidden_size": 64}, token_ids,
   fixed={"vocab_size": VOCAB, "num_hidden_layers": 2, "num_heads": 4, "use_cache": False,
          "chunk_size": 4})  # fmt: skip


def _mambapy(d_model: int, version: int) -> nn.Module:
    if version == 1:
        from mambapy.mamba import Mamba, MambaConfig

        body: Any = Mamba(MambaConfig(d_model=d_model, n_layers=2))
    else:
        from mambapy.mamba2 import Mamba2, Mamba2Config

        body = Mamba2(Mamba2Config(d_model=d_model, n_layers=2, d_head=16))
    return nn.Sequential(nn.Embedding(VOCAB, d_model), body, nn.Linear(d_model, VOCAB, bias=False))


register(Entry("mambapy/mamba", "mambapy", lambda d_model: _mambapy(d_model, 1),
               {"d_model": 64}, lambda: (tokens(),), whole))  # fmt: skip
