"""TRL's SFTTrainer trains a constrained model: its choices obey the lists, and its balance loss is of those choices."""

import pytest
import torch

trl = pytest.importorskip("trl", minversion="1.16", reason="pip install trl")
datasets = pytest.importorskip("datasets")
pytest.importorskip("transformers", minversion="5.23")

import transformers
from families import NUM_EXPERTS, NUM_LAYERS, VOCABULARY, random_lists, random_model

import c2r.hf

NUM_STEPS, COEFFICIENT = 4, 0.25


class Recorded:
    """Of each forward pass: its balance loss, and that of the choices that were made, by definition."""

    def __init__(self, model, constraint, lists):
        self.constraint, self.lists, self.logits, self.pairs = constraint, lists, [], []
        for router in constraint.routers:
            router.module.register_forward_hook(lambda module, inputs, output: self.logits.append(output[0].detach()))
        model.register_forward_pre_hook(lambda module, inputs: self.logits.clear())  # those of a recomputation
        model.register_forward_hook(self._after_forward)

    def _after_forward(self, module, inputs, output):
        for idx, layer in zip(self.constraint.topk_idx, self.lists, strict=True):
            for row in idx.tolist():
                assert set(row[1:]) <= set(layer[row[0]]), f"{row} does not obey {layer[row[0]]}"
        chosen, probabilities = torch.cat(self.constraint.topk_idx), torch.cat(self.logits).float().softmax(-1)
        counts = torch.bincount(chosen.flatten(), minlength=NUM_EXPERTS) / len(chosen)
        balance = float(NUM_EXPERTS * (counts * probabilities.mean(0)).sum())
        # What the trainer's forward pass returns: the negative log-likelihood and the balance loss.
        nll = float(-output.log_probs.detach().sum() / output.label_mask.sum())
        self.pairs.append(
            (float(output.aux_loss.detach()), balance, float(output.loss.detach()), nll + COEFFICIENT * balance)
        )


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_the_sft_trainer_trains_with_the_constraint_and_balances_the_real_choice(is_checkpointed, tmp_path):
    lists = random_lists(3)
    model = random_model("qwen2_moe")
    constraint = c2r.hf.constrain(model, lists)
    recorded = Recorded(model, constraint, lists)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(VOCABULARY, (2 * NUM_STEPS, 17), generator=generator)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=NUM_STEPS, per_device_train_batch_size=2, use_cpu=True, bf16=False,
        report_to=[], save_strategy="no", gradient_checkpointing=is_checkpointed, disable_tqdm=True, logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True}, router_aux_loss_coef=COEFFICIENT,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = trl.SFTTrainer(
        model=model, args=arguments, train_dataset=datasets.Dataset.from_dict({"input_ids": rows.tolist()}),
        processing_class=tokenizer_of(tmp_path),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == NUM_STEPS
    assert len(constraint.topk_idx) == NUM_LAYERS and len(recorded.pairs) == NUM_STEPS
    for balance, balance_of_choices, loss, loss_of_choices in recorded.pairs:
        assert balance == pytest.approx(balance_of_choices, rel=1e-5)
        assert loss == pytest.approx(loss_of_choices, rel=1e-5)
    logged = [entry["aux_loss"] for entry in trainer.state.log_history if "aux_loss" in entry]
    assert logged == pytest.approx([balance for _, balance, *_ in recorded.pairs], rel=1e-4)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def tokenizer_of(folder):
    """One token for each number below VOCABULARY - 1, and padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {str(token): token for token in range(VOCABULARY - 1)}
    inner = Tokenizer(models.WordLevel({**words, "<pad>": VOCABULARY - 1}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<pad>")
