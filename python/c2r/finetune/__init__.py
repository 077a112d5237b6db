"""Fine-tuning of Mixture-of-Experts models under the constraint, on transformers' Trainer.

    python -m c2r.finetune MODEL --data sft.jsonl --plan plan.json -o DIR

settings   what a run is: the recipes of the paper, and how --set changes them
data       examples with answers, and plain text, as token ids and labels
meter      balance and copies per token of what the routers choose in training
trainer    transformers' Trainer with the loss of the real choice, checkpoints and a log
run        from a model's folder to a fine-tuned one
dry_run    names, shapes and memory of a run, without weights
"""
