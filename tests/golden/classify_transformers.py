#!/usr/bin/env python3
"""Does the public model code classify as we do?

usage: classify_transformers.py BINDIR EXPORT_FOLDER_PROGRAM

A run of task_type seq_cls is trained and exported for each architecture. transformers must load the folder as a model for
sequence classification with nothing missing or left over, know the labels by name, and give the scores of our own pass. The
loss of the evaluation rows, with and without smoothed labels, must be the one that its label smoother takes, and a folder
that transformers saves must be read, scored and trained on here. Leaves with status 77 where torch or transformers are missing.
"""
import json
import os
import random
import sys
import tempfile

import judge
from judge import SMALL, ask, expect, load, run, scores, write_json

with judge.needed():
    import torch
    import transformers
    from tokenizers import Tokenizer
    from transformers.trainer_pt_utils import LabelSmoother

judge.hush()
WORDS = {"bad": "awful poor nasty sad".split(), "middling": "table chair house road".split(), "good": "great fine lovely nice".split()}


def write_rows(path, count, seed):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.choice(sorted(WORDS))
        rows.append({"text": " ".join(draw.choice(WORDS[label]) for _ in range(draw.randrange(1, 6))), "label": label})
    with open(path, "w") as file:
        file.writelines(json.dumps(r) + "\n" for r in rows)
    return rows


def our_scores(program, folder, rows):
    return torch.tensor([[float(x) for x in line.split()] for line in ask(program, "--scores", folder, rows).splitlines()])


def eval_loss(worker, folder, base, smoothing):
    out = os.path.join(base, f"eval-{smoothing}")
    run(worker, os.path.join(base, "run.yaml"), f"output_dir={out}", "model_config=", f"model_name_or_path={folder}", "max_steps=1",
        "learning_rate=0", "eval_on_start=true", f"label_smoothing_factor={smoothing}")
    lines = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
    return next(l for l in lines if "eval_loss" in l)


def check(kind, tied, bindir, program, base):
    worker, loar = os.path.join(bindir, "worker"), os.path.join(bindir, "loar")
    run(loar, "data", "make", "parity", "--rows", 4, "--length", 4, "--out", f"{base}/p.jsonl", "--tokenizer", f"{base}/tok")
    write_rows(f"{base}/train.jsonl", 120, 1)
    rows = write_rows(f"{base}/eval.jsonl", 37, 2)
    write_json(f"{base}/model.yaml", SMALL | {"model_type": kind, "tie_word_embeddings": tied})
    write_json(f"{base}/run.yaml", {
        "model_config": f"{base}/model.yaml", "tokenizer_name_or_path": f"{base}/tok", "output_dir": f"{base}/run",
        "task_type": "seq_cls", "datasets": [{"name": "mood", "path": f"{base}/train.jsonl"}],
        "eval_datasets": [{"name": "held", "path": f"{base}/eval.jsonl"}], "max_length": 64, "max_steps": 9,
        "learning_rate": 3e-3, "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 9, "ps": {"slots": 2}})
    run(worker, f"{base}/run.yaml")
    folder = f"{base}/out"
    run(loar, "export", f"{base}/run", folder)

    model = load(folder, "AutoModelForSequenceClassification")
    names = sorted(WORDS)
    expect([model.config.id2label[i] for i in range(3)] == names, f"labels read as {model.config.id2label}")
    expect(model.config.num_labels == 3 and model.config.problem_type == "single_label_classification", "num_labels, problem_type")
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    ids = [[model.config.bos_token_id] + tokenizer.encode(r["text"], add_special_tokens=False).ids for r in rows]
    theirs = scores(model, ids)
    worst = (theirs - our_scores(program, folder, ids)).abs().max().item()
    expect(worst <= 1e-4, f"scores differ by {worst:.2e}")

    labels = torch.tensor([names.index(r["label"]) for r in rows])
    right = (theirs.argmax(-1) == labels).float().mean().item()
    for smoothing in (0.0, 0.1):
        found = eval_loss(worker, folder, base, smoothing)
        wanted = LabelSmoother(epsilon=smoothing)({"logits": theirs}, labels).item()
        expect(abs(found["eval_loss"] - wanted) <= 1e-5, f"loss with smoothing {smoothing} is {found['eval_loss']}, wanted {wanted}")
        expect(abs(found["eval_held_accuracy"] - right) <= 1e-6, f"accuracy {found['eval_held_accuracy']}, wanted {right}")
    f1s = []
    for i in set(labels.tolist()) | set(theirs.argmax(-1).tolist()):
        both = ((theirs.argmax(-1) == i) & (labels == i)).sum().item()
        f1s.append(2 * both / ((theirs.argmax(-1) == i).sum().item() + (labels == i).sum().item()))
    expect(abs(found["eval_held_f1"] - sum(f1s) / len(f1s)) <= 1e-6, f"macro F1 {found['eval_held_f1']}, wanted {sum(f1s) / len(f1s)}")

    saved = f"{base}/saved"
    model.config.classification_tasks = None
    torch.manual_seed(1)
    model.score.weight.data.normal_(0, 0.3)
    model.save_pretrained(saved)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        os.link(f"{folder}/{name}", f"{saved}/{name}")
    again = (scores(model, ids) - our_scores(program, saved, ids)).abs().max().item()
    expect(again <= 1e-4, f"scores of a folder that transformers saved differ by {again:.2e}")
    out = run(loar, "generate", "--model", saved, "--file", f"{base}/eval.jsonl", "--rows", 0, "--score", 37)
    hits = (scores(model, ids).argmax(-1) == labels).sum().item()
    expect(f"accuracy {hits} of 37" in out, f"generate says {out!r}, wanted {hits} of 37")
    text = run(worker, f"{base}/run.yaml", f"output_dir={base}/again", "model_config=", f"model_name_or_path={saved}", "max_steps=1")
    expect("begins anew" not in text, "the head of the folder is left out")
    print(f"  scores differ by {worst:.1e} and {again:.1e}; accuracy {right:.2f}")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    bindir, program = (os.path.abspath(a) for a in sys.argv[1:3])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for kind, tied in (("llama", False), ("llama", True), ("qwen2", False)):
        print(kind, "tied" if tied else "")
        with tempfile.TemporaryDirectory() as base:
            check(kind, tied, bindir, program, base)
    judge.finish()


main()
