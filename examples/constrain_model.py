"""A model of transformers from a profile to a constrained checkpoint: the program of docs/huggingface.md.

Run it in the folder of the repository:  python examples/constrain_model.py
"""

import pathlib, subprocess, sys, tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import c2r
import c2r.hf

folder = pathlib.Path(tempfile.mkdtemp())
path = "models/nano-qwen-moe"  # 32 experts, top-4, 4 layers
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
texts = [part for part in pathlib.Path("docs/placement.md").read_text().split("\n\n") if len(part) > 200]

# 1. Profile: which experts every token chose. Padding is left out, and memory does not grow with the texts.
trace = c2r.hf.profile(model, tokenizer, texts, folder / "trace.safetensors", max_length=128, batch_size=4)

# 2. Lists: of each expert, the 8 experts that are most often chosen with it.
lists = c2r.collaborators(c2r.count_collaboration(trace), top_t=8)

# 3. Constrain: a token's best expert is free, the other three are among that expert's 8 collaborators.
constraint = c2r.hf.constrain(model, lists)

# 4. Train 20 steps, with transformers' balance loss of the choice that was made.
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for step in range(20):
    ids = tokenizer(texts[step % len(texts)], return_tensors="pt", truncation=True, max_length=64)["input_ids"]
    loss = model(input_ids=ids, labels=ids, output_router_logits=True).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

# 5. Save: config.json gets the keys top_t and collaborative_list.
model.eval()
model.save_pretrained(folder / "constrained")
tokenizer.save_pretrained(folder / "constrained")

# 6. Score in c2r's engine, which reads the lists from the config.
(folder / "text.txt").write_text(texts[0])
command = [sys.executable, "-m", "c2r", "score", folder / "constrained", "--text", folder / "text.txt", "--dtype", "f32"]
print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
