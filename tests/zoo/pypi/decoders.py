"""Decoder-only language models of transformers."""

from __future__ import annotations

from zoo.pypi.common import VOCAB, hf, token_ids

LENGTHS = {"vocab_size": VOCAB, "max_position_embeddings": 64, "use_cache": False}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZED = {**LENGTHS, **SPECIAL, "num_hidden_layers": 2}
LLAMA = {**SIZED, "num_attention_heads": 4, "num_key_value_heads": 2}
HEADS = {**SIZED, "num_attention_heads": 4}
WIDTH = {"hidden_size": 64, "intermediate_size": 176}
HEAD_DIM = {**WIDTH, "head_dim": 16}

GPT2 = {
    "vocab_size": VOCAB, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

for kind in ("eager", "sdpa"):
    hf(f"gpt2-{kind}", "GPT2LMHeadModel", "GPT2Config", {"n_embd": 64}, token_ids,
       fixed=GPT2, attention=kind)  # fmt: skip
    hf(f"llama-{kind}", "LlamaForCausalLM", "LlamaConfig", WIDTH, token_ids,
       fixed=LLAMA, attention=kind)  # fmt: skip
    hf(f"gpt-neox-{kind}", "GPTNeoXForCausalLM", "GPTNeoXConfig", WIDTH, token_ids,
       fixed=HEADS, attention=kind)  # fmt: skip
    hf(f"opt-{kind}", "OPTForCausalLM", "OPTConfig",
       {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 256}, token_ids,
       fixed=HEADS, attention=kind)  # fmt: skip

hf("gemma2", "Gemma2ForCausalLM", "Gemma2Config", {**HEAD_DIM, "query_pre_attn_scalar": 16},
   token_ids, fixed=LLAMA)  # fmt: skip
hf(
    "llama-more-heads",
    "LlamaForCausalLM",
    "LlamaConfig",
    {**WIDTH, "num_attention_heads": 4, "num_key_value_heads": 2},
    token_ids,
    fixed=SIZED,
)
hf("llama-fixed-kv", "LlamaForCausalLM", "LlamaConfig",
   {**WIDTH, "num_attention_heads": 4}, token_ids,
   fixed={**SIZED, "num_key_value_heads": 2, "head_dim": 16})  # fmt: skip
hf("llama-tied", "LlamaForCausalLM", "LlamaConfig", WIDTH, token_ids,
   fixed={**LLAMA, "tie_word_embeddings": True})  # fmt: skip
hf("mistral", "MistralForCausalLM", "MistralConfig", HEAD_DIM, token_ids,
   fixed={**LLAMA, "sliding_window": 8})  # fmt: skip
hf("qwen2", "Qwen2ForCausalLM", "Qwen2Config", WIDTH, token_ids, fixed=LLAMA)
hf("qwen3", "Qwen3ForCausalLM", "Qwen3Config", HEAD_DIM, token_ids, fixed=LLAMA)
hf("gemma", "GemmaForCausalLM", "GemmaConfig", HEAD_DIM, token_ids, fixed=LLAMA)
hf(
    "gemma3",
    "Gemma3ForCausalLM",
    "Gemma3TextConfig",
    {**HEAD_DIM, "query_pre_attn_scalar": 16},
    token_ids,
    fixed=LLAMA,
)
hf("phi", "PhiForCausalLM", "PhiConfig", WIDTH, token_ids, fixed=LLAMA)
hf("phi3", "Phi3ForCausalLM", "Phi3Config", WIDTH, token_ids, fixed=LLAMA)
hf("gptj", "GPTJForCausalLM", "GPTJConfig", {"n_embd": 64, "rotary_dim": 8}, token_ids, fixed=GPT2)
hf("gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig", {"hidden_size": 64}, token_ids,
   fixed={**LENGTHS, "num_layers": 2, "num_heads": 4, "window_size": 8, "bos_token_id": 0,
          "eos_token_id": 0, "attention_types": [[["global", "local"], 1]]})  # fmt: skip
hf("gpt-bigcode", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", {"n_embd": 64}, token_ids,
   fixed=GPT2)  # fmt: skip
hf("codegen", "CodeGenForCausalLM", "CodeGenConfig", {"n_embd": 64, "rotary_dim": 8}, token_ids,
   fixed={**GPT2, "n_ctx": 64})  # fmt: skip
FALCON = {
    "vocab_size": VOCAB, "num_hidden_layers": 2, "num_attention_heads": 4, "use_cache": False,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
hf("falcon-multi-query", "FalconForCausalLM", "FalconConfig", {"hidden_size": 64}, token_ids,
   fixed={**FALCON, "multi_query": True, "new_decoder_architecture": False})  # fmt: skip
hf("falcon-new", "FalconForCausalLM", "FalconConfig", {"hidden_size": 64}, token_ids,
   fixed={**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True})  # fmt: skip
hf("falcon-alibi", "FalconForCausalLM", "FalconConfig", {"hidden_size": 64}, token_ids,
   fixed={**FALCON, "multi_query": False, "alibi": True, "bias": True})  # fmt: skip
hf("bloom", "BloomForCausalLM", "BloomConfig", {"hidden_size": 64}, token_ids,
   fixed={"vocab_size": VOCAB, "n_layer": 2, "n_head": 4, "use_cache": False})  # fmt: skip
hf("mpt", "MptForCausalLM", "MptConfig", {"d_model": 64}, token_ids,
   fixed={"vocab_size": VOCAB, "n_layers": 2, "n_heads": 4, "max_seq_len": 64,
          "use_cache": False})  # fmt: skip
hf("olmo", "OlmoForCausalLM", "OlmoConfig", WIDTH, token_ids, fixed=LLAMA)
hf("olmo2", "Olmo2ForCausalLM", "Olmo2Config", WIDTH, token_ids, fixed=LLAMA)
hf("stablelm", "StableLmForCausalLM", "StableLmConfig", WIDTH, token_ids, fixed=LLAMA)
hf("cohere", "CohereForCausalLM", "CohereConfig", WIDTH, token_ids, fixed=LLAMA)
hf("granite", "GraniteForCausalLM", "GraniteConfig", WIDTH, token_ids, fixed=LLAMA)
hf("starcoder2", "Starcoder2ForCausalLM", "Starcoder2Config", WIDTH, token_ids, fixed=LLAMA)
hf("nemotron", "NemotronForCausalLM", "NemotronConfig", WIDTH, token_ids, fixed=LLAMA)
hf("persimmon", "PersimmonForCausalLM", "PersimmonConfig", WIDTH, token_ids, fixed=HEADS)
hf("glm4", "Glm4ForCausalLM", "Glm4Config", HEAD_DIM, token_ids, fixed=LLAMA)
hf("smollm3", "SmolLM3ForCausalLM", "SmolLM3Config", WIDTH, token_ids, fixed=LLAMA)
hf("biogpt", "BioGptForCausalLM", "BioGptConfig", WIDTH, token_ids, fixed=HEADS)
hf("xglm", "XGLMForCausalLM", "XGLMConfig", {"d_model": 64, "ffn_dim": 256}, token_ids,
   fixed={**LENGTHS, **SPECIAL, "num_layers": 2, "attention_heads": 4})  # fmt: skip
hf("ctrl", "CTRLLMHeadModel", "CTRLConfig", {"n_embd": 64, "dff": 256}, token_ids,
   fixed=GPT2)  # fmt: skip
hf("openai-gpt", "OpenAIGPTLMHeadModel", "OpenAIGPTConfig", {"n_embd": 64}, token_ids,
   fixed={"vocab_size": VOCAB, "n_layer": 2, "n_head": 4, "n_positions": 64})  # fmt: skip
