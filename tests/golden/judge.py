"""What the judges from outside have in common: leaving where their libraries are missing, running our programs, counting
what is not as it should be, a small model, and the numbers that transformers gives. Imports torch and transformers only
where they are used, for not every judge needs them.
"""
import contextlib
import json
import subprocess
import sys
import tempfile

SMALL = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "tie_word_embeddings": False}
failures = 0


@contextlib.contextmanager
def needed():
    """What is imported inside is needed: leaves with status 77 where it is missing."""
    try:
        yield
    except ImportError as reason:
        print(f"skipped: {reason}")
        sys.exit(77)


def expect(truth, what):
    global failures
    if not truth:
        failures += 1
        print(f"  FAILED: {what}")


def finish():
    print("failures:", failures)
    sys.exit(failures > 0)


def run(*arguments):
    """What the program prints; it must leave with status 0."""
    done = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def write_json(path, content):
    with open(path, "w") as file:
        json.dump(content, file)


def ask(program, question, folder, rows):
    """What export_folder says (--loss, --scores) of the model in the folder for these rows of tokens."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rows, file)
        file.flush()
        return run(program, question, folder, file.name)


def our_losses(program, folder, rows):
    return [float(line) for line in ask(program, "--loss", folder, rows).split()]


def hush():
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load(folder, kind="AutoModelForCausalLM", routers=False):
    """A model of transformers, nothing missing or left over but our routers, where there must be some."""
    import torch
    import transformers
    model, info = getattr(transformers, kind).from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = list(info[what])
        if routers and what == "unexpected_keys":
            expect(keys, "no routers are left aside")
            keys = [k for k in keys if not k.startswith("loar.")]
        expect(not keys, f"{what}: {keys[:3]}")
    return model.eval()


def losses(model, rows):
    import torch
    with torch.no_grad():
        return [model(input_ids=torch.tensor([r]), labels=torch.tensor([r])).loss.item() for r in rows]


def scores(model, rows):
    import torch
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([r])).logits for r in rows])
