"""Logits of a model with adapters, as `peft` puts them on; run by test_peft.py in an environment of its own.

    python peft_logits.py BASE ADAPTERS IN.npz OUT.npy

IN holds token ids [T], pixel_values [N,...] and image_grid_thw [images,3].
"""

import sys

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base, adapters, given, out = sys.argv[1:]
inputs = np.load(given)
model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
model, wanted = PeftModel.from_pretrained(model, adapters), inputs["modules"].tolist()
found = {name for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")}
assert found == set(wanted), (sorted(found - set(wanted)), sorted(set(wanted) - found))
ids = torch.tensor(inputs["ids"][None])
with torch.no_grad():
    logits = model.eval()(
        input_ids=ids,
        mm_token_type_ids=(ids == model.config.image_token_id).long(),
        pixel_values=torch.tensor(inputs["pixel_values"]),
        image_grid_thw=torch.tensor(inputs["image_grid_thw"]),
    ).logits[0]
np.save(out, logits.numpy())
