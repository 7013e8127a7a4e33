#!/usr/bin/env python3
"""Do PEFT and transformers load the adapters and merged models that we export, and do we read PEFT's?

usage: peft_reads.py BINDIR EXPORT_FOLDER_PROGRAM

For llama and qwen2: trains a tiny model, then adapters beside it. PEFT puts the exported adapters beside the base, transformers
loads the merged export; both must have the loss of our own program on every row, and PEFT's own merge the weights of ours.
The other way round, adapters that PEFT makes and saves are merged by `loar export`, to the loss that PEFT has. Leaves with
status 77 where torch, transformers or peft are missing.
"""
import json
import os
import sys
import tempfile
import warnings

import judge
from judge import SMALL, expect, load, losses, our_losses, run, scores, write_json

with judge.needed():
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

warnings.simplefilter("ignore")
judge.hush()
RUN = """{model}
output_dir: {out}
datasets:
  - {{name: parity, path: {data}/train.jsonl, format: qa-cot}}
chat_template: plain
max_length: 64
per_device_train_batch_size: 4
max_steps: 12
learning_rate: 3.0e-2
ps:
  slots: 2
"""
TIED = {"tied embeddings": "finetuning_type: lora\nlora_target: v_proj\nmodules_to_save: embed_tokens\n"}
VARIANTS = {
    "all maps": "finetuning_type: lora\nlora_dropout: 0.1\n",
    "queries and values, saved modules, rslora":
        "finetuning_type: lora\nlora_rank: 4\nlora_alpha: 12\nuse_rslora: true\nlora_target: q_proj,v_proj\nmodules_to_save: [norm, lm_head]\n",
    "routed": "finetuning_type: lora\nlora_target: [q_proj, o_proj]\nloar:\n  layers: [{budget: 0.5}, {range: 0}]\n  granularity: token\n  features: token\n",
}
TOLERANCE = 1e-4


def worst(some, others):
    expect(len(some) == len(others), f"{len(some)} losses, expected {len(others)}")
    return max(abs(a - b) for a, b in zip(some, others))


def train(binaries, scratch, name, model, more):
    file, out = os.path.join(scratch, name + ".yaml"), os.path.join(scratch, name)
    with open(file, "w") as to:
        to.write(RUN.format(model=model, out=out, data=os.path.join(scratch, "data")) + more)
    run(os.path.join(binaries, "worker"), file)
    return out


def check_ours(binaries, program, scratch, base, name, more, rows):
    """What we export, as PEFT and transformers see it."""
    loar = os.path.join(binaries, "loar")
    folder = train(binaries, scratch, name, f"model_name_or_path: {base}", more)
    merged, adapter = folder + ".merged", folder + ".adapter"
    run(loar, "export", folder, merged, "--dense")
    run(loar, "export", folder, adapter, "--adapter")
    model = peft.PeftModel.from_pretrained(load(base), adapter).eval()
    keys = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    known = set(peft.get_peft_model_state_dict(model))
    expect(all(k in known or ".loar." in k for k in keys) and known <= set(keys), "PEFT knows other tensors than were exported")
    again = folder + ".again"
    run(loar, "export", adapter, again, "--dense")
    expect(open(os.path.join(again, "model.safetensors"), "rb").read() == open(os.path.join(merged, "model.safetensors"), "rb").read(),
           "the adapters' folder merges into another model")
    wanted, plain = losses(model, rows), losses(load(base), rows)
    beside = worst(wanted, our_losses(program, merged, rows))
    public = worst(wanted, losses(load(merged), rows))
    expect(worst(wanted, plain) > 10 * TOLERANCE, "the adapters do nothing")
    expect(beside <= TOLERANCE, f"losses of PEFT and our merged model differ by {beside:.1e}")
    expect(public <= TOLERANCE, f"losses of PEFT and transformers on the merged model differ by {public:.1e}")
    theirs, ours = model.merge_and_unload().state_dict(), load_file(os.path.join(merged, "model.safetensors"))
    apart = max((theirs[k] - ours[k]).abs().max().item() for k in ours)
    expect(set(theirs) - {"lm_head.weight"} == set(ours) - {"lm_head.weight"} and apart <= 1e-6, f"merged weights differ by {apart:.1e}")
    print(f"  {name}: {len(keys)} tensors; losses differ by {beside:.1e} and {public:.1e}, merged weights by {apart:.1e}")


