#!/usr/bin/env python3
"""The training step of `loar bench step` in PyTorch eager: the same Llama model with random weights in fp32, forward, loss and
backward, on rows of the same lengths. Needs torch and transformers; against_torch runs it.

  padded   every step's rows padded to the longest one, with an attention mask, as the Hugging Face collators do
  packed   the step's rows one after another without padding, positions restarting; they do not see each other

Both are transformers' LlamaForCausalLM with its own loss over full logits. Prompt tokens have label -100. Prints one line a
layout and round: 'layout seconds processor_seconds real_tokens supervised_tokens positions_computed loss'; unless
OMP_WAIT_POLICY=PASSIVE, processor time of several threads holds their waiting too.
"""
import argparse
import os
import sys
import time


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lengths", required=True, help="file, one row a line: 'prompt_tokens all_tokens'")
    p.add_argument("--rows_per_step", type=int, default=8)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=1, help="passes over all rows that are timed")
    p.add_argument("--layouts", default="padded,packed")
    for name, value in dict(layers=8, width=1024, hidden=2816, heads=16, kv_heads=16, vocab=32768).items():
        p.add_argument("--" + name, type=int, default=value)
    # What was fastest of the honest choices is the default.
    p.add_argument("--padded_attention", choices=["mask", "causal"], default="mask",
                   help="mask: hand the model the attention mask, as the Trainer does; causal: leave it out, which gives "
                        "the same loss with padding on the right")
    p.add_argument("--packed_attention", choices=["rows", "mask"], default="rows",
                   help="rows: one causal SDPA for each row; mask: transformers' own block-diagonal mask")
    p.add_argument("--zero_gradients", action="store_true", help="fill gradients with zeros instead of dropping them")
    p.add_argument("--supervised_logits", action="store_true",
                   help="logits of supervised tokens only, which transformers' loss does not do by itself")
    return p.parse_args()


args = arguments()
try:
    import torch
    import transformers
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
except ImportError as missing:
    print(f"torch_step: {missing}", file=sys.stderr)
    sys.exit(77)

torch.set_num_threads(args.threads)
row_lengths = []  # of the batch being computed, for attend_rows


def attend_rows(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **unused):
    """Causal attention inside each row of a flat batch; no masked block is computed, no mask is read."""
    parts = [torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling,
                                                              enable_gqa=q.size(1) != k.size(1))
             for q, k, v in zip(*(x.split(row_lengths, dim=2) for x in (query, key, value)))]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register("rows", attend_rows)


def make_rows():
    generator = torch.Generator().manual_seed(1)
    with open(args.lengths) as file:
        for line in file:
            prompt, total = map(int, line.split())
            ids = torch.randint(args.vocab, (total,), generator=generator)
            labels = ids.clone()
            labels[:max(prompt, 1)] = -100
            yield ids, labels


def padded(rows):
    pad = torch.nn.utils.rnn.pad_sequence
    ids, labels = zip(*rows)
    mask = pad([torch.ones_like(i) for i in ids], batch_first=True)
    batch = dict(input_ids=pad(ids, batch_first=True), labels=pad(labels, batch_first=True, padding_value=-100))
    return batch if args.padded_attention == "causal" else batch | dict(attention_mask=mask)


def packed(rows):
    ids, labels = zip(*rows)
    return dict(input_ids=torch.cat(ids)[None], labels=torch.cat(labels)[None],
                position_ids=torch.cat([torch.arange(len(i)) for i in ids])[None])


def loss_of(model, batch):
    if not args.supervised_logits:
        return model(**batch, use_cache=False).loss
    labels = torch.nn.functional.pad(batch.pop("labels"), (0, 1), value=-100)[:, 1:]
    hidden = model.model(**batch, use_cache=False).last_hidden_state
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[labels != -100]), labels[labels != -100])


def one_pass(model, layout, steps):
    """Seconds for all steps, on the wall and of the processor, positions computed, mean loss of supervised tokens, their number."""
    seconds, processor, positions, loss_sum, supervised = 0.0, 0.0, 0, 0.0, 0
    for rows in steps:
        batch = (padded if layout == "padded" else packed)(rows)
        positions += batch["input_ids"].numel()
        count = sum(int((labels != -100).sum()) for _, labels in rows)
        row_lengths[:] = [len(ids) for ids, _ in rows]
        began, began_processor = time.perf_counter(), time.process_time()
        model.zero_grad(set_to_none=not args.zero_gradients)
        loss = loss_of(model, batch)
        loss.backward()
        seconds += time.perf_counter() - began
        processor += time.process_time() - began_processor
        loss_sum += float(loss.detach()) * count
        supervised += count
    return seconds, processor, positions, loss_sum / supervised, supervised


rows = list(make_rows())
steps = [rows[i:i + args.rows_per_step] for i in range(0, len(rows), args.rows_per_step)]
real_tokens = sum(len(ids) for ids, _ in rows)
torch.manual_seed(1)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=args.vocab, hidden_size=args.width, intermediate_size=args.hidden, num_hidden_layers=args.layers,
    num_attention_heads=args.heads, num_key_value_heads=args.kv_heads, max_position_embeddings=1 << 15, rms_norm_eps=1e-5,
    tie_word_embeddings=False, attn_implementation="sdpa")).to(torch.float32).train()
layouts = args.layouts.split(",")
attention = dict(padded="sdpa", packed="rows" if args.packed_attention == "rows" else "sdpa")
parameters = sum(p.numel() for p in model.parameters())
print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, "
      f"{torch.backends.cpu.get_cpu_capability()}, MKL {torch.backends.mkl.is_available()}, "
      f"oneDNN {torch.backends.mkldnn.is_available()}, {1e-6 * parameters:.1f} M parameters", file=sys.stderr)
losses = {}
for number in range(-1, args.rounds):
    for layout in layouts:
        model.set_attn_implementation(attention[layout])
        # The first round is one step, the largest: it finds its memory.
        run = steps if number >= 0 else [max(steps, key=lambda rows: max(len(ids) for ids, _ in rows))]
        seconds, processor, positions, loss, supervised = one_pass(model, layout, run)
        if number >= 0:
            losses[layout] = loss
            print(f"{layout} {seconds:.3f} {processor:.3f} {real_tokens} {supervised} {positions} {loss:.6f}", flush=True)
if not max(losses.values()) - min(losses.values()) < 1e-4:
    sys.exit(f"torch_step: the layouts differ in their loss: {losses}")
