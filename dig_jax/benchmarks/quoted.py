"""Numbers that the papers give which this project builds on: DiG and TinyGroundingGPT, as they were printed.

Of DiG (arXiv 2512.12633), as a digest of it has them: the 8B model before and after its whole curriculum, and
the 4B model with the reward of F1 and IoU. Which of HallusionBench's figures it gives, and which version of
MMBench, is not said there. Of TinyGroundingGPT (arXiv 2411.09691): its tables 1 to 3 and 8.
"""

from __future__ import annotations

from dig_jax.benchmarks.benchmark import Quoted

_DIG = "DiG"
_TINY = "TinyGroundingGPT"

# RefCOCO val, testA, testB, RefCOCO+ the same, RefCOCOg val, test, then their mean; in percent.
_REC = {
    f"{_TINY} 3B": (89.16, 92.24, 85.38, 81.70, 87.16, 75.09, 83.27, 84.08, 84.76),
    f"{_TINY} 1.5B": (86.76, 90.42, 81.81, 78.86, 84.65, 70.24, 79.88, 80.04, 81.58),
    f"{_TINY} 7B": (90.72, 92.31, 87.48, 84.56, 88.76, 78.71, 85.36, 85.86, 86.72),
}
_REC_SPLITS = (
    *("RefCOCO_val", "RefCOCO_testA", "RefCOCO_testB"),
    *("RefCOCO+_val", "RefCOCO+_testA", "RefCOCO+_testB"),
    *("RefCOCOg_val", "RefCOCOg_test", "Average"),
)
# POPE random, popular, adversarial: accuracy, F1, share of yes; then the mean F1; in percent.
_POPE = {
    f"{_TINY} 3B": ((89.93, 89.47, 43.08), (88.56, 87.90, 43.43), (86.77, 86.22, 45.26), 87.9),
    f"{_TINY} 1.5B": ((89.59, 88.98, 42.92), (88.67, 87.90, 42.87), (86.74, 86.04, 44.77), 87.6),
}


def _tiny(metric: str, large: float, small: float) -> tuple[Quoted, ...]:
    return (Quoted(_TINY, f"{_TINY} 3B", metric, large), Quoted(_TINY, f"{_TINY} 1.5B", metric, small))


def _dig(metric: str, before: float, after: float) -> tuple[Quoted, ...]:
    return (
        Quoted(_DIG, "Qwen3-VL-8B-Thinking", metric, before),
        Quoted(_DIG, "Qwen3-VL-8B-Thinking with DiG", metric, after),
    )


REFCOCO = (
    *(
        Quoted(_TINY, model, f"{split}/Precision@1", value)
        for model, values in _REC.items()
        for split, value in zip(_REC_SPLITS, values, strict=True)
    ),
    Quoted(_DIG, "Qwen3-VL-4B-Thinking with DiG", "RefCOCO_val/Precision@1", 88.6),
)
POPE = tuple(
    Quoted(_TINY, model, metric, value)
    for model, (*sets, mean) in _POPE.items()
    for metric, value in (
        *(
            (f"{split}/{column}", number)
            for split, numbers in zip(("random", "popular", "adversarial"), sets, strict=True)
            for column, number in zip(("acc", "Overall", "yes_ratio"), numbers, strict=True)
        ),
        ("mean_f1", mean),
    )
)
MME = _tiny("perception", 1423.2, 1392.4)
SCIENCEQA = _tiny("Overall", 0.703, 0.631)
MMBENCH = (*_tiny("Overall", 0.664, 0.642), *_dig("Overall", 0.855, 0.872))
HALLUSION = _dig("Overall/aAcc", 73.3, 76.7)
