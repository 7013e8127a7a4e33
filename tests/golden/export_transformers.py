#!/usr/bin/env python3
"""Does the public model code load what we export, and get the same numbers from it?

usage: export_transformers.py EXPORT_FOLDER_PROGRAM [MODEL_FOLDER...]

Each model folder is imported and exported by our program as float32, as float32 in shards and as bfloat16, and loaded
with transformers: no tensor may be missing, left over or of another shape; weights must be those of the original, bit
for bit (rounded by torch for bfloat16); the loss must be that of the original folder, and the one that our program takes on
the exported folder. New models written from a configuration alone must load too, also where routers of attention
lie beside the weights, and a folder that transformers saves must be read. Leaves with status 77 where torch or transformers are missing.
"""
import json
import os
import sys
import tempfile

import judge
from judge import expect, load, losses, our_losses, run, write_json

with judge.needed():
    import torch
    import transformers
    from safetensors.torch import load_file

judge.hush()
MODELS = "../shared/data/models"
SCRATCH = {
    "llama": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": True, "eos_token_id": [2, 3], "bos_token_id": 1},
    "llama, linear rope": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                           "num_attention_heads": 4, "head_dim": 8, "vocab_size": 100, "rope_theta": 100000,
                           "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, llama3 rope": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                           "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 64,
                           "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                            "original_max_position_embeddings": 16}},
    "qwen2": {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "vocab_size": 100, "rope_theta": 1e6, "rms_norm_eps": 1e-5},
}


def rows_of(folder, vocab):
    """Token rows to take a loss on: those of the reference numbers, or made ones."""
    path = os.path.join(folder, "reference.json")
    reference = json.load(open(path)) if os.path.exists(path) else {}
    rows = reference.get("input_ids") or [p["ids"] for p in reference.get("prompts", [])]
    return [r for r in rows if len(r) > 1] or [[(7 * i + 3) % vocab for i in range(20)]]


def largest_difference(some, others):
    expect(len(some) == len(others), f"{len(some)} losses, expected {len(others)}")
    return max(abs(a - b) / b for a, b in zip(some, others))


def check_folder(program, folder, out):
    original = load_file(os.path.join(folder, "model.safetensors"))
    config = json.load(open(os.path.join(folder, "config.json")))
    rows = rows_of(folder, config["vocab_size"])
    wanted = losses(load(folder), rows)
    for dtype, shard_bytes in (("f32", 0), ("f32", 60000), ("bf16", 0)):
        run(program, folder, out, dtype, shard_bytes)
        model = load(out)
        state = model.state_dict()
        for name, tensor in original.items():
            tensor = tensor.to(torch.bfloat16).float() if dtype == "bf16" else tensor.float()
            expect(torch.equal(state[name], tensor), f"{name} differs")
        stored = json.load(open(os.path.join(out, "config.json")))
        expect(stored.get("torch_dtype", stored.get("dtype")) == {"f32": "float32", "bf16": "bfloat16"}[dtype], "dtype in config.json")
        exported = losses(model, rows)
        worst = largest_difference(exported, wanted)
        expect(worst <= (0.05 if dtype == "bf16" and config.get("torch_dtype") != "bfloat16" else 0.0), f"loss differs by {worst:.2e}")
        ours = largest_difference(our_losses(program, out, rows), exported)
        expect(ours <= 1e-5, f"our loss on the exported folder differs by {ours:.2e}")
        files = sum(f.endswith(".safetensors") for f in os.listdir(out))
        print(f"  {dtype}, {files} file(s): {len(original)} tensors; {len(rows)} losses: original and export differ by "
              f"{worst:.1e}, export and our own by {ours:.1e}")
    saved = out + ".saved"
    load(folder).save_pretrained(saved)
    run(program, saved, out, "f32", 0)
    back = load_file(os.path.join(out, "model.safetensors"))
    for name, tensor in original.items():
        expect(torch.equal(back[name], tensor.float()), f"{name} differs after transformers saved it")


def check_scratch(program, title, config, out):
    path = out + ".json"
    write_json(path, config)
    run(program, "--scratch", path, out)
    model, read = load(out), transformers.AutoConfig.from_pretrained(out)
    for key in ("hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings", "eos_token_id"):
        if key in config:
            expect(getattr(read, key) == config[key], f"{key} read as {getattr(read, key)}")
    rope = getattr(read, "rope_parameters", None) or {"rope_theta": read.rope_theta, **(read.rope_scaling or {})}
    expect(float(rope["rope_theta"]) == float(config.get("rope_theta", 10000)), f"rope_theta read as {rope}")
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    expect(rope.get("rope_type", "default") == scaling.get("rope_type", scaling.get("type")), f"rope read as {rope}")
    loss = losses(model, [[(7 * i + 3) % 100 for i in range(20)]])[0]
    expect(3.5 < loss < 6, f"the loss of an untrained model is {loss}")
    run(program, "--routed", path, out + ".routed")
    routed = losses(load(out + ".routed", routers=True), [[(7 * i + 3) % 100 for i in range(20)]])[0]
    expect(routed == loss, f"with routers in the folder the loss is {routed}")
    print(f"  loss of an untrained model {loss:.3f}, log(100) = 4.605; the same with routers in the folder")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = os.path.abspath(sys.argv[1])
    folders = sys.argv[2:] or [os.path.join(MODELS, m) for m in
                               ("stories260K-hf", "verl-digit-llama", "hf-reference/llama-gqa", "hf-reference/qwen2-untied")]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as base:
        for folder in folders:
            if not os.path.isdir(folder):
                print(f"{folder}: not here, left out")
                continue
            print(folder)
            check_folder(program, folder, os.path.join(base, "out"))
        for title, config in SCRATCH.items():
            print("new", title)
            check_scratch(program, title, config, os.path.join(base, "new"))
    judge.finish()


main()
