"""Accuracies of a model on ten tasks and LAMBADA, by lm-evaluation-harness, without a network.

    python -m c2r.evaluate MODEL --tasks all --data FOLDER

tasks    the harness's own prompts and metrics over JSON lines of a folder
scorer   the program c2r, and log-likelihoods from it
"""
