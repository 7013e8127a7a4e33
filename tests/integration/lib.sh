# Shared by the integration scripts: a tiny run whose every detail is fixed, and ways to start it.
# Usage: source tests/integration/lib.sh BINDIR
set -u
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0

check() { # text, command...
    local text=$1
    shift
    if "$@"; then
        echo "ok    $text"
        passed=$((passed + 1))
    else
        echo "FAIL  $text"
        failed=$((failed + 1))
    fi
}
same() { [ "$1" = "$2" ] || { echo "      found '$1', wanted '$2'"; return 1; }; }
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

# Makes $scratch/data (rows and a tokenizer) and $scratch/run.yaml.
make_tiny_run() {
    "$bin/loar" data make parity --rows 300 --seed 1 --length 8 --out "$scratch/data/train.jsonl" \
        --tokenizer "$scratch/data/tokenizer" >/dev/null || return
    "$bin/loar" data make parity --rows 40 --seed 1 --length 8 --split eval --out "$scratch/data/eval.jsonl" >/dev/null || return
    cat >"$scratch/model.yaml" <<YAML
architectures: [LlamaForCausalLM]
model_type: llama
hidden_size: 32
intermediate_size: 80
num_hidden_layers: 2
num_attention_heads: 4
num_key_value_heads: 2
max_position_embeddings: 128
rms_norm_eps: 1.0e-5
rope_theta: 10000.0
tie_word_embeddings: false
YAML
    cat >"$scratch/run.yaml" <<YAML
model_config: $scratch/model.yaml
tokenizer_name_or_path: $scratch/data/tokenizer
output_dir: $scratch/run
datasets:
  - {name: parity, path: $scratch/data/train.jsonl, format: qa-cot}
eval_datasets:
  - {name: held-out, path: $scratch/data/eval.jsonl, format: qa-cot}
chat_template: plain
max_length: 64
per_device_train_batch_size: 2
max_steps: 30
learning_rate: 2.0e-3
lr_scheduler_type: cosine
warmup_steps: 3
weight_decay: 0.1
logging_steps: 10
eval_strategy: steps
eval_steps: 15
save_strategy: steps
save_steps: 10
ps:
  slots: 16
  chunk_values: 4096
YAML
}

# Trains a model for other runs to begin with, in $scratch/base, and lets $scratch/run.yaml begin with it.
make_tiny_base() {
    train 0 max_steps=20 learning_rate=1e-2 && "$bin/loar" export "$scratch/run" "$scratch/base" >/dev/null || { tail -3 "$scratch/out"; return 1; }
    rm -rf "$scratch/run"
    sed -i "s|^model_config:.*|model_name_or_path: $scratch/base|; /^tokenizer_name_or_path:/d" "$scratch/run.yaml"
}
# The same where OVERRIDES... freeze something, for then there must be a model.
make_base_if_frozen() {
    case " $* " in *" finetuning_type="*) make_tiny_base ;; esac
}

# train RANKS [overrides...]: 0 ranks = without mpirun. Output goes to $scratch/out.
train() {
    local ranks=$1
    shift
    if [ "$ranks" -eq 0 ]; then
        "$bin/worker" "$scratch/run.yaml" "$@" >"$scratch/out" 2>&1
    else
        mpirun -n "$ranks" "$bin/worker" "$scratch/run.yaml" "$@" >"$scratch/out" 2>&1
    fi
}
digest() { sed -n 's/^ *digest  *\([0-9a-f]\{32\}\).*/\1/p' "$scratch/out" | tail -1; }
