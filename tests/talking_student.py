"""A tiny student that has learnt one answer, with a thought and markers, so that its scores are not all nought.

It says the same whatever it is asked: 12 in its thought, 3 in its solution.
"""

import shutil
from pathlib import Path

ANSWER = "<think>7 + 5 is #### 12</think><answer>The answer is #### 3</answer>"
STEPS = 70


def taught(tiny_student: Path, folder: Path, answer: str = ANSWER) -> Path:
    """A copy of the tiny student that answers so."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(tiny_student, folder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    reply = tokenizer(f"<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
    for step in range(STEPS):
        length = 4 + (step * 37) % 120
        questions = torch.randint(3, model.config.vocab_size, (4, length))
        rows = torch.cat([questions, torch.tensor(reply).repeat(4, 1)], dim=1)
        labels = rows.clone()
        labels[:, :length] = -100
        loss = model(input_ids=rows, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder
