# What the experiments share: training once, scoring once, reading numbers. Sourced by their `run`, which
# sets bin (folder of the programs), out (folder of the experiment) and threads. Must not know: any one experiment's arms.
fail() { echo "$*" >&2; exit 3; }

# Runs a run file's text, given on standard input, unless it has run already; what was interrupted goes on from its last snapshot,
# if nothing of it has changed. What all runs share comes first.
train() { # folder, overrides...
    local run=$1 begin=overwrite_output_dir=true
    shift
    [ ! -e "$run/done" ] || { cat >/dev/null; return 0; }
    echo "$(date +%H:%M:%S) ${run#"$out/"}"
    {
        printf '# %s\n' "$@"
        cat <<YAML
output_dir: $run
threads: $threads
save_strategy: "no"
logging_steps: 25
lr_scheduler_type: cosine_with_min_lr
min_lr_rate: 0.1
ps: {slots: 1}
YAML
        cat
    } >"$run.yaml.new"
    if [ -e "$run/snapshots/latest" ] && cmp -s "$run.yaml.new" "$run.yaml"; then
        begin=resume_from_checkpoint=true
    else
        rm -f "$run.log" "$run.cpu"
    fi
    mv "$run.yaml.new" "$run.yaml"
    local TIMEFORMAT=%U # processor seconds, which other jobs on the machine hardly change
    { time "$bin/worker" "$run.yaml" "$begin" "$@" >>"$run.log" 2>&1; } 2>>"$run.cpu" || { tail -5 "$run.log" >&2; exit 4; }
    touch "$run/done"
}
export_once() { # run, folder
    [ -e "$2/config.json" ] || "$bin/loar" export "$1" "$2" --overwrite >/dev/null || fail "cannot export $1"
}
score() { # run or folder of a model, rows, name of the score, options of loar eval...
    local run=$1 rows=$2 json=$1/score-$3.json of=--snapshot
    shift 3
    [ ! -s "$json" ] || return 0
    [ ! -e "$run/config.json" ] || of=--model
    "$bin/loar" eval $of "$run" --file "$rows" --threads "$threads" --json "$json.tmp" "$@" >"$run.eval.log" 2>&1 ||
        { tail -5 "$run.eval.log" >&2; exit 4; }
    mv "$json.tmp" "$json"
}
number() { # file, key: the last number of the key; "-" where there is none
    local found
    found=$(grep -o "\"$2\": *[-0-9.e+]*" "$1" 2>/dev/null | tail -1 | sed 's/.*: *//')
    echo "${found:--}"
}
first_number() { # file, key
    local found
    found=$(grep -o -m1 "\"$2\": *[-0-9.e+]*" "$1" 2>/dev/null | head -1 | sed 's/.*: *//')
    echo "${found:--}"
}
# Seconds of each training step, one a line, evaluations left out.
step_seconds() { # metrics.jsonl
    grep '"tokens_per_second"' "$1" | awk -F'[:,]' '{ for (i = 1; i < NF; i++) {
        if ($i ~ /"tokens"$/) t = $(i + 1); if ($i ~ /"tokens_per_second"$/ && $(i + 1) > 0) print t / $(i + 1) } }'
}
percent() { awk -v x="$1" 'BEGIN { if (x == "-") print "-"; else printf "%.1f\n", 100 * x }'; }