def check_theirs(binaries, program, scratch, base, rows):
    """What PEFT saves, as we see it."""
    torch.manual_seed(5)
    config = peft.LoraConfig(r=6, lora_alpha=9, target_modules=["k_proj", "o_proj", "gate_proj", "down_proj"], modules_to_save=["lm_head", "norm"],
                             init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(load(base), config).eval()
    with torch.no_grad(): # "norm" is every module whose name ends so
        for name, value in model.named_parameters():
            if "modules_to_save" in name:
                value.mul_(1.1)
    adapter, merged = os.path.join(scratch, "theirs"), os.path.join(scratch, "theirs.merged")
    model.save_pretrained(adapter)
    run(os.path.join(binaries, "loar"), "export", adapter, merged, "--base", base)
    wanted = losses(model, rows)
    apart = worst(wanted, our_losses(program, merged, rows))
    expect(apart <= TOLERANCE and worst(wanted, losses(load(base), rows)) > 100 * TOLERANCE, f"losses differ by {apart:.1e}")
    print(f"  adapters of PEFT: losses differ by {apart:.1e}")


def check_classes(binaries, scratch, base, rows):
    """Adapters of a classification run: the head of the labels is a saved module."""
    loar, data = os.path.join(binaries, "loar"), os.path.join(scratch, "labels.jsonl")
    with open(data, "w") as to:
        to.writelines(json.dumps({"text": "01" * (i % 5 + 1), "label": "odd" if i % 2 else "even"}) + "\n" for i in range(40))
    more = "finetuning_type: lora\ntask_type: seq_cls\n"
    file, folder = os.path.join(scratch, "classes.yaml"), os.path.join(scratch, "classes")
    with open(file, "w") as to:
        to.write(RUN.format(model=f"model_name_or_path: {base}", out=folder, data=scratch)
                 .replace("train.jsonl, format: qa-cot", "labels.jsonl") + more)
    run(os.path.join(binaries, "worker"), file)
    merged, adapter = folder + ".merged", folder + ".adapter"
    run(loar, "export", folder, merged)
    run(loar, "export", folder, adapter, "--adapter")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, torch_dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(plain, adapter).eval()
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(merged, torch_dtype=torch.float32).eval()
    apart = (scores(model, rows) - scores(whole, rows)).abs().max().item()
    expect(json.load(open(os.path.join(adapter, "adapter_config.json")))["task_type"] == "SEQ_CLS", "task_type")
    expect(apart <= TOLERANCE, f"scores of PEFT and the merged model differ by {apart:.1e}")
    print(f"  classes: scores differ by {apart:.1e}")


def main():
    binaries, program = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    for kind, tied in (("llama", False), ("qwen2", False), ("llama", True)):
        with tempfile.TemporaryDirectory() as scratch:
            print(kind)
            loar, data = os.path.join(binaries, "loar"), os.path.join(scratch, "data")
            run(loar, "data", "make", "parity", "--rows", 100, "--seed", 1, "--length", 8, "--out", data + "/train.jsonl", "--tokenizer",
                data + "/tokenizer")
            write_json(os.path.join(scratch, "model.yaml"), SMALL | {"model_type": kind, "tie_word_embeddings": tied})
            first = train(binaries, scratch, "base", f"model_config: {scratch}/model.yaml\ntokenizer_name_or_path: {data}/tokenizer", "")
            base = first + ".model"
            run(loar, "export", first, base)
            vocabulary = json.load(open(os.path.join(base, "config.json")))["vocab_size"]
            rows = [[(7 * i * (k + 1) + 3 * k) % vocabulary for i in range(20 + k)] for k in range(4)]
            for name, more in (TIED if tied else VARIANTS).items():
                check_ours(binaries, program, scratch, base, name, more, rows)
            if tied:
                continue
            check_theirs(binaries, program, scratch, base, rows)
            check_classes(binaries, scratch, base, rows)
    judge.finish()


main()
