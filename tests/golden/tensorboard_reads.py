#!/usr/bin/env python3
"""Does TensorBoard read what a run writes with report_to: tensorboard?

usage: tensorboard_reads.py BINDIR

Trains a tiny routed model on two tasks, and again: resumed from an earlier snapshot, and killed. TensorBoard's own readers
must find every number of metrics.jsonl under its tag and step, once, and nothing else; a picture for each routing map, of
which every cell has the colour of its number; and the run file. Leaves with status 77 where tensorboard is missing.
"""
import glob
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import judge
from judge import SMALL, expect, run, write_json

with judge.needed():
    import numpy
    import PIL.Image
    import tensorboard
    from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

STOPS = ((0xf7, 0xfb, 0xff), (0x6b, 0xae, 0xd6), (0x08, 0x30, 0x6b))
RUN = """# a comment that stays
model_config: {base}/model.yaml
tokenizer_name_or_path: {base}/tokenizer
output_dir: {base}/run
report_to: tensorboard
datasets:
  - {{name: parity, path: {base}/parity.jsonl, format: qa-cot}}
  - {{name: sums, path: {base}/sums.jsonl, format: qa-cot}}
eval_datasets:
  - {{name: held-out, path: {base}/eval.jsonl, format: qa-cot}}
  - {{name: seen, path: {base}/parity.jsonl, format: qa-cot, max_samples: 10}}
max_length: 128
per_device_train_batch_size: 2
max_steps: 12
learning_rate: 1.0e-3
eval_strategy: steps
eval_steps: 4
save_steps: 6
logging_steps: 2
threads: 1
loar:
  layers: [{{budget: 0.5}}, {{range: -1, routed: false}}]
  features: token
  granularity: token
  router_dim: 8
  policy: topk
  anneal_share: 0
"""


def make(bin_dir, base):
    def data(*arguments):
        run(f"{bin_dir}/loar", "data", "make", *arguments)

    data("parity", "--rows", 200, "--length", 8, "--out", f"{base}/parity.jsonl", "--tokenizer", f"{base}/tokenizer")
    data("parity", "--rows", 20, "--length", 8, "--split", "eval", "--out", f"{base}/eval.jsonl")
    data("modchain", "--ops", 3, "--rows", 200, "--out", f"{base}/sums.jsonl")
    write_json(f"{base}/model.yaml", SMALL | {"num_hidden_layers": 3})
    with open(f"{base}/run.yaml", "w") as file:
        file.write(RUN.format(base=base))


def start(bin_dir, base, *overrides):
    return subprocess.Popen([f"{bin_dir}/worker", f"{base}/run.yaml", *overrides], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def train(bin_dir, base, *overrides):
    process = start(bin_dir, base, *overrides)
    text, _ = process.communicate()
    expect(process.returncode == 0, f"a run ended with {process.returncode}:\n{text}")
    return text


def lines_of(base):
    return [json.loads(line) for line in open(f"{base}/run/metrics.jsonl")]


def tag_of(key, evaluation):
    if key == "epoch":
        return "train/epoch"
    if key == "eval_runtime_s":
        return "eval/runtime"
    return "eval/" + key[5:] if key.startswith("eval_") else ("eval/" if evaluation else "train/") + key


def wanted_of(lines):
    """(tag, step) -> number, and (tag, step) -> map, as the lines of metrics.jsonl have them."""
    scalars, maps = {}, {}
    for line in lines:
        if "routing" in line:
            for task, active in zip(line["tasks"], line["active"]):
                if active is not None:
                    maps[f"routing/{line['routing']}/{task}", line["step"]] = active
        elif "epoch" in line:
            for key, value in line.items():
                if key in ("step", "total_steps"):
                    continue
                tag = tag_of(key, "eval_loss" in line)
                values = {f"{tag}/{i + 1}": v for i, v in enumerate(value)} if isinstance(value, list) else {tag: value}
                scalars.update({(t, line["step"]): v for t, v in values.items()
                                if v is not None and not isinstance(v, (bool, str))})
    return scalars, maps


def colour(share):
    at = 2 * share
    low = 0 if at < 1 else 1
    return [a + (at - low) * (b - a) for a, b in zip(STOPS[low], STOPS[low + 1])]


def check_picture(name, event, active):
    image = PIL.Image.open(io.BytesIO(event.encoded_image_string))
    image.load()
    expect(image.mode == "RGB" and (image.width, image.height) == (event.width, event.height), f"size of {name}")
    cell = image.width // len(active[0])
    expect(image.height == cell * len(active), f"{name} is {image.width} x {image.height}")
    for l, heads in enumerate(active):
        for h, share in enumerate(heads):
            found = image.getpixel((h * cell + cell // 2, l * cell + cell // 2))
            expect(max(abs(a - b) for a, b in zip(found, colour(share))) <= 0.51, f"{name}, layer {l} head {h}: {share} is {found}")


def check_texts(reader, base, step):
    expect(set(reader.Tags()["tensors"]) == {"run_file", "options"}, f"texts {reader.Tags()['tensors']}")
    text = reader.Tensors("run_file")[0].tensor_proto.string_val[0].decode()
    given = "".join(f"    {line}\n" for line in open(f"{base}/run.yaml").read().splitlines())
    expect(text == given, "the run file is not as it was given")
    expect(reader.Tensors("run_file")[0].step == step, "step of the run file")
    expect("    max_steps: " in reader.Tensors("options")[0].tensor_proto.string_val[0].decode(), "no options")
    return len(reader.Tensors("run_file"))


def check(title, base, lines, files, complete=True):
    """All of the lines, and nothing else unless more may have been written behind them."""
    folder = f"{base}/run/runs/run"
    expect(len(glob.glob(folder + "/*tfevents*")) == files, f"{files} files in {folder}")
    reader = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0,
                                                                       event_accumulator.TENSORS: 0})
    reader.Reload()
    scalars, maps = wanted_of(lines)
    found = [((tag, e.step), e.value) for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag)]
    images = [((tag, e.step), e) for tag in reader.Tags()["images"] for e in reader.Images(tag)]
    for seen, wanted, what in ((found, scalars, "numbers"), (images, maps, "pictures")):
        names = [name for name, _ in seen]
        expect(len(names) == len(set(names)), f"{what} that are there twice")
        expect(set(wanted) <= set(names), f"{what} that are missing: {sorted(set(wanted) - set(names))[:5]}")
        expect(not complete or set(names) <= set(wanted), f"{what} too many: {sorted(set(names) - set(wanted))[:5]}")
        expect(wanted, f"no {what} to look for")
    for name, value in found:
        if name in scalars:
            expect(value == numpy.float32(scalars[name]), f"{name} is {value}, not {scalars[name]}")
    for name, event in images:
        if name in maps:
            check_picture(name, event, maps[name])
    for tag in reader.Tags()["scalars"]:
        steps = [e.step for e in reader.Scalars(tag)]
        expect(steps == sorted(steps), f"steps of {tag} go back")
    texts = check_texts(reader, base, 0)
    # What the program itself goes by: which plug-in shows what.
    modern = plugin_event_accumulator.EventAccumulator(folder)
    modern.Reload()
    shown = {plugin: set(modern.PluginTagToContent(plugin)) for plugin in ("scalars", "images", "text")}
    expect(shown["scalars"] == set(reader.Tags()["scalars"]) and shown["images"] == set(reader.Tags()["images"]), "plug-ins")
    expect(shown["text"] == {"run_file", "options"}, f"texts {shown['text']}")
    print(f"{title}: {len(scalars)} numbers of {len(reader.Tags()['scalars'])} tags, {len(maps)} pictures of "
          f"{len(reader.Tags()['images'])}, {texts} run file(s), up to step {max(step for _, step in scalars)}")


def kill_in_the_middle(bin_dir, base):
    process = start(bin_dir, base, "overwrite_output_dir=true", "max_steps=100000", "logging_steps=1", "eval_steps=7")
    end = time.time() + 120
    while time.time() < end and process.poll() is None and not (os.path.exists(f"{base}/run/metrics.jsonl") and len(lines_of_whole(base)) > 40):
        time.sleep(0.05)
    expect(process.poll() is None, "the run ended by itself")
    process.send_signal(signal.SIGKILL)
    process.communicate()


def lines_of_whole(base):
    with open(f"{base}/run/metrics.jsonl") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bin_dir = os.path.abspath(sys.argv[1])
    print(f"tensorboard {tensorboard.__version__}")
    with tempfile.TemporaryDirectory() as base:
        make(bin_dir, base)
        text = train(bin_dir, base)
        expect(f"tensorboard --logdir {base}/run/runs" in text, "no word of how to look at it")
        tags = {tag for tag, _ in wanted_of(lines_of(base))[0]}
        for tag in ("train/loss", "train/grad_norm", "train/learning_rate", "train/epoch", "train/thought_loss", "train/answer_loss",
                    "train/accuracy", "train/tokens_per_second", "train/active_heads", "train/attention_share", "eval/loss",
                    "eval/held-out_loss", "eval/seen_loss", "eval/active_heads"):
            expect(tag in tags, f"the run has no {tag}")
        shares = {share for map in wanted_of(lines_of(base))[1].values() for heads in map for share in heads}
        expect(len(shares) > 5 and min(shares) < 0.9, f"the maps are too plain to tell anything: {sorted(shares)}")
        check("whole run", base, lines_of(base), 1)
        train(bin_dir, base, f"resume_from_checkpoint={base}/run/snapshots/step-00000006.h5", "max_steps=10")
        expect(lines_of(base)[-1]["step"] == 10, "the resumed run ends at step 10")
        check("resumed at step 6 of 12, up to step 10", base, lines_of(base), 2)
        kill_in_the_middle(bin_dir, base)
        check("begun anew and killed", base, lines_of_whole(base)[:-1], 3, complete=False)
    judge.finish()


main()
